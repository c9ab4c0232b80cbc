"""Take events over HTTP and gRPC and hand them to the producer, for applications in any language.

`server` makes a gateway from the settings and runs it; `asgi` assembles the routes. `events`, `otlp` and `otlpgrpc` are
the endpoints; both go through the steps of `app.Gateway`: authenticate, admit, read, write, confirm. `bodies` and
`otlpbodies` turn bytes into rows, `identity` names the events of a request, `writer` hands them to the producers of one
contract, `admission` bounds memory, `confirmation` waits for Kinesis.

Keys, tokens and limits are shared with the query API and live in `headwater.web`. Nothing here reads the stream.
"""
