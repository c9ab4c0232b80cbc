"""Define `headwater replay`: put events on a stream again, or fill a new pipeline from the lake."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from headwater.commands.options import Json
from headwater.errors import UsageError

__all__ = ["register"]

_GO_ON = "the same call goes on"
Rate = Annotated[float, typer.Option(min=0.0, help="Events a second at most; 0 is as fast as it goes.")]


class ReplaySource(StrEnum):
    """Name where a replay reads."""

    lake = "lake"
    stream = "stream"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(replay)


def replay(
    into: Annotated[str, typer.Option(help="`stream`, or a new pipeline: `module:object` or `file.py:object`.")],
    from_: Annotated[
        str | None, typer.Option("--from", help="Events that arrived from then on: ISO 8601, UTC without a zone.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="And before then.")] = None,
    source: Annotated[
        ReplaySource | None, typer.Option(help="The lake (by default), or what the stream still has.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="The stream to put them on; the pipeline's own by default.")
    ] = None,
    rate: Rate = 0.0,
    as_json: Json = False,
) -> None:
    """Put events on a stream again under the same identities, or fill a new pipeline. Killed, the same call goes on.

    A pipeline is filled with all that the lake has and, started afterwards, follows the stream from there.
    """
    if into == "stream":
        _into_stream(_time("--from", from_), _time("--to", to), source or ReplaySource.lake, stream, rate, as_json)
    elif from_ or to or source or stream:
        raise UsageError("--from, --to, --source and --stream go with `--into stream`: a pipeline is filled as a whole")
    else:
        _into_pipeline(into, rate, as_json)


def _into_stream(
    start_ms: int, stop_ms: int, source: ReplaySource, stream: str | None, rate: float, as_json: bool
) -> None:
    from headwater.commands.jobs import as_job
    from headwater.commands.output import print_json
    from headwater.commands.services import open_services, publishing
    from headwater.processors.replay.chunk import ArrivalSpan
    from headwater.processors.replay.replay import Replay
    from headwater.producers.resending import Resender

    services = open_services()
    target = stream or services.settings.stream
    one = Replay(services.reader, ArrivalSpan(start_ms, stop_ms), source.value, target)
    resender = Resender(
        services.kinesis,
        target,
        services.pipeline.contract,
        services.clock,
        rate or None,
        control_key=services.control_key(target),
    )
    publisher = publishing(services) if source is ReplaySource.lake else nullcontext(lambda: None)
    subject = f"{source.value} to stream {target}"
    with publisher as publish_step, as_job(services, "replay", subject, "replaying", left=_GO_ON) as advance:
        found = one.run(resender, publish_step, rate or None, advance)
    if as_json:
        print_json(asdict(found))
        return
    left_out = "".join(f", {count:,} {name} left out" for name, count in found.left_out.items())
    again = f" ({found.put:,} by this call)" if found.put < found.events else ""
    sys.stdout.write(f"{found.events:,} events from the {found.source} to stream {found.stream}{again}{left_out}\n")


def _into_pipeline(into: str, rate: float, as_json: bool) -> None:
    from headwater.commands.jobs import as_job
    from headwater.commands.output import print_json
    from headwater.commands.services import open_services, publishing
    from headwater.processors.definition.loading import load
    from headwater.processors.replay.backfill import BackfillSource, BackfillTarget, backfill
    from headwater.processors.services import Services, new_owner

    source = open_services()
    target = Services(source.settings, load(into))
    subject = f"lake to pipeline {target.pipeline.name}"
    with publishing(source) as publish_step, as_job(source, "replay", subject, "replaying", left=_GO_ON) as advance:
        filled_from = BackfillSource(source.stores, source.open_lake_table, publish_step)
        filled = BackfillTarget(target.stores, target.prepare, target.claim_shard)
        found = backfill(filled_from, filled, new_owner(), rate or None, advance)
    if as_json:
        print_json(asdict(found))
        return
    sys.stdout.write(
        f"{found.rows:,} events from {found.source} to {found.target}, which follows {found.shards} shards from there\n"
    )


def _time(option: str, text: str | None) -> int:
    """Return the point in time in epoch ms. Raises UsageError when there is none."""
    if text is None:
        raise UsageError(f"`--into stream` needs {option}: a point in time, such as 2026-01-31T12:00")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no point in time, such as 2026-01-31T12:00") from error
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
