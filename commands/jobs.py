"""Define the command `jobs`, and run other commands as jobs that it lists and cancels."""

from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.commands.options import Json
from headwater.commands.services import open_services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.processors.jobs import Jobs, Progress
    from headwater.processors.services import Services

__all__ = ["Interrupted", "as_job", "quiet_job", "register"]

jobs = typer.Typer(help="List, show and cancel long commands: rebuilds, compactions, replays.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="As `headwater jobs list` names it.")]
_BEAT_SECONDS = 15.0
"""Between two signs of life: a few may be lost before the job is."""


class Interrupted(Exception):
    """Signal that Ctrl-C or SIGTERM ended a job; the text says what is left to do."""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.add_typer(jobs, name="jobs")


@contextmanager
def as_job(
    services: "Services", kind: str, subject: str, title: str, total: int | None = None, *, left: str
) -> "Iterator[Progress]":
    """Run the block as a job with its progress on this terminal; yield what reports to both.

    Ctrl-C becomes Interrupted, with `left` as what is left to do.
    """
    with ExitStack() as stack, quiet_job(services, kind, subject, total, left=left) as progress:
        yield _Shown(progress, services, title, total, stack)


@contextmanager
def quiet_job(
    services: "Services", kind: str, subject: str, total: int | None = None, *, left: str
) -> "Iterator[Progress]":
    """Run the block as a job without progress on the terminal."""
    from headwater.processors.services import new_owner

    try:
        with _jobs(services).run(kind, subject, new_owner(), total) as progress, _beating(progress.beat):
            yield progress
    except KeyboardInterrupt:
        raise Interrupted(left) from None


class _Shown:
    """Report progress to the job and to the terminal, where each phase has a line or a bar of its own."""

    def __init__(self, job: "Progress", services: "Services", title: str, total: int | None, stack: ExitStack) -> None:
        self._job, self._clock, self._title, self._stack = job, services.clock, title, stack
        self._show(title, total)

    def __call__(self, events: int, done: int) -> None:
        self._shown(events, done)
        self._job(events, done)

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        self._show(f"{self._title}, {name}", total)
        self._job.phase(name, total, final=final)

    def _show(self, title: str, total: int | None) -> None:
        from headwater.commands.output import progress

        self._stack.close()
        self._shown = self._stack.enter_context(progress(title, total, self._clock))


@contextmanager
def _beating(beat: "Callable[[], None]") -> "Iterator[None]":
    """Give signs of life from a thread of its own, whatever this one waits for."""
    ended = Event()

    def run() -> None:
        while not ended.wait(_BEAT_SECONDS):
            beat()

    thread = Thread(target=run, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@jobs.command("list")
def list_(as_json: Json = False) -> None:
    """List the jobs, the latest first."""
    from headwater.commands.output import print_rows

    rows = _jobs(open_services()).shown()
    print_rows(rows if as_json else map(_row, rows), as_json=as_json, empty="no job has run")


@jobs.command()
def show(job: JobId, as_json: Json = False) -> None:
    """Show one job."""
    from headwater.commands.output import print_json, print_table

    services = open_services()
    found = _jobs(services).get(job).shown(services.clock.now_ms())
    if as_json:
        print_json(found)
    else:
        print_table(["", job], ([name, str(value)] for name, value in _row(found).items()))


@jobs.command()
def cancel(job: JobId) -> None:
    """Ask a job to end. It does within about a second of work; what it had done stays."""
    from headwater.processors.services import new_owner

    found = _jobs(open_services()).cancel(job, new_owner())
    typer.echo(f"{job} was asked to end" if found.state == "running" else f"{job} was {found.message}")


def _jobs(services: "Services") -> "Jobs":
    from headwater.processors.jobs import Jobs

    return Jobs(services.ledger, services.clock)


def _row(job: "dict[str, Any]") -> "dict[str, object]":
    return {
        "job": job["id"],
        "of": job["subject"],
        "state": job["state"],
        "done": f"{job['done'] / job['total']:.0%}" if job["total"] else f"{job['events']:,}",
        "began": _moment(job["started_ms"]),
        "heard of": _moment(job["updated_ms"]),
        "owner": job["owner"],
        "message": job["message"],
    }


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
