"""Send events: the client library, files and the gateway. Programs import it as `from headwater import Producer`."""
