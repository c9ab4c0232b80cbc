"""The publisher as an AWS Lambda function on a schedule: `processors.runners.lambdapublisher.handler`.

Each run publishes what is pending and stays until it was found in the table twice, which takes seconds; then it gives
the lease back. Runs that overlap do no harm: one leads. It needs pyiceberg, and so a bundle of its own.
"""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.errors import Retryable
from headwater.logs import to_stdout
from processors.pipeline import load
from processors.services import Services, new_owner
from sinks.publisher import PublishReport

__all__ = ["handler"]

_STEP_MS = 15_000
"""No step is begun with less time left."""


class _Function:
    def __init__(self) -> None:
        settings = Settings()
        to_stdout(settings.log_level)
        self._services = Services(settings, load(settings.pipeline), SystemClock())

    def __call__(self, _event: Any, context: Any) -> dict[str, Any]:
        """The last step's report; what waits then is the next run's."""
        publisher = self._services.publisher(new_owner())
        report = PublishReport(leader=True, waiting=1)
        try:
            while context.get_remaining_time_in_millis() > _STEP_MS:
                with suppress(Retryable):  # another writer of the table was faster
                    report = publisher.step()
                if not report.leader or not report.waiting:
                    break
                self._services.clock.sleep(1.1)
        finally:
            publisher.release()
        return asdict(report)


handler = _Function()
"""`handler(event, context)`: whatever the event says."""
