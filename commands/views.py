"""Define the commands on materialized views: view get, list, versions and rebuild."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.commands.options import Json
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from headwater.processors.rebuild.rebuild import Past, Rebuilt
    from headwater.processors.services import Services
    from headwater.sinks.views.items import ViewSpec

__all__ = ["register"]

_GO_ON = "call it again to go on, or with --give-up to end it"
_DROP = "call it again to drop the rest"
From = Annotated[
    str | None,
    typer.Option("--from", help="Only windows that begin then or later, ISO 8601; without a zone it is UTC."),
]
To = Annotated[str | None, typer.Option("--to", help="Only windows that begin before then.")]
view = typer.Typer(help="Read and rebuild materialized views in DynamoDB.", no_args_is_help=True)


class RebuildSource(StrEnum):
    """Name where a rebuild reads what was before."""

    lake = "lake"
    stream = "stream"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(view, name="view")


@view.command("get")
def view_get(
    name: Annotated[str, typer.Argument(help="The view, as named in the pipeline.")],
    key: Annotated[
        str | None, typer.Argument(help="The row's key; several columns as A|B. None for a view over all keys.")
    ] = None,
    since: From = None,
    until: To = None,
    as_json: Json = False,
) -> None:
    """Print the rows of one key, by window. Exits 1 when there is none."""
    from headwater.commands.output import print_rows
    from headwater.sinks.views.items import key_parts

    span = _moment("--from", since), _moment("--to", until)
    services, spec = _view(name)

    parts = [] if key is None else key_parts(key)
    if len(parts) != len(spec.by):
        keyed = f"keyed by {' and '.join(spec.by)}" if spec.by else "over all keys"
        raise UsageError(f"view {name} is {keyed}: give {'|'.join(spec.by).upper() or 'no key'}")
    rows = services.views.windows(spec, _typed(name, spec.by, parts, services.pipeline.schema), *span)
    if not rows:
        raise HeadwaterError(
            f"view {name} has no row" + ("" if key is None else f" for {key!r}") + _in_span(since, until)
        )
    print_rows(rows, as_json=as_json, empty="")


def _moment(option: str, text: str | None) -> int | None:
    from headwater.serving.api.times import bound_ms

    try:
        return bound_ms(None if text is None else datetime.fromisoformat(text))
    except ValueError:
        raise UsageError(f"{option} takes a time such as 2026-03-01T12:00:00Z, not {text!r}") from None


def _in_span(since: str | None, until: str | None) -> str:
    return (f" from {since}" if since else "") + (f" to {until}" if until else "")


def _typed(view: str, columns: "Sequence[str]", parts: "Sequence[str | None]", schema: "pa.Schema") -> list[object]:
    """Return a key's values in the types of their columns: what is typed as `1` or `true` is found as `1.0` or `True`.

    Raises UsageError for a text that is no value of its column.
    """
    from headwater.contract.types import type_name

    values = [
        None if part is None else _value(part, schema.field(column).type)
        for column, part in zip(columns, parts, strict=True)
    ]
    for column, part, value in zip(columns, parts, values, strict=True):
        if part is not None and value is None:
            kind = type_name(schema.field(column).type)
            raise UsageError(f"view {view} is keyed by {column}, which is {kind}: not {part!r}")
    return values


def _value(text: str, kind: "pa.DataType") -> object:
    """Return a text as a value of the type; None when it is none."""
    import pyarrow as pa

    from headwater.contract import Field
    from headwater.contract.types import type_name
    from headwater.contract.values import read_value
    from headwater.contract.written import as_text

    try:
        column = pa.array([], kind)
        if as_text(column).type != kind:  # keys of these are texts
            read = read_value(Field("x", type_name(kind)), text)
            return as_text(pa.array([read], kind))[0].as_py()
        if not pa.types.is_timestamp(kind):
            return pa.scalar(text).cast(kind).as_py()
        found = datetime.fromisoformat(text)
    except (pa.ArrowInvalid, ValueError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


@view.command("list")
def view_list(
    name: Annotated[str, typer.Argument(help="The view, as named in the pipeline.")],
    prefix: Annotated[str, typer.Option(help="Only keys that start with this.")] = "",
    since: From = None,
    until: To = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print at most.")] = 100,
    as_json: Json = False,
) -> None:
    """List rows of a view, by key and window."""
    from headwater.commands.output import print_rows

    span = _moment("--from", since), _moment("--to", until)
    services, spec = _view(name)
    rows = list(services.views.rows(spec, prefix, *span, limit=limit))
    empty = f"view {name} has no rows" + (f" below {prefix!r}" if prefix else "") + _in_span(since, until)
    print_rows(rows, as_json=as_json, empty=empty)


@view.command("versions")
def view_versions(as_json: Json = False) -> None:
    """List the views, the version and generation of each that serves, and what is being built."""
    from headwater.commands.output import print_rows
    from headwater.commands.services import open_services
    from headwater.processors.generations import DOCUMENT, generations

    services = open_services()
    document, _ = services.ledger.document(DOCUMENT)
    rows = [
        {
            "view": name,
            "version": one.serving.version,
            "generation": one.serving.number,
            "building": one.building and one.building.version,
            "to_drop": len(one.retired),
        }
        for name, one in generations(document, services.pipeline).items()
    ]
    print_rows(rows, as_json=as_json, empty=f"pipeline {services.pipeline.name} has no views")


@view.command("rebuild")
def view_rebuild(
    name: Annotated[str, typer.Argument(help="The view, as named in the pipeline.")],
    version: Annotated[
        int | None, typer.Option(help="Of the definition; by default the highest that the pipeline has.")
    ] = None,
    source: Annotated[RebuildSource, typer.Option(help="Of the events so far.")] = RebuildSource.lake,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Begin on shards that no processor touches, too.")
    ] = False,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Rows from before a step added a column have no value in it.")
    ] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="End one that was begun: the old rows stay.")] = False,
    as_json: Json = False,
) -> None:
    """Build a view anew beside the one that serves, switch in one write, drop the old. Killed, call it again."""
    from headwater.commands.output import print_json
    from headwater.commands.services import open_services

    services = open_services()
    _spec(services, name)
    if give_up:
        _give_up(services, name)
        return
    found = _rebuild(services, name, version, source, take_over=take_over, accept_missing=accept_missing)
    if as_json:
        print_json(asdict(found))
        return
    sys.stdout.write(f"view {found.view}: version {found.version} serves, {_built(found, source)}\n")


def _rebuild(
    services: "Services",
    name: str,
    version: int | None,
    source: RebuildSource,
    *,
    take_over: bool,
    accept_missing: bool,
) -> "Rebuilt":
    from headwater.commands.jobs import as_job
    from headwater.processors.rebuild.rebuild import Rebuild
    from headwater.processors.services import new_owner

    owner = new_owner() if take_over else None
    job = as_job(services, "rebuild", f"view {name} from the {source.value}", f"rebuilding {name}", left=_GO_ON)
    with _publisher_of(services, source) as publish_step, job as progress:

        def step_and_report() -> None:
            publish_step()
            progress(0, 0)  # so that a cancel is heard while files wait for a publisher

        past = _past(services, source, step_and_report, accept_missing)
        return Rebuild(services.rebuild_ports, name, past, progress, take_over=owner).run(version)


def _give_up(services: "Services", name: str) -> None:
    from headwater.commands.jobs import as_job
    from headwater.processors.rebuild.rebuild import Rebuild

    with as_job(services, "rebuild", f"view {name}, given up", f"giving up {name}", left=_DROP) as progress:
        past = _past(services, RebuildSource.lake, lambda: None, False)
        dropped = Rebuild(services.rebuild_ports, name, past, progress).give_up()
    sys.stdout.write(f"view {name}: given up, {dropped:,} items of it dropped\n")


def _built(found: "Rebuilt", source: RebuildSource) -> str:
    dropped = f"{found.dropped:,} items of the old one dropped"
    if found.only_dropped:
        return f"since an earlier call; {dropped}. Call it again to build it anew"
    return f"with {found.events:,} events of {found.shards} shards from the {source.value}; {dropped}"


def _publisher_of(services: "Services", source: RebuildSource) -> "AbstractContextManager[Callable[[], None]]":
    """Make the publisher's steps that a lake's reader needs."""
    from headwater.commands.services import publishing

    return publishing(services) if source is RebuildSource.lake else nullcontext(lambda: None)


def _past(
    services: "Services", source: RebuildSource, publish_step: "Callable[[], None]", accept_missing: bool
) -> "Past":
    if source is RebuildSource.stream:
        from headwater.processors.rebuild.from_stream import StreamPast

        return StreamPast(services.reader, services.views, services.check_control)
    from headwater.processors.rebuild.from_lake import LakePast

    return LakePast(services.reader, services.views, publish_step, accept_missing=accept_missing)


def _view(name: str) -> "tuple[Services, ViewSpec]":
    from headwater.commands.services import open_services

    services = open_services()
    return services, _spec(services, name)


def _spec(services: "Services", name: str) -> "ViewSpec":
    """Return how a view is stored. Raises UsageError when there is no such view."""
    return services.serving.view(name).spec
