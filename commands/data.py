"""Define the commands on events and their contracts: contract check, infer, dictionary and show, and produce."""

import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.commands.options import Json
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    from headwater.contract import Contract

__all__ = ["register"]

contract = typer.Typer(help="Check and show contracts, the versioned definitions of event types.", no_args_is_help=True)


class Format(StrEnum):
    """Name how batches are written."""

    columnar = "columnar"
    kpl = "kpl"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(contract, name="contract")
    app.command()(produce)


@contract.command()
def check(
    old: Annotated[str, typer.Argument(help="The contract in force: a file, or the name of a shipped one.")],
    new: Annotated[str, typer.Argument(help="The one to follow it.")],
    as_json: Json = False,
) -> None:
    """Check whether NEW may follow OLD: events that conform to OLD have to conform to NEW. Exits 1 when it may not."""
    from headwater.commands.output import print_json
    from headwater.contract import check_compatible, load_contract

    before, after = load_contract(old), load_contract(new)
    faults = check_compatible(before, after)
    if as_json:
        names = {"old": f"{before.name} v{before.version}", "new": f"{after.name} v{after.version}"}
        print_json({"compatible": not faults, "faults": faults} | names)
    elif faults:
        for fault in faults:
            sys.stdout.write(f"{new}: {fault}\n")
    else:
        sys.stdout.write(f"compatible: {after.name} v{after.version} may follow v{before.version}\n")
    if faults:
        raise typer.Exit(1)


@contract.command()
def infer(
    file: Annotated[str, typer.Argument(help="Samples as NDJSON, CSV or Parquet; - is NDJSON or CSV on stdin.")],
    name: Annotated[str, typer.Option(help="The contract's name.")] = "events",
    key: Annotated[str | None, typer.Option(help="The field that events are grouped by; guessed by default.")] = None,
    time: Annotated[str | None, typer.Option(help="The field that says when; guessed by default.")] = None,
) -> None:
    """Propose a contract that all rows of FILE keep, as YAML. Exits 1 when no contract can have some of them."""
    from headwater.contract.inference import contract_yaml
    from headwater.producers.files.samples import read_samples

    samples, refused = read_samples(file)
    try:
        sys.stdout.write(contract_yaml(samples.propose(name, key, time)))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    if refused:
        raise HeadwaterError(f"{file}: {len(refused):,} rows can be kept by no contract, the first is {refused[0]}")


@contract.command("dictionary")
def dictionary_(
    files: Annotated[list[str] | None, typer.Argument(help="Contract files; the shipped ones by default.")] = None,
) -> None:
    """Print every column of the contracts, with type, unit and meaning, as Markdown: docs/data-dictionary.md."""
    from headwater.contract import load_contract
    from headwater.contract.dictionary import dictionary
    from headwater.contract.parsing import shipped

    sys.stdout.write(dictionary(load_contract(file) for file in files or shipped()))


@contract.command()
def show(
    file: Annotated[str, typer.Argument(help="A contract file, or the name of a shipped one.")],
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The JSON Schema of one event.")] = False,
    as_json: Json = False,
) -> None:
    """Show the fields of a contract, or its JSON Schema."""
    from headwater.commands.output import print_json, print_rows
    from headwater.contract import jsonschema, load_contract

    found = load_contract(file)
    if json_schema:
        print_json(jsonschema.json_schema(found))
        return
    roles: dict[str, list[str]] = {found.key: ["key"]}
    roles.setdefault(found.time, []).append("time")
    if found.id is not None:
        roles.setdefault(found.id.origin, []).append("id" if found.id.seq is None else "id: origin")
        if found.id.seq is not None:
            roles.setdefault(found.id.seq, []).append("id: seq")
    fields: list[dict[str, Any]] = [
        {
            "field": field.name,
            "type": field.type,
            "required": field.required,
            "role": ", ".join(roles.get(field.name, ())),
            "unit": field.unit,
            "doc": field.doc,
        }
        for field in found.fields
    ]
    if as_json:
        own = None if found.id is None else asdict(found.id)
        print_json(
            {"name": found.name, "version": found.version, "key": found.key, "time": found.time, "id": own}
            | {"fields": fields}
        )
        return
    sys.stdout.write(f"{found.name} v{found.version}: {found.description}\n\n")
    if found.id is not None:
        by = found.id.origin if found.id.seq is None else f"{found.id.origin} and {found.id.seq}"
        sys.stdout.write(f"events have an id of their own: {by}\n\n")
    print_rows(fields, as_json=False, empty="no fields")


