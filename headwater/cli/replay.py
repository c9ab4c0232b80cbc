"""`headwater replay`: events put on a stream again, or a new pipeline filled from the lake."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from headwater.errors import UsageError

__all__ = ["register"]

_GO_ON = "the same call goes on"
Rate = Annotated[float, typer.Option(min=0.0, help="Events a second at most; 0 is as fast as it goes.")]


class Source(StrEnum):
    """Where a replay reads."""

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
    source: Annotated[Source | None, typer.Option(help="The lake (by default), or what the stream still has.")] = None,
    stream: Annotated[
        str | None, typer.Option(help="The stream to put them on; the pipeline's own by default.")
    ] = None,
    rate: Rate = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Put events on a stream again under the same identities, or fill a new pipeline. Killed, the same call goes on.

    A pipeline is filled with all that the lake has and, started afterwards, follows the stream from there.
    """
    if into == "stream":
        _into_stream(_time("--from", from_), _time("--to", to), source or Source.lake, stream, rate, as_json)
    elif from_ or to or source or stream:
        raise UsageError("--from, --to, --source and --stream go with `--into stream`: a pipeline is filled as a whole")
    else:
        _into_pipeline(into, rate, as_json)


def _into_stream(start_ms: int, stop_ms: int, source: Source, stream: str | None, rate: float, as_json: bool) -> None:
    from headwater.cli.jobs import as_job
    from headwater.cli.output import print_json
    from headwater.cli.replaying import Replay
    from headwater.cli.services import open_services, publishing
    from processors.replaying import Span

    services = open_services()
    target = stream or services.settings.stream
    one = Replay(services, Span(start_ms, stop_ms), source.value, target)
    settling = publishing(services) if source is Source.lake else nullcontext(lambda: None)
    subject = f"{source.value} to stream {target}"
    with settling as settle, as_job(services, "replay", subject, "replaying", left=_GO_ON) as advance:
        found = one.run(settle, rate or None, advance)
    if as_json:
        print_json(asdict(found))
        return
    left_out = "".join(f", {count:,} {name} left out" for name, count in found.left_out.items())
    again = f" ({found.put:,} by this call)" if found.put < found.events else ""
    sys.stdout.write(f"{found.events:,} events from the {found.source} to stream {found.stream}{again}{left_out}\n")


def _into_pipeline(into: str, rate: float, as_json: bool) -> None:
    from headwater.cli.jobs import as_job
    from headwater.cli.output import print_json
    from headwater.cli.services import open_services, publishing
    from processors.backfill import backfill
    from processors.pipeline import load
    from processors.services import Services, new_owner

    source = open_services()
    target = Services(source.settings, load(into))
    subject = f"lake to pipeline {target.pipeline.name}"
    with publishing(source) as settle, as_job(source, "replay", subject, "replaying", left=_GO_ON) as advance:
        found = backfill(source, target, new_owner(), settle, rate or None, advance)
    if as_json:
        print_json(asdict(found))
        return
    sys.stdout.write(
        f"{found.rows:,} events from {found.source} to {found.target}, which follows {found.shards} shards from there\n"
    )


def _time(option: str, text: str | None) -> int:
    """Epoch ms."""
    if text is None:
        raise UsageError(f"`--into stream` needs {option}: a point in time, such as 2026-01-31T12:00")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no point in time, such as 2026-01-31T12:00") from error
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
