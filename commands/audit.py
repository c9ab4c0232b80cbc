"""The command `audit`: every event hop by hop, the values of views, and what somebody accepts as missing."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.commands.options import Json
from headwater.commands.services import open_services
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.processors.audit.report import AuditReport
    from headwater.processors.services import Services

__all__ = ["register"]

_AGAIN_SECONDS = 2.0
audit = typer.Typer(help="Compare what was accepted, processed and is in the lake; and the values of views.")
Limit = Annotated[int, typer.Option(min=1, help="Origins, intervals or rows to print.")]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.add_typer(audit, name="audit")


@audit.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    views: Annotated[bool, typer.Option("--views", help="Compute view rows anew from the lake, and compare.")] = False,
    sample: Annotated[str, typer.Option(help="With --views: rows of each view that are looked at, or `all`.")] = "1000",
    wait: Annotated[
        float, typer.Option(min=0, max=86_400, help="Look again for so many seconds while events are on their way.")
    ] = 0,
    as_json: Json = False,
    limit: Limit = 20,
) -> None:
    """Accepted, processed, in the lake: per origin, with each missing interval. Exits 1 when something is amiss."""
    if context.invoked_subcommand is not None:
        return
    if views and wait:
        raise UsageError("--wait is for events: views are compared with what the lake has by now")
    if views:
        _views(sample, as_json, limit)
    else:
        _events(wait, as_json, limit)


@audit.command()
def accept(
    who: Annotated[str, typer.Option(help="Your name: the audit shows it from now on.")],
    why: Annotated[str, typer.Option(help="The reason, such as the deletion or the ticket.")],
    origin: Annotated[
        list[str] | None, typer.Option(help="Accept what is missing of this origin only; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Accept what is missing now, by name and reason: the audit is exact again, and says by whom and why.

    For rows that were deleted on purpose, and for losses that are known. Copies, and rows that no shard has processed,
    cannot be accepted.
    """
    from headwater.processors.audit.accepted import accept_missing
    from headwater.processors.audit.run import run_audit

    services = open_services()
    report = run_audit(services.reader)
    done = accept_missing(
        services.pipeline.name,
        services.ledger,
        services.objects,
        report,
        who=who,
        why=why,
        now_ms=services.clock.now_ms(),
        origins=origin or (),
    )
    if as_json:
        sys.stdout.write(json.dumps(asdict(done)) + "\n")
    else:
        sys.stdout.write(f"{done.events:,} missing events of pipeline {report.pipeline} accepted by {who}: {why}\n")


def _events(wait: float, as_json: bool, limit: int) -> None:
    from headwater.commands.audit_report import freshness_lines, report_json, report_tables
    from headwater.processors.audit.run import lake_freshness

    services = open_services()
    report = _settled(services, wait)
    fresh = lake_freshness(services.stores, services.open_lake_table)
    if as_json:
        sys.stdout.write(json.dumps(report_json(report) | {"freshness": [vars(one) for one in fresh]}) + "\n")
    else:
        report_tables(report, limit)
        sys.stdout.writelines(freshness_lines(fresh))
    if not report.exact:
        raise typer.Exit(1)


def _settled(services: "Services", wait: float) -> "AuditReport":
    """Return the report of a pipeline with nothing on its way, or, after so many seconds, as it is."""
    from headwater.processors.audit.behind import is_behind
    from headwater.processors.audit.run import run_audit

    until_ms = services.clock.now_ms() + wait * 1000
    while True:
        behind = wait > 0 and is_behind(services.reader)  # before the report, which then has what was read meanwhile
        report = run_audit(services.reader)
        left_ms = until_ms - services.clock.now_ms()
        if left_ms <= 0 or not (behind or report.unread or report.waiting):
            return report
        services.clock.sleep(min(_AGAIN_SECONDS, left_ms / 1000))


def _views(sample: str, as_json: bool, limit: int) -> None:
    from headwater.commands.audit_report import view_lines
    from headwater.processors.audit.views import audit_views
    from headwater.processors.audit.viewtables import audit_view_tables
    from headwater.sinks.lake.catalogs import open_catalog

    if sample != "all" and not (sample.isdecimal() and int(sample) > 0):
        raise UsageError(f"--sample {sample!r} is neither a number of rows nor `all`")
    services = open_services()
    rows = None if sample == "all" else int(sample)
    found = list(audit_views(services.reader, services.views, rows))
    if any(view.table for view in services.pipeline.definitions):
        catalog, database = open_catalog(services.settings), services.settings.database
        found += audit_view_tables(services.reader, lambda name: catalog.load_table((database, name)), rows)
    exact = all(one.exact for one in found)
    if as_json:
        body = {"pipeline": services.pipeline.name, "exact": exact, "views": [asdict(one) for one in found]}
        sys.stdout.write(json.dumps(body, default=str) + "\n")
    else:
        for line in view_lines(found, limit):
            sys.stdout.write(line + "\n")
    if not exact:
        raise typer.Exit(1)
