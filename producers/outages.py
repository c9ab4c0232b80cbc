"""Say in the log that a stream takes nothing, soon after that begins, and when it takes events again.

Deliveries are tried again for minutes, so that a service survives what passes; the person who started it must not have
to wait as long to learn that there is no network, no endpoint or no login. Here is only what is said, and when. Whether
a failure is worth another try is decided in `failures`.
"""

import logging

from headwater.awsfailures import advice, lacks_credentials
from headwater.errors import HeadwaterError

__all__ = ["OutageLog"]

log = logging.getLogger("headwater.producer")

_SOON_MS = 2_000
"""Time for which failures go on before they are said: a blip of the network is not worth a line."""
_AGAIN_MS = 30_000
"""Between two lines about the same outage."""


class OutageLog:
    """Log that a stream has taken nothing for a while. Not thread-safe: one thread sends.

    `endpoint` is where the client sends to; empty when it does not say.
    """

    def __init__(self, stream: str, endpoint: str) -> None:
        self._stream, self._endpoint = stream, endpoint
        self._since_ms: int | None = None
        self._said_ms: int | None = None

    def failed(self, error: HeadwaterError, began_ms: int, now_ms: int) -> None:
        """Note an attempt that came to nothing, begun at `began_ms`."""
        self._since_ms = began_ms if self._since_ms is None else self._since_ms
        # without a login nothing is sent: that is no blip, and said at once
        soon = 0 if lacks_credentials(error) else _SOON_MS
        wait_from, pause = (self._since_ms, soon) if self._said_ms is None else (self._said_ms, _AGAIN_MS)
        if now_ms - wait_from < pause:
            return
        self._said_ms = now_ms
        where = f" at {self._endpoint}" if self._endpoint else ""
        said = str(error).removeprefix(f"stream {self._stream}: ")
        log.warning(
            "stream %s%s has taken nothing for %.0f s, and the producer goes on trying: %s%s",
            self._stream,
            where,
            (now_ms - self._since_ms) / 1000,
            said.rstrip("."),
            advice(error),
        )

    def delivered(self, now_ms: int) -> None:
        """Note that the stream takes records."""
        if self._said_ms is not None and self._since_ms is not None:
            log.warning("stream %s takes events again, after %.0f s", self._stream, (now_ms - self._since_ms) / 1000)
        self._since_ms = self._said_ms = None
