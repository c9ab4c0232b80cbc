"""Commands that take long, as jobs that others see and may cancel.

The ledger document `jobs` has the pipeline's: those that run, and the last that ended. A job tells its progress about
once a second while it works, and its process that it lives (`Telling.beat`); one that has said nothing for `LOST_MS` is
shown as lost: its process has died, or cannot reach the ledger. What resumes is called again, as a new job. Telling
never stops the work; being cancelled does.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable, UsageError

__all__ = ["DOCUMENT", "LOST_MS", "Advance", "Cancelled", "Job", "Jobs", "NoSuchJob", "Progress", "Telling", "Untold"]

DOCUMENT = "jobs"
LOST_MS = 60_000
_TOLD_MS = 1_000
_ENDED = 50
"""Jobs that have ended, or are lost, and are kept."""
_LEFT = {"rebuild": ": view rebuild goes on with the view, or ends it with --give-up"}
"""By kind, what a process that died leaves to do."""
_RACES = 20

log = logging.getLogger("headwater.jobs")

Advance = Callable[[int, int], None]
"""Events (or rows) so far, and how much of the total, in its unit."""
State = Literal["running", "done", "failed", "cancelled", "interrupted"]


class NoSuchJob(UsageError):
    """An id that no job has; ended jobs are forgotten after a while."""


class Cancelled(HeadwaterError):
    """Somebody has cancelled the job; what it had done stays done."""


class Progress(Protocol):
    """An `Advance` of what goes through phases. Both may raise Cancelled."""

    def __call__(self, events: int, done: int) -> None: ...

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """What is done now, and how much of it there is; `final`: it can be cancelled no more."""
        ...


class Untold:
    """Progress that nobody hears."""

    def __call__(self, events: int, done: int) -> None:
        pass

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        pass


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
    final: bool = False
    """It is past where it could be cancelled."""

    def is_lost(self, now_ms: int) -> bool:
        return self.state == "running" and now_ms - self.updated_ms > LOST_MS

    def shown(self, now_ms: int) -> dict[str, Any]:
        """As commands, the API and the console show it: the state may be `lost` or `cancelling`, too."""
        state: str = self.state
        if state == "running":
            state = "lost" if self.is_lost(now_ms) else "cancelling" if self.cancel else state
        hidden = ("cancel", "final")
        return {name: value for name, value in asdict(self).items() if name not in hidden} | {"state": state}


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
        return _parsed(document)[::-1]

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
        """Ask the job to end, which it does when it next tells its progress; one that was lost ends at once.

        UsageError for one that has ended, or cannot be cancelled any more.
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

        self.get(job_id)
        job = self._change(job_id, asked)
        log.info("job cancelled", extra={"job": job_id, "by": who})
        return job

    @contextmanager
    def run(self, kind: str, subject: str, owner: str, total: int | None = None) -> Iterator["Telling"]:
        """A job for as long as the block lasts. What is yielded tells the progress; it raises Cancelled.

        HeadwaterError or ClientError where the job cannot even be written down.
        """
        now = self._clock.now_ms()
        job_id = f"{kind}-{uuid.uuid4().hex[:8]}"
        self._replace(lambda jobs: [*jobs, Job(job_id, kind, subject, owner, "running", now, now, total=total)])
        telling = Telling(self, job_id, self._clock, total)
        try:
            yield telling
        except BaseException as error:
            said = "" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            telling.end(_ended_by(error), said[:300])
            raise
        telling.end("done", "")

    def tell(self, job_id: str, change: Callable[[Job], Job]) -> Job | None:
        """Change a job and say that its process lives. None when it could not be told: the work goes on."""
        try:
            return self._change(job_id, lambda job: replace(change(job), updated_ms=self._clock.now_ms()))
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            log.warning("a job's progress was not told", extra={"job": job_id, "reason": str(error)})
            return None

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
            jobs, now = change(_parsed(document)), self._clock.now_ms()
            ended = [job.id for job in jobs if job.state != "running" or job.is_lost(now)]
            gone = set(ended[: max(0, len(ended) - _ENDED)])
            kept = [asdict(job) for job in jobs if job.id not in gone]
            try:
                self._documents.put_document(DOCUMENT, {"jobs": kept}, revision)
                return
            except Fenced:
                continue  # another job told its progress in between
        raise Retryable("the list of jobs keeps changing; try again")


class Telling:
    """A job's progress, as the process tells it that runs it. `beat` is for another thread than the rest."""

    def __init__(self, jobs: Jobs, job_id: str, clock: Clock, total: int | None) -> None:
        self._jobs, self._id, self._clock = jobs, job_id, clock
        self._values: dict[str, Any] = {"events": 0, "done": 0, "total": total}
        self._told_ms = clock.now_ms()

    def __call__(self, events: int, done: int) -> None:
        self._values = {**self._values, "events": events, "done": done}
        if self._clock.now_ms() - self._told_ms >= _TOLD_MS:
            self._tell()

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """Told at once. One that somebody has cancelled does not become final."""
        self._values = {**self._values, "done": 0, "total": total}
        self._tell(message=name, **({"final": True} if final else {}))

    def beat(self) -> None:
        """Say that the process lives, whatever it waits for."""
        values = self._values
        self._jobs.tell(self._id, lambda job: replace(job, **values))

    def end(self, state: State, message: str) -> None:
        """The last that is told: with the last values, and of what is done all of it."""
        values = self._values
        if state == "done" and values["total"] is not None:
            values = {**values, "done": values["total"]}
        self._jobs.tell(self._id, lambda job: replace(job, **values, state=state, message=message))

    def _tell(self, **more: Any) -> None:
        self._told_ms = self._clock.now_ms()
        values = self._values
        job = self._jobs.tell(self._id, lambda job: job if _is_unwanted(job) else replace(job, **values, **more))
        if job is not None and _is_unwanted(job):
            raise Cancelled(f"job {self._id}: {job.message}; what it had done stays")


def _is_unwanted(job: Job) -> bool:
    return not job.final and (job.cancel or job.state == "cancelled")


def _ended_by(error: BaseException) -> State:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def _parsed(document: Mapping[str, Any]) -> list[Job]:
    """What a later version has beside is left out."""
    known = {one.name for one in fields(Job)}
    return [Job(**{name: value for name, value in one.items() if name in known}) for one in document.get("jobs", [])]
