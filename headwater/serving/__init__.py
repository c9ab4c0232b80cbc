"""The query API: views over HTTP, read-only, with the console beside it."""
