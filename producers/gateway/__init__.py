"""The gateway: an HTTP service in front of the producer, for applications in any language.

`server` runs it; `app` has the routes; `bodies` and `otlp` read what comes in; `intake` hands events to the producers
and says when they are safe; `auth`, `keys` and `limits` decide who may.
"""
