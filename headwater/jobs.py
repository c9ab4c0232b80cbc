"""Jobs: what a long command says of itself, and how others ask it to stop.

A job is the ledger's document `job#<id>`; every change is conditional on its revision, so that a progress note and a
cancellation that cross are both kept.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError
from headwater.ledger import Ledger

__all__ = ["LOST_MS", "Cancelled", "Job", "cancel", "jobs", "run"]

PREFIX = "job#"
NOTE_MS = 2_000
"""A running job notes its progress, and looks whether it is cancelled, at most this often."""
LOST_MS = 120_000
"""A running job that has noted nothing for so long is shown as lost."""

State = Literal["running", "done", "failed", "cancelled", "lost"]


class Cancelled(HeadwaterError):
    """Somebody cancelled the job that was running."""


@dataclass(frozen=True)
class Job:
    """One run of a long command. Times in epoch ms; `done` of `total` in the command's own unit."""

    id: str
    kind: str
    who: str
    started_ms: int
    updated_ms: int
    state: State = "running"
    done: int = 0
    total: int | None = None
    message: str = ""


def jobs(ledger: Ledger, now_ms: int) -> list[Job]:
    """Every job of the pipeline, the newest first; one whose owner has been silent for LOST_MS is `lost`."""
    found = [Job(**doc) for name, (doc, _) in ledger.documents().items() if name.startswith(PREFIX)]
    shown = [
        replace(job, state="lost") if job.state == "running" and now_ms - job.updated_ms > LOST_MS else job
        for job in found
    ]
    return sorted(shown, key=lambda job: (job.started_ms, job.id), reverse=True)


def cancel(ledger: Ledger, job_id: str, now_ms: int) -> Job:
    """Mark a running job as cancelled: its command stops at its next note. One that has ended stays as it ended."""
    return _change(ledger, job_id, now_ms, state="cancelled")


@contextmanager
def run(kind: str, who: str, total: int | None, ledger: Ledger, clock: Clock) -> Iterator[Callable[[int], None]]:
    """A job while the block runs. The block calls `advance(done)`, which raises Cancelled once somebody cancelled."""
    now = clock.now_ms()
    job = Job(f"{kind}-{now}", kind, who, now, now, total=total)
    ledger.put_document(PREFIX + job.id, asdict(job), 0)
    noted, latest = now, 0

    def advance(done: int) -> None:
        nonlocal noted, latest
        latest = done
        if clock.now_ms() - noted >= NOTE_MS:
            noted = clock.now_ms()
            if _change(ledger, job.id, noted, done=done).state == "cancelled":
                raise Cancelled(f"job {job.id} was cancelled")

    try:
        yield advance
    except Cancelled:
        raise
    except BaseException as error:
        message = str(error) or type(error).__name__
        _change(ledger, job.id, clock.now_ms(), state="failed", done=latest, message=message)
        raise
    _change(ledger, job.id, clock.now_ms(), state="done", done=latest)


def _change(ledger: Ledger, job_id: str, now_ms: int, **changes: Any) -> Job:
    for _ in range(8):
        doc, rev = ledger.document(PREFIX + job_id)
        if not rev:
            raise HeadwaterError(f"there is no job {job_id!r}")
        job = Job(**doc)
        if job.state != "running":
            return job
        job = Job(**(doc | changes | {"updated_ms": now_ms}))
        try:
            ledger.put_document(PREFIX + job_id, asdict(job), rev)
        except Fenced:
            continue
        return job
    raise Fenced(f"job {job_id}: others keep changing it; try again")
