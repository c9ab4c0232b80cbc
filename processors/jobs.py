"""Commands that take long, as jobs that others see and may cancel.

The ledger document `jobs` has the pipeline's: those that run, and the last that ended. A job tells its progress about
once a second while it works; one that has said nothing for `LOST_MS` is shown as lost: its process has died, or cannot
reach the ledger. What resumes is called again, as a new job. Telling never stops the work; being cancelled does.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable, UsageError

__all__ = ["DOCUMENT", "LOST_MS", "Advance", "Cancelled", "Job", "Jobs", "NoSuchJob"]

DOCUMENT = "jobs"
LOST_MS = 600_000
_TOLD_MS = 1_000
_ENDED = 50
"""Jobs that have ended and are kept."""
_RACES = 20

log = logging.getLogger("headwater.jobs")

Advance = Callable[[int, int], None]
"""Events (or rows) so far, and how much of the total, in its unit."""
State = Literal["running", "done", "failed", "cancelled"]


class NoSuchJob(UsageError):
    """An id that no job has; ended jobs are forgotten after a while."""


class Cancelled(HeadwaterError):
    """Somebody has cancelled the job; what it had done stays done."""


@dataclass(frozen=True)
class Job:
    """One job. `done` and `total` are in the unit of the kind (bytes of a compaction, events of a replay)."""

    id: str
    kind: str
    subject: str
    owner: str
    state: State
    started_ms: int
    updated_ms: int
    events: int = 0
    done: int = 0
    total: int | None = None
    message: str = ""
    cancel: bool = False
    """Somebody wants it to end."""

    def shown(self, now_ms: int) -> dict[str, Any]:
        """As commands, the API and the console show it: the state may be `lost` or `cancelling`, too."""
        state: str = self.state
        if state == "running":
            state = "lost" if now_ms - self.updated_ms > LOST_MS else "cancelling" if self.cancel else state
        return {name: value for name, value in asdict(self).items() if name != "cancel"} | {"state": state}


class _Documents(Protocol):
    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int: ...


class Jobs:
    """The jobs of one pipeline. Several processes may change them at once."""

    def __init__(self, documents: _Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    def all(self) -> list[Job]:
        """The latest first."""
        document, _ = self._documents.document(DOCUMENT)
        return [Job(**one) for one in reversed(document.get("jobs", []))]

    def shown(self) -> list[dict[str, Any]]:
        """Every job as it is shown, the latest first."""
        now = self._clock.now_ms()
        return [job.shown(now) for job in self.all()]

    def get(self, job_id: str) -> Job:
        """NoSuchJob when there is none of that id."""
        found = next((job for job in self.all() if job.id == job_id), None)
        if found is None:
            raise NoSuchJob(f"there is no job {job_id!r}: headwater jobs list has them")
        return found

    def cancel(self, job_id: str, who: str) -> Job:
        """Ask the job to end, which it does when it next tells its progress; one that was lost ends at once."""

        def asked(job: Job) -> Job:
            if job.state != "running":
                raise UsageError(f"job {job_id} is {job.state} already")
            lost = self._clock.now_ms() - job.updated_ms > LOST_MS
            return replace(job, cancel=True, state="cancelled" if lost else "running", message=f"cancelled by {who}")

        self.get(job_id)
        job = self._change(job_id, asked)
        log.info("job cancelled", extra={"job": job_id, "by": who})
        return job

    @contextmanager
    def run(self, kind: str, subject: str, owner: str, total: int | None = None) -> Iterator[Advance]:
        """A job for as long as the block lasts. What is yielded tells the progress; it raises Cancelled.

        HeadwaterError or ClientError where the job cannot even be written down.
        """
        now = self._clock.now_ms()
        job_id = f"{kind}-{uuid.uuid4().hex[:8]}"
        self._add(Job(job_id, kind, subject, owner, "running", now, now, total=total))
        told = now

        def advance(events: int, done: int) -> None:
            nonlocal told
            if self._clock.now_ms() - told < _TOLD_MS:
                return
            told = self._clock.now_ms()
            job = self._tell(job_id, lambda old: replace(old, events=events, done=done))
            if job is not None and (job.cancel or job.state == "cancelled"):
                raise Cancelled(f"job {job_id}: {job.message}; what it had done stays")

        try:
            yield advance
        except BaseException as error:
            state: State = "cancelled" if isinstance(error, Cancelled) else "failed"
            said = str(error) or type(error).__name__
            self._tell(job_id, lambda old: replace(old, state=state, message=said[:300]))
            raise
        self._tell(job_id, lambda old: replace(old, state="done", done=old.done if total is None else total))

    def _tell(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """None when it could not be told: the work goes on."""
        try:
            return self._change(job_id, lambda job: replace(change(job), updated_ms=self._clock.now_ms()))
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            log.warning("a job's progress was not told", extra={"job": job_id, "reason": str(error)})
            return None

    def _add(self, job: Job) -> None:
        self._replace(lambda jobs: [*jobs, job])

    def _change(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        made: list[Job] = []

        def changed(jobs: list[Job]) -> list[Job]:
            made[:] = [change(job) for job in jobs if job.id == job_id]
            return [made[0] if job.id == job_id else job for job in jobs]

        self._replace(changed)
        if not made:
            raise NoSuchJob(f"there is no job {job_id!r} any more")
        return made[0]

    def _replace(self, change: Callable[[list[Job]], list[Job]]) -> None:
        for _ in range(_RACES):
            document, revision = self._documents.document(DOCUMENT)
            jobs = change([Job(**one) for one in document.get("jobs", [])])
            ended = [job.id for job in jobs if job.state != "running"]
            gone = set(ended[: max(0, len(ended) - _ENDED)])
            kept = [asdict(job) for job in jobs if job.id not in gone]
            try:
                self._documents.put_document(DOCUMENT, {"jobs": kept}, revision)
                return
            except Fenced:
                continue  # another job told its progress in between
        raise Retryable("the list of jobs keeps changing; try again")
