"""The publisher as a service: a step per interval, and reference tables looked after on the way."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from threading import Event
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import HeadwaterError
from processors.pipeline import Pipeline
from processors.references import publish
from processors.services import Services, new_owner
from sinks.publisher import Publisher

__all__ = ["PublishLoop"]

Announce = Callable[[str, dict[str, Any]], object]
"""Puts a control record, by kind and body, on every open shard."""

log = logging.getLogger("headwater.publisher")


class PublishLoop:
    """Run several: the one that holds the lease works, the others wait."""

    def __init__(self, services: Services, announce: Announce) -> None:
        self._services = services
        self._announce = announce
        self.publisher: Publisher | None = None

    @property
    def pipeline(self) -> Pipeline:
        return self._services.pipeline

    def run(self, stop: Event) -> None:
        """Until stopped. What fails is logged and tried again at the next step."""
        settings, clock = self._services.settings, self._services.clock
        publisher = self.prepare()
        looked_ms = clock.now_ms()
        while True:
            last = stop.wait(settings.publish_seconds)
            try:
                report = publisher.step()
                log.info("step", extra=asdict(report))
                if report.published or report.readded:
                    log.info("published", extra={"files": report.published, "added_again": report.readded})
                if settings.reference_seconds and clock.now_ms() - looked_ms >= settings.reference_seconds * 1000:
                    looked_ms = clock.now_ms()
                    if report.leader:
                        self._look_for_references()
            except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
            if last:
                self._release(publisher)
                return

    def prepare(self) -> Publisher:
        """The lake's table made or found, and the publisher over it."""
        if self.publisher is None:
            self.publisher = self._services.publisher(new_owner())
        return self.publisher

    def _release(self, publisher: Publisher) -> None:
        try:
            publisher.release()
        except (ClientError, BotoCoreError) as error:
            log.warning("the lease is kept until it runs out", extra={"reason": str(error)})

    def _look_for_references(self) -> None:
        """A new version of each reference table whose source has changed."""
        services = self._services
        for reference in self.pipeline.references:
            publish(
                self.pipeline,
                reference.name,
                None,
                services.ledger,
                services.objects,
                services.client,
                self._announce,
            )
