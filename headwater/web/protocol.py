"""Bound what one HTTP connection may cost before, between and beside its requests: bytes, time and number.

uvicorn reads headers of any size, waits for their end for ever, and keeps a response for a client that does not read.
All that happens before any route sees the request, so it is bounded here, below routes and credentials. The body of a
request is bounded by whoever reads it; here only that it ends at all.

Nor may a request be read in two ways, by a proxy in front and here. A request that asks for another protocol
(`Upgrade`) has its body all the same, where uvicorn's parser takes the body for the next request; trailers are no
headers; and Host and Authorization are said once.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ConnectionLimits", "bounded_protocol"]


@dataclass(frozen=True)
class ConnectionLimits:
    """Hold the limits of a connection. Times are in seconds."""

    head_bytes: int = 64 << 10
    """Request line and headers, and whatever lies between two pieces of a body: chunk extensions, trailers."""
    head_seconds: float = 10.0
    """From the opening of a connection, or the first byte of a later request, to the end of the headers."""
    body_seconds: float = 60.0
    """From the end of the headers to the end of the body, read by a route or not."""
    send_seconds: float = 30.0
    """Longest time that a client may take nothing of an answer that waits for it."""
    connections: int = 10_000
    """Connections of one process; further ones are answered 503 and closed."""


def bounded_protocol(limits: ConnectionLimits | None = None) -> type[asyncio.Protocol]:
    """Return the `http` of a uvicorn.Config: a protocol that keeps the limits."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits or ConnectionLimits()})


class _BoundedProtocol(HttpToolsProtocol):
    """Count and time one connection. A connection that passes a limit gets a short answer, if any, and is closed."""

    limits: ConnectionLimits

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._silent_bytes = 0
        """Bytes since the parser last came to the end of the headers or a piece of a body."""
        self._refusal = ""
        self._has_headers = False
        """Whether the headers of the message that is being read have ended: what comes behind them are trailers."""
        self._is_read_again = False
        """Whether the message that is being read comes again, without the upgrade that it asked for."""
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it as well
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse("503 Service Unavailable", "Too many connections.")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal:
            return  # what was on its way when the connection was refused
        if self._receive_timer is None:
            self._await_head()
        self._silent_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        # after parsing, so that a large read with the end of the headers in it is not held against them
        if self._silent_bytes > self.limits.head_bytes and not self.transport.is_closing():
            self._refuse("431 Request Header Fields Too Large", "The headers are too large.")

    def _parse(self, data: bytes) -> None:
        """Feed the parser as uvicorn does, but read what asks for a protocol that is not spoken as if it did not.

        The parser ends such a message with its headers. A client may ask for HTTP/2 in this way and send a body, which
        would be taken for a request of its own, where a proxy in front takes it for a body.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            except HttpParserError:
                self.logger.warning("Invalid HTTP request received.")
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        self._has_headers = self._is_read_again = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._has_headers = True
        names = [name for name, _ in self.headers]
        if max(names.count(b"host"), names.count(b"authorization")) > 1 or self.parser.get_method() == b"CONNECT":
            raise ValueError("the request can be read in two ways, or asks for a tunnel")
        if self._should_upgrade() and not {b"content-length", b"transfer-encoding"}.isdisjoint(names):
            raise ValueError("a socket's handshake has no body")
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._is_read_again = True
            return
        self._silent_bytes = 0
        self._stop_receive_timer()
        self._receive_timer = self.loop.call_later(
            self.limits.body_seconds, self._refuse, "408 Request Timeout", "The body took too long."
        )
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_read_again:
            return
        self._silent_bytes = 0
        # from here on uvicorn's keep-alive timeout runs, until data of the next request comes
        self._stop_receive_timer()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._stop_timers()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_progress()

    def resume_writing(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        super().resume_writing()

    def _await_progress(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self.limits.send_seconds, self._check_progress, waiting)

    def _check_progress(self, waited: int) -> None:
        # a large answer may take longer than the limit, as long as some of it goes
        if self.transport.get_write_buffer_size() < waited:
            self._await_progress()
        else:
            self.transport.abort()  # close would wait for the client to take what is buffered

    def _await_head(self) -> None:
        self._receive_timer = self.loop.call_later(self.limits.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # the beginning of a pipelined request: the one before still waits for its answer
        else:
            self._refuse("408 Request Timeout", "The headers took too long.")

    def _refuse(self, status: str, text: str) -> None:
        """Answer, unless an answer to this request has begun, and close."""
        self._refusal = text
        self._stop_timers()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\nconnection: close"
            self.transport.write(f"{head}\r\n\r\n{text}".encode())
        self.transport.close()

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _stop_timers(self) -> None:
        self._stop_receive_timer()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
