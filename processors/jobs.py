"""Show long commands as jobs that others can watch and cancel.

The ledger document `jobs` holds the jobs of a pipeline: those that run, and the last that ended. A job reports its
progress about once a second while it works, and its process reports that it lives (`JobProgress.beat`). A job that has
reported nothing for `LOST_MS` is shown as lost: its process has died or cannot reach the ledger. A command that resumes
runs as a new job. A report that fails never stops the work; a cancellation does.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.errors import HeadwaterError, UsageError
from headwater.stores import DocumentStore

__all__ = [
    "DOCUMENT",
    "LOST_MS",
    "Advance",
    "Cancelled",
    "Job",
    "JobProgress",
    "Jobs",
    "NoProgress",
    "NoSuchJob",
    "Progress",
]

DOCUMENT = "jobs"
LOST_MS = 60_000
_TOLD_MS = 1_000
_ENDED = 50
"""Most jobs kept that have ended or are lost; all lie in one ledger item, which DynamoDB bounds at 400 KB."""
_LEFT = {"rebuild": ": view rebuild goes on with the view, or ends it with --give-up"}
"""Advice by the kind of a job: what is left to do after its process has died."""

log = logging.getLogger("headwater.jobs")

Advance = Callable[[int, int], None]
"""Takes the events (or rows) so far, and how much of the total is done, in the unit of the total."""
State = Literal["running", "done", "failed", "cancelled", "interrupted"]


class NoSuchJob(UsageError):
    """Say that no job has this id; ended jobs are forgotten after a while."""


class Cancelled(HeadwaterError):
    """Say that somebody has cancelled the job; what it had done stays done."""


class Progress(Protocol):
    """Report the progress of work that goes through phases. Both methods may raise Cancelled."""

    def __call__(self, events: int, done: int) -> None: ...

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """Begin a phase with this name and amount of work (None when unknown).

        After a `final` phase has begun the job can no longer be cancelled.
        """
        ...


class NoProgress:
    """Ignore all progress, for callers that show none."""

    def __call__(self, events: int, done: int) -> None:
        pass

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Job:
    """Hold one job. `done` and `total` are in the unit of its kind (bytes of a compaction, events of a replay)."""

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
    """True when somebody has asked the job to end."""
    final: bool = False
    """True when the job can no longer be cancelled."""

    def is_lost(self, now_ms: int) -> bool:
        """Return True when the job should run but has reported nothing for `LOST_MS`.

        >>> Job("replay-1", "replay", "telemetry", "host", "running", started_ms=0, updated_ms=0).is_lost(60_001)
        True
        """
        return self.state == "running" and now_ms - self.updated_ms > LOST_MS

    def shown(self, now_ms: int) -> dict[str, Any]:
        """Return the job as commands, the API and the console show it.

        The state of a running job may then also be `lost` or `cancelling`.
        """
        state: str = self.state
        if state == "running":
            state = "lost" if self.is_lost(now_ms) else "cancelling" if self.cancel else state
        hidden = ("cancel", "final")
        return {name: value for name, value in asdict(self).items() if name not in hidden} | {"state": state}


class Jobs:
    """Read and change the jobs of one pipeline. Several processes may change them at once."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    def all(self) -> list[Job]:
        """Return all jobs, the latest first."""
        document, _ = self._documents.document(DOCUMENT)
        return _parsed(document)[::-1]

    def shown(self) -> list[dict[str, Any]]:
        """Return all jobs as they are shown, the latest first."""
        now = self._clock.now_ms()
        return [job.shown(now) for job in self.all()]

    def get(self, job_id: str) -> Job:
        """Return the job with this id; raise NoSuchJob when there is none."""
        found = next((job for job in self.all() if job.id == job_id), None)
        if found is None:
            raise NoSuchJob(f"there is no job {job_id!r}: headwater jobs list has them")
        return found

    def cancel(self, job_id: str, who: str) -> Job:
        """Ask the job to end, which it does at its next progress report; a lost job ends at once.

        Raises UsageError for a job that has ended or can no longer be cancelled, and NoSuchJob for an unknown id.
        """

        def asked(job: Job) -> Job:
            if job.state != "running":
                raise UsageError(f"job {job_id} is {job.state} already")
            if job.is_lost(self._clock.now_ms()):
                left = f"; its process had died{_LEFT.get(job.kind, '')}"
                return replace(job, cancel=True, state="cancelled", message=f"cancelled by {who}{left}")
            if job.final:
                raise UsageError(f"job {job_id} cannot be cancelled any more: it is {job.message}")
            return replace(job, cancel=True, message=f"cancelled by {who}")

        self.get(job_id)  # an unknown id is refused before anything is written
        job = self._change(job_id, asked)
        log.info("job cancelled", extra={"job": job_id, "by": who})
        return job

    @contextmanager
    def run(self, kind: str, subject: str, owner: str, total: int | None = None) -> Iterator["JobProgress"]:
        """Run a block as a job and yield its progress, which raises Cancelled once somebody has cancelled the job.

        The job is `done` when the block ends, else failed, cancelled or interrupted by what the block raised. Raises
        HeadwaterError or ClientError when the job cannot be written to the ledger in the first place.
        """
        now = self._clock.now_ms()
        job_id = f"{kind}-{uuid.uuid4().hex[:8]}"
        self._replace(lambda jobs: [*jobs, Job(job_id, kind, subject, owner, "running", now, now, total=total)])
        telling = JobProgress(self, job_id, self._clock, total)
        try:
            yield telling
        except BaseException as error:  # KeyboardInterrupt too: else the job would look lost after a minute
            said = "" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            telling.end(_ended_by(error), said[:300])
            raise
        telling.end("done", "")

    def tell(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job and note that its process lives; return None when the ledger refused: the work goes on."""
        try:
            return self._change(job_id, lambda job: replace(change(job), updated_ms=self._clock.now_ms()))
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            log.warning("a job's progress was not told", extra={"job": job_id, "reason": str(error)})
            return None

    def _change(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """Change one job in the document and return it; raise NoSuchJob when it is no longer there."""
        made: list[Job] = []  # filled anew on each attempt: the ledger calls again when another process wrote first

        def changed(jobs: list[Job]) -> list[Job]:
            made[:] = [change(job) for job in jobs if job.id == job_id]
            return [made[0] if job.id == job_id else job for job in jobs]

        self._replace(changed)
        if not made:
            raise NoSuchJob(f"there is no job {job_id!r} any more")
        return made[0]

    def _replace(self, change: Callable[[list[Job]], list[Job]]) -> None:
        """Change the document and drop the oldest ended jobs beyond those that are kept."""

        def changed(document: dict[str, Any]) -> dict[str, Any]:
            jobs, now = change(_parsed(document)), self._clock.now_ms()
            ended = [job.id for job in jobs if job.state != "running" or job.is_lost(now)]
            gone = set(ended[: max(0, len(ended) - _ENDED)])
            return {"jobs": [asdict(job) for job in jobs if job.id not in gone]}

        self._documents.change(DOCUMENT, changed)


class JobProgress:
    """Report the progress of a job from the process that runs it.

    All methods belong to the thread that works, but `beat`, which another thread may call.
    """

    def __init__(self, jobs: Jobs, job_id: str, clock: Clock, total: int | None) -> None:
        self._jobs, self._id, self._clock = jobs, job_id, clock
        self._values: dict[str, Any] = {"events": 0, "done": 0, "total": total}
        self._told_ms = clock.now_ms()

    def __call__(self, events: int, done: int) -> None:
        self._values = {**self._values, "events": events, "done": done}
        if self._clock.now_ms() - self._told_ms >= _TOLD_MS:
            self._tell()

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """Begin a phase and report it at once; raise Cancelled instead for a job that somebody has cancelled."""
        self._values = {**self._values, "done": 0, "total": total}
        self._tell(message=name, **({"final": True} if final else {}))

    def beat(self) -> None:
        """Say that the process lives, whatever it waits for."""
        values = self._values  # replaced as a whole by the other thread, never changed in place, so no lock is needed
        self._jobs.tell(self._id, lambda job: replace(job, **values))

    def end(self, state: State, message: str) -> None:
        """Report the last state and values; a job that is done has done its whole total."""
        values = self._values
        if state == "done" and values["total"] is not None:
            values = {**values, "done": values["total"]}
        self._jobs.tell(self._id, lambda job: replace(job, **values, state=state, message=message))

    def _tell(self, **more: Any) -> None:
        """Report the values; raise Cancelled when somebody has cancelled the job."""
        self._told_ms = self._clock.now_ms()
        values = self._values
        job = self._jobs.tell(self._id, lambda job: job if _is_unwanted(job) else replace(job, **values, **more))
        if job is not None and _is_unwanted(job):
            raise Cancelled(f"job {self._id}: {job.message}; what it had done stays")


def _is_unwanted(job: Job) -> bool:
    """Return True when the job was cancelled before it became final."""
    return not job.final and (job.cancel or job.state == "cancelled")


def _ended_by(error: BaseException) -> State:
    """Return the state of a job whose block raised this error."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def _parsed(document: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of the document; fields that a later version added are ignored."""
    known = {one.name for one in fields(Job)}
    return [Job(**{name: value for name, value in one.items() if name in known}) for one in document.get("jobs", [])]
