"""The command `jobs`: what runs long, how far it is, and how to end it."""

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.services import open_services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processors.jobs import Advance, Jobs
    from processors.services import Services

__all__ = ["as_job", "register"]

jobs = typer.Typer(help="Long commands that run or ran: rebuilds, compactions, replays.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="As `headwater jobs list` names it.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.add_typer(jobs, name="jobs")


@contextmanager
def as_job(services: "Services", kind: str, subject: str, title: str, total: int | None = None) -> "Iterator[Advance]":
    """A job, and its progress on this terminal; what is yielded tells both."""
    from headwater.cli.output import progress
    from processors.services import new_owner

    with _jobs(services).run(kind, subject, new_owner(), total) as tell, progress(title, total, services.clock) as show:

        def advance(events: int, done: int) -> None:
            show(events, done)
            tell(events, done)

        yield advance


@jobs.command("list")
def list_(as_json: Json = False) -> None:
    """The latest first."""
    from headwater.cli.output import print_rows

    rows = _jobs(open_services()).shown()
    print_rows(rows if as_json else map(_row, rows), as_json=as_json, empty="no job has run")


@jobs.command()
def show(job: JobId, as_json: Json = False) -> None:
    """One job."""
    from headwater.cli.output import print_json, print_table

    services = open_services()
    found = _jobs(services).get(job).shown(services.clock.now_ms())
    if as_json:
        print_json(found)
    else:
        print_table(["", job], ([name, str(value)] for name, value in _row(found).items()))


@jobs.command()
def cancel(job: JobId) -> None:
    """Ask a job to end. It does within about a second of work; what it had done stays."""
    from processors.services import new_owner

    _jobs(open_services()).cancel(job, new_owner())
    typer.echo(f"{job} was asked to end")


def _jobs(services: "Services") -> "Jobs":
    from processors.jobs import Jobs

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
