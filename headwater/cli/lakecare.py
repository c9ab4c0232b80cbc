"""Commands that look after the lake's table: compact, expire, orphans, maintain; health and freshness."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.lake import lake
from headwater.cli.services import stop_on_signals

if TYPE_CHECKING:
    from processors.services import Services
    from sinks.maintenance import Maintenance

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
TargetMb = Annotated[int, typer.Option(min=1, help="Size of a joined file, in MB.")]
SmallMb = Annotated[int, typer.Option(min=1, help="Only files smaller than this are joined.")]
Fewest = Annotated[int, typer.Option(min=2, help="Files that make joining worth it, where they do not fill one.")]
Keep = Annotated[int, typer.Option(min=1, help="Snapshots that stay, however old.")]
SnapshotHours = Annotated[float, typer.Option(min=0.0, help="Snapshots younger than this stay.")]
OrphanHours = Annotated[float, typer.Option(min=1.0, help="Objects younger than this stay.")]
HOUR_MS = 3_600_000
_STAYS = "what it had done stays"


def register(_: typer.Typer) -> None:
    """The commands are those of `headwater lake`, which is there already."""


@lake.command()
def compact(target_mb: TargetMb = 256, small_mb: SmallMb = 128, fewest: Fewest = 5, as_json: Json = False) -> None:
    """Join small files of each partition into large ones, sorted by key and time, beside whoever writes."""
    from headwater.cli.jobs import as_job

    services, care = _care(target_mb, small_mb, fewest)
    planned = sum(group.bytes for group in care.groups(care.reload()))
    with as_job(services, "compact", care.name, "compacting", planned, left=_STAYS) as advance:
        report = care.compact(advance)
    text = f"{report.files_before:,} files became {report.files_after:,}: {report.rows:,} rows"
    _said(asdict(report), text + (f"; {report.overtaken:,} groups left for later" if report.overtaken else ""), as_json)


@lake.command()
def expire(keep: Keep = 10, older_than_hours: SnapshotHours = 24.0, as_json: Json = False) -> None:
    """Forget old snapshots: time travel ends there, and `lake orphans` may remove their files."""
    from headwater.cli.jobs import as_job

    services, care = _care()
    with as_job(services, "expire", care.name, "expiring", left=_STAYS):
        report = care.expire(keep, services.clock.now_ms() - round(older_than_hours * HOUR_MS))
    _said(asdict(report), f"{report.expired:,} snapshots forgotten, {report.kept:,} kept", as_json)


@lake.command()
def orphans(
    older_than_hours: OrphanHours = 72.0,
    remove: Annotated[bool, typer.Option("--remove", help="Delete them; else they are only listed.")] = False,
    as_json: Json = False,
) -> None:
    """Objects of the table that no snapshot has and no commit names, or can name any more."""
    from headwater.cli.jobs import as_job

    services, care = _care()
    with as_job(services, "orphans", care.name, "looking for orphans", left=_STAYS) as advance:
        older_than_ms = services.clock.now_ms() - round(older_than_hours * HOUR_MS)
        report = care.orphans(older_than_ms, remove=remove, advance=advance)
    if not as_json:
        sys.stdout.writelines(f"{uri}\n" for uri in report.objects)
    done = "removed" if remove else "could be removed (--remove)"
    _said(
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
    """Compact, expire and remove orphans, round after round, until SIGTERM or Ctrl-C; logs in JSON."""
    import logging

    from botocore.exceptions import BotoCoreError, ClientError

    from headwater.errors import HeadwaterError
    from headwater.logs import to_stdout

    services, care = _care(target_mb, small_mb, fewest)
    to_stdout(services.settings.log_level)
    log, stop = logging.getLogger("headwater.maintenance"), stop_on_signals()
    while True:
        try:
            ages = round(snapshot_hours * HOUR_MS), round(orphan_hours * HOUR_MS)
            log.info("maintained", extra=care.step(keep, *ages, stop.is_set))
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
        if stop.wait(every_seconds):
            return


@lake.command("health")
def health_(as_json: Json = False) -> None:
    """Files by size, deletes, manifests, snapshots, and how long planning a query takes."""
    from headwater.cli.output import print_json, print_table
    from sinks.lakehealth import health

    _, care = _care()
    found = {"table": care.name} | health(care.reload())
    if as_json:
        print_json(found)
    else:
        print_table(["", care.name], ([name, _text(value)] for name, value in found.items()))


@lake.command("freshness")
def freshness_(as_json: Json = False) -> None:
    """From a file's writing to a table that has it, per shard; and what is committed and not in the table yet."""
    from headwater.cli.output import print_rows
    from processors.auditing import lake_freshness

    services, care = _care()
    rows = [{"table": care.name} | asdict(one) for one in lake_freshness(services)]
    print_rows(rows, as_json=as_json, empty=f"table {care.name} has no file of any shard")


@lake.command("forget")
def forget_(
    key: Annotated[str, typer.Option(help="The value of the contract's key, such as a device or a person.")],
    as_json: Json = False,
) -> None:
    """Remove a key's rows, views, state and dead letters, and look whether any is left. Exits 1 when some is."""
    from headwater.cli.jobs import as_job
    from headwater.cli.services import publishing
    from processors.forgetting import forget
    from processors.services import new_owner

    services, care = _care()
    left = "the key is not gone: call it again"
    # the job's subject is the table: who was forgotten is not to be written down
    with as_job(services, "forget", care.name, "forgetting", left=left) as progress, publishing(services) as settle:
        found = forget(services, key, new_owner(), settle, progress)
    text = (
        f"{found.rows:,} rows in {found.files:,} files, {found.view_rows:,} view rows, {found.letters:,} dead letters"
    )
    _said(asdict(found), f"removed {text}" + "".join(f"\nstill there: {one}" for one in found.left), as_json)
    if found.left:
        raise typer.Exit(1)


def _care(target_mb: int = 256, small_mb: int = 128, fewest: int = 5) -> "tuple[Services, Maintenance]":
    from headwater.cli.services import open_services
    from sinks.compaction import Sizes

    services = open_services()
    return services, services.maintenance(Sizes(target_mb << 20, small_mb << 20, fewest))


def _said(found: dict[str, Any], text: str, as_json: bool) -> None:
    sys.stdout.write((json.dumps(found) if as_json else text) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {name}" for name, count in value.items() if count)
    return f"{value:,}" if isinstance(value, int) else str(value)
