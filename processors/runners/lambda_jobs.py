"""The serverless model's work on a schedule, as AWS Lambda functions: `publish` and `audit`.

Both need pyiceberg, the audit duckdb too, so they have bundles (or images) of their own. What they find is in the log
and in the answer; the event says nothing.
"""

import logging
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any

from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.errors import Retryable
from headwater.logs import to_stdout
from processors.pipeline import load
from processors.services import Services, new_owner
from sinks.publisher import PublishReport

__all__ = ["audit", "publish"]

_STEP_MS = 15_000
"""No step is begun with less time left."""

log = logging.getLogger("headwater.publisher")
audit_log = logging.getLogger("headwater.audit")


@cache
def _services() -> Services:
    settings = Settings()
    to_stdout(settings.log_level)
    return Services(settings, load(settings.pipeline), SystemClock())


def publish(_event: Any, context: Any) -> dict[str, Any]:
    """Publish what is pending and stay until it was found in the table twice, which takes seconds; then give the lease
    back. Runs that overlap do no harm: one leads. Returns the last step's report; what waits is the next run's."""
    services = _services()
    publisher = services.publisher(new_owner())
    report = PublishReport(leader=True, waiting=1)
    try:
        while context.get_remaining_time_in_millis() > _STEP_MS:
            with suppress(Retryable):  # another writer of the table was faster
                report = publisher.step()
                log.info("step", extra=asdict(report))
            if not report.leader or not report.waiting:
                break
            services.clock.sleep(1.1)
    finally:
        publisher.release()
    return asdict(report)


def audit(_event: Any, _context: Any) -> dict[str, Any]:
    """Compare every hop, and log it: `exact` is what an alarm looks at. Returns the same."""
    from processors.auditing import run_audit

    report = run_audit(_services())
    found = {
        "exact": report.exact,
        "missing": report.missing,
        "duplicates": report.duplicates,
        "unread": report.unread,
        "processed": report.processed,
        "in_lake": report.in_lake,
        "pending_files": report.pending_files,
        "origins": [origin.origin for origin in report.origins if not origin.exact][:20],
    }
    (audit_log.info if report.exact else audit_log.error)("audit", extra=found)
    return found
