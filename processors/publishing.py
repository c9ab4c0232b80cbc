"""Run the publisher as a service: one step per interval, with a look for new reference data in between.

What a step does is in `headwater.sinks.lake.publisher`. Here is only its repetition: the pauses, the errors that pass,
and the release of the lease at the end.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict

from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Retryable
from headwater.lease import Stop, run_service
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.unreadable import is_unreadable

__all__ = ["PublishLoop"]

log = logging.getLogger("headwater.publisher")


class PublishLoop:
    """Repeat the publisher's step until stopped. Run several: the one that holds the lease works, the others wait."""

    def __init__(
        self,
        open_publisher: Callable[[], Publisher],
        publish_references: Callable[[], None],
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._open = open_publisher
        self._publish_references = publish_references
        self._settings = settings
        self._clock = clock
        self._looked_ms = 0
        self.publisher: Publisher | None = None

    def run(self, stop: Stop) -> None:
        """Publish until told to stop, and once more after it. What fails is logged and tried at the next step."""
        seconds, publisher = self._settings.publish_seconds, self.prepare()
        self._looked_ms = self._clock.now_ms()
        run_service(stop, self._turn, publisher.lease, log, pause=seconds, retry=seconds, last_turn=True)

    def _turn(self) -> float:
        settings, clock = self._settings, self._clock
        try:
            report = self.prepare().step()
        except Exception as error:
            if not is_unreadable(error):
                raise
            raise Retryable(f"the lake's table cannot be read: {type(error).__name__}: {error}") from error
        log.info("step", extra=asdict(report))
        if report.published or report.readded:
            log.info("published", extra={"files": report.published, "added_again": report.readded})
        if settings.reference_seconds and clock.now_ms() - self._looked_ms >= settings.reference_seconds * 1000:
            self._looked_ms = clock.now_ms()
            if report.leader:
                self._publish_references()
        return settings.publish_seconds

    def prepare(self) -> Publisher:
        """Make the lake's table, unless it is there, and return the publisher over it."""
        if self.publisher is None:
            self.publisher = self._open()
        return self.publisher
