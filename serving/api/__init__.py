"""Serve the rows of views over HTTP, read-only, with the console beside them.

`app` has the routes, `reading` the questions and answers, `streams` the server-sent events, `server` puts all together.
Nothing here writes to a view; the one thing that changes something is cancelling a job.
"""
