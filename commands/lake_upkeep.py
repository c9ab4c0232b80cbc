"""Define the commands that look after the lake's table: compact, expire, orphans, maintain, health, forget and more."""

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.clock import HOUR_MS
from headwater.commands.lake import lake
from headwater.commands.options import Json
from headwater.commands.services import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.processors.definition.parts import View
    from headwater.processors.services import Services
    from headwater.sinks.lake.maintenance import Maintenance

__all__ = ["register"]

TargetMb = Annotated[int, typer.Option(min=1, help="Size of a joined file, in MB.")]
SmallMb = Annotated[int, typer.Option(min=1, help="Only files smaller than this are joined.")]
Fewest = Annotated[int, typer.Option(min=2, help="Files that make joining worth it, where they do not fill one.")]
Keep = Annotated[int, typer.Option(min=1, help="Snapshots that stay, however old.")]
SnapshotHours = Annotated[float, typer.Option(min=0.0, help="Snapshots younger than this stay.")]
OrphanHours = Annotated[float, typer.Option(min=1.0, help="Objects younger than this stay.")]
_STAYS = "what it had done stays"


def register(_: typer.Typer) -> None:
    """Add nothing: importing this module has added the commands to `headwater lake`."""


@lake.command()
def compact(target_mb: TargetMb = 256, small_mb: SmallMb = 128, fewest: Fewest = 5, as_json: Json = False) -> None:
    """Join small files of each partition into large ones, sorted by key and time, beside whoever writes."""
    from headwater.commands.jobs import as_job

    services, maintenance = _open_maintenance(target_mb, small_mb, fewest)
    planned = sum(group.bytes for group in maintenance.groups(maintenance.reload()))
    with as_job(services, "compact", maintenance.name, "compacting", planned, left=_STAYS) as advance:
        report = maintenance.compact(advance)
    text = f"{report.files_before:,} files became {report.files_after:,}: {report.rows:,} rows"
    _print_result(
        asdict(report), text + (f"; {report.overtaken:,} groups left for later" if report.overtaken else ""), as_json
    )


@lake.command()
def expire(keep: Keep = 10, older_than_hours: SnapshotHours = 24.0, as_json: Json = False) -> None:
    """Forget old snapshots: time travel ends there, and `lake orphans` may remove their files."""
    from headwater.commands.jobs import as_job

    services, maintenance = _open_maintenance()
    with as_job(services, "expire", maintenance.name, "expiring", left=_STAYS):
        report = maintenance.expire(keep, services.clock.now_ms() - round(older_than_hours * HOUR_MS))
    _print_result(asdict(report), f"{report.expired:,} snapshots forgotten, {report.kept:,} kept", as_json)


@lake.command()
def orphans(
    older_than_hours: OrphanHours = 72.0,
    remove: Annotated[bool, typer.Option("--remove", help="Delete them; else they are only listed.")] = False,
    as_json: Json = False,
) -> None:
    """List or remove objects of the table that no snapshot has and no commit names or can name any more."""
    from headwater.commands.jobs import as_job

    services, maintenance = _open_maintenance()
    with as_job(services, "orphans", maintenance.name, "looking for orphans", left=_STAYS) as advance:
        older_than_ms = services.clock.now_ms() - round(older_than_hours * HOUR_MS)
        report = maintenance.orphans(older_than_ms, remove=remove, advance=advance)
    if not as_json:
        sys.stdout.writelines(f"{uri}\n" for uri in report.objects)
    done = "removed" if remove else "could be removed (--remove)"
    _print_result(
        asdict(report),
        f"{len(report.objects):,} of {report.looked_at:,} objects {done}: {report.bytes:,} bytes",
        as_json,
    )


@lake.command()
def maintain(
    every_seconds: Annotated[float, typer.Option(min=1.0, help="Pause between two rounds.")] = 600.0,
    target_mb: TargetMb = 256,
    small_mb: SmallMb = 128,
    fewest: Fewest = 5,
    keep: Keep = 10,
    snapshot_hours: SnapshotHours = 24.0,
    orphan_hours: OrphanHours = 72.0,
) -> None:
    """Write the tables of views, compact, expire and remove orphans, round after round, until SIGTERM or Ctrl-C.

    Logs in JSON.
    """
    import logging

    from headwater.memory import return_memory
    from headwater.telemetry.logs import to_stdout

    services, maintenance = _open_maintenance(target_mb, small_mb, fewest)
    to_stdout(services.settings.log_level)
    log, stop = logging.getLogger("headwater.maintenance"), stop_on_signals()
    ages = round(snapshot_hours * HOUR_MS), round(orphan_hours * HOUR_MS)

    def follow() -> None:
        for report in _follow(services, lambda: stop.wait(2.0)):
            log.info("view table written", extra=report)

    def look_after(view: "View | None" = None) -> None:
        tables = maintenance if view is None else services.maintenance(maintenance.settings.sizes, view)
        log.info("maintained", extra=tables.step(keep, *ages, stop.is_set))

    # the views' tables first: what has expired is read no more
    jobs: list[Callable[[], None]] = [
        follow,
        look_after,
        *(partial(look_after, view) for view in _with_tables(services)),
    ]
    while not stop.is_set():
        for job in jobs:
            try:
                job()
            except Exception as error:  # each by itself
                if not _may_pass(error):
                    raise
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
            if stop.is_set():
                return
        return_memory()
        stop.wait(every_seconds)


