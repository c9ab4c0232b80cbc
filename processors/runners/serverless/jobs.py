"""Define the serverless model's work on a schedule, as AWS Lambda functions: `publish` and `audit`.

Both need pyiceberg, the audit duckdb too, so they have bundles (or images) of their own. What they find is in the log
and in the answer; the event says nothing.
"""

import logging
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any

from headwater.clock import SystemClock
from headwater.config import read_settings
from headwater.errors import Retryable
from headwater.processors.definition.loading import load
from headwater.processors.runners.tipnotes import TipRounds
from headwater.processors.services import Services, new_owner
from headwater.sinks.lake.publisher import PublishReport
from headwater.telemetry.logs import to_stdout

__all__ = ["audit", "publish"]

_STEP_MS = 15_000
"""No step is begun with less time left."""

log = logging.getLogger("headwater.publisher")
audit_log = logging.getLogger("headwater.audit")


@cache
def _rounds() -> TipRounds:
    services = _services()
    return TipRounds(services.stream_client, services.ledger, services.clock)


@cache
def _services() -> Services:
    settings = read_settings()
    to_stdout(settings.log_level)
    return Services(settings, load(settings.pipeline), SystemClock())


def publish(_event: Any, context: Any) -> dict[str, Any]:
    """Publish what is pending and stay until it was found in the table twice, which takes seconds; then release the
    lease. Runs that overlap do no harm: one leads. Returns the last step's report; what waits is the next run's.

    Once an hour it also notes which shards are read to their tip: the function of a shard without records does not run.
    """
    services = _services()
    publisher = services.publisher(new_owner())
    report = PublishReport(leader=True, waiting=1)
    try:
        while context.get_remaining_time_in_millis() > _STEP_MS:
            with suppress(Retryable):  # another writer of the table was faster
                report = publisher.step()
                log.info("step", extra=asdict(report))
            if not report.leader or report.idle:
                break
            services.clock.sleep(1.1)
    finally:
        publisher.release()
    _rounds().step()
    return asdict(report)


def audit(_event: Any, _context: Any) -> dict[str, Any]:
    """Compare every hop, and log it: `exact` is what an alarm looks at. Returns the same."""
    from headwater.processors.audit.run import run_audit

    report = run_audit(_services().reader)
    found = {
        "exact": report.exact,
        "missing": report.missing,
        "duplicates": report.duplicates,
        "unread": report.unread,
        "lost": report.lost,
        "other_stream": report.other_stream,
        "processed": report.processed,
        "in_lake": report.in_lake,
        "pending_files": report.pending_files,
        "origins": [origin.origin for origin in report.origins if not origin.exact][:20],
    }
    (audit_log.info if report.exact else audit_log.error)("audit", extra=found)
    return found