@dataclass(frozen=True)
class _Done:
    """Hold what a run of `produce` did."""

    file: str
    events: int
    delivered: int
    retried: int
    seconds: float
    invalid: tuple[str, ...] = ()
    """Rows that break the contract, a line each; the others were put."""


def produce(
    file: Annotated[str, typer.Argument(help="NDJSON, CSV or Parquet; - is NDJSON or CSV on stdin.")],
    contract_file: Annotated[
        str | None, typer.Option("--contract", help="A file or a shipped name; the pipeline's by default.")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="The stream; HEADWATER_STREAM by default.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How batches are written.")] = Format.columnar,
    outbox: Annotated[
        Path | None, typer.Option(help="Keep events in this file until the stream has them: survives a kill.")
    ] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Keep each key on its shard, in order.")] = False,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out columns that the contract does not have.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the events of a file on the stream. Exits 1 unless the stream has every one of them."""
    made = _contract(contract_file)
    done = _produce(file, made, stream, (format_, outbox, ordered, ignore_unknown))
    _print_done(done, as_json)
    if done.delivered < done.events:
        raise HeadwaterError(f"{file}: {done.events - done.delivered:,} events were not delivered")
    if done.invalid:
        raise HeadwaterError(
            f"{file}: {len(done.invalid):,} rows break the contract and were not put, the first is {done.invalid[0]}"
        )


def _print_done(done: _Done, as_json: bool) -> None:
    from headwater.commands.output import print_json

    rate = round(done.events / done.seconds) if done.seconds else 0
    if as_json:
        print_json(
            {
                "file": done.file,
                "events": done.events,
                "delivered": done.delivered,
                "retried": done.retried,
                "invalid": done.invalid,
                "seconds": round(done.seconds, 2),
                "events_per_second": rate,
            }
        )
    else:
        rows = done.events + len(done.invalid)
        sys.stdout.write(
            f"{done.delivered:,} of {rows:,} events delivered in {done.seconds:.1f} s ({rate:,} a second)\n"
        )


def _contract(file: str | None) -> "Contract":
    """Return the contract asked for, or that of the pipeline in the settings."""
    from headwater.config import read_settings
    from headwater.contract import load_contract

    if file is not None:
        return load_contract(file)
    from headwater.processors.definition.loading import load

    return load(read_settings().pipeline).contract


def _produce(file: str, made: "Contract", stream: str | None, how: tuple[Format, Path | None, bool, bool]) -> _Done:
    from headwater.aws import client
    from headwater.clock import SystemClock
    from headwater.commands.output import progress
    from headwater.commands.services import check_credentials, check_endpoint
    from headwater.config import read_settings
    from headwater.producers.files.files import read_events
    from headwater.producers.producer import Producer
    from headwater.producers.settings import ProducerSettings

    format_, outbox, ordered, ignore_unknown = how
    settings, clock = read_settings(), SystemClock()
    invalid: list[str] = []

    def on_invalid(row: int, reason: str, _raw: bytes) -> None:
        invalid.append(f"row {row}: {reason}")

    source = read_events(file, made, ignore_unknown=ignore_unknown, on_invalid=on_invalid)
    kinesis = client("kinesis", settings)
    check_endpoint(kinesis.meta.endpoint_url)
    check_credentials()
    started = clock.now_ms()
    wanted = ProducerSettings(format=format_.value, ordered=ordered)
    producer = Producer(stream or settings.stream, made, client=kinesis, settings=wanted, outbox=outbox)
    with producer, progress(f"producing {file}", source.total_rows, clock) as advance:
        events = 0
        for table in source:
            producer.put_batch(table)
            events += table.num_rows
            advance(events, events)
        producer.flush()
        stats = producer.stats
    seconds = (clock.now_ms() - started) / 1000
    return _Done(file, events, stats.delivered, stats.retried, seconds, tuple(invalid))