def _may_pass(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    from headwater.errors import HeadwaterError
    from headwater.sinks.lake.unreadable import is_unreadable

    return isinstance(error, HeadwaterError | ClientError | BotoCoreError | OSError) or is_unreadable(error)


@lake.command("views")
def views_(as_json: Json = False) -> None:
    """Bring the tables of views up to date once, as `lake maintain` does each round, and print what each got."""
    from headwater.commands.output import print_rows
    from headwater.commands.services import open_services

    services = open_services()
    empty = f"no view of pipeline {services.pipeline.name} has a table in the lake: give it one with table='NAME'"
    rows = list(_follow(services, partial(services.clock.sleep, 2.0)))
    print_rows(rows, as_json=as_json, empty=empty)


def _with_tables(services: "Services") -> "list[View]":
    return [view for view in services.pipeline.definitions if view.table]


def _follow(services: "Services", wait: "Callable[[], object]") -> "Iterator[dict[str, Any]]":
    """Write the final windows of views to their tables, and yield what each got, as columns.

    `wait` is called between two looks for files that wait for the publisher.
    """
    from headwater.processors.viewtables.following import follow

    if _with_tables(services):
        yield from (asdict(one) for one in follow(services.view_tables(wait)))


@lake.command("health")
def health_(as_json: Json = False) -> None:
    """Show files by size, deletes, manifests, snapshots, and how long planning a query takes."""
    from headwater.commands.output import print_json, print_table
    from headwater.sinks.lake.health import health

    _, maintenance = _open_maintenance()
    found = {"table": maintenance.name} | health(maintenance.reload())
    if as_json:
        print_json(found)
    else:
        print_table(["", maintenance.name], ([name, _text(value)] for name, value in found.items()))


@lake.command("freshness")
def freshness_(as_json: Json = False) -> None:
    """Show for each shard how long its files take to be in the table, and what is committed and not there yet."""
    from headwater.commands.output import print_rows
    from headwater.processors.audit.run import lake_freshness

    services, maintenance = _open_maintenance()
    rows = [
        {"table": maintenance.name} | asdict(one) for one in lake_freshness(services.stores, services.open_lake_table)
    ]
    print_rows(rows, as_json=as_json, empty=f"table {maintenance.name} has no file of any shard")


@lake.command("forget")
def forget_(
    key: Annotated[str, typer.Option(help="The value of the contract's key, such as a device or a person.")],
    as_json: Json = False,
) -> None:
    """Remove a key's rows, views, state and dead letters, and look whether any is left. Exits 1 when some is."""
    from headwater.commands.jobs import as_job
    from headwater.commands.services import publishing
    from headwater.processors.erasure.forget import forget
    from headwater.processors.services import new_owner

    services, maintenance = _open_maintenance()
    left = "the key is not gone: call it again"
    # the job's subject is the table: who was forgotten is not to be written down
    with (
        as_job(services, "forget", maintenance.name, "forgetting", left=left) as progress,
        publishing(services) as publish_step,
    ):
        found = forget(services.erasure_ports, key, new_owner(), publish_step, progress)
    text = (
        f"{found.rows:,} rows in {found.files:,} files, {found.view_rows:,} view rows, {found.letters:,} dead letters"
    )
    if found.tables:
        text += f"; dropped, and written anew by `lake maintain`: {', '.join(found.tables)}"
    _print_result(asdict(found), f"removed {text}" + "".join(f"\nstill there: {one}" for one in found.left), as_json)
    if found.left:
        raise typer.Exit(1)


def _open_maintenance(target_mb: int = 256, small_mb: int = 128, fewest: int = 5) -> "tuple[Services, Maintenance]":
    from headwater.commands.services import open_services
    from headwater.sinks.lake.compaction import CompactionSizes

    services = open_services()
    return services, services.maintenance(CompactionSizes(target_mb << 20, small_mb << 20, fewest))


def _print_result(found: dict[str, Any], text: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(found) if as_json else text) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {name}" for name, count in value.items() if count)
    return f"{value:,}" if isinstance(value, int) else str(value)
