"""Commands that read results: lake query; and the dead letters: dlq list and redrive."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from sinks.deadletter import DeadLetter

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
lake = typer.Typer(help="The lake: Iceberg tables on S3.", no_args_is_help=True)
dlq = typer.Typer(help="Dead letters: what could not be processed, and why.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(lake, name="lake")
    app.add_typer(dlq, name="dlq")


@lake.command("query")
def lake_query_(
    sql: Annotated[str, typer.Argument(help="One SQL statement (DuckDB) over the tables of the lake.")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header on stdout.")] = False,
) -> None:
    """Run SQL over the current snapshot of the tables it names."""
    from headwater.aws import client
    from headwater.cli.output import print_lines, print_table
    from headwater.cli.services import check_endpoint
    from headwater.config import Settings
    from sinks.query import lake_query

    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    settings = Settings()
    check_endpoint(client("glue", settings).meta.endpoint_url)
    found = lake_query(settings, sql)
    if as_csv:
        _print_csv(found)
    elif as_json:
        for batch in found.to_batches():
            print_lines(batch.to_pylist())
    else:
        print_table(found.column_names, (list(row.values()) for row in found.to_pylist()))


def _print_csv(found: "pa.Table") -> None:
    import pyarrow as pa
    from pyarrow import csv

    sys.stdout.flush()
    sink = pa.output_stream(sys.stdout.buffer)
    csv.write_csv(found, sink)


@dlq.command("list")
def dlq_list(as_json: Json = False) -> None:
    """The dead letters that wait, by shard and sequence number."""
    from headwater.cli.output import print_rows
    from headwater.cli.services import open_services

    services = open_services()
    rows = (_row(letter, whole=as_json) for letter in services.letters.list(services.pipeline.name))
    print_rows(rows, as_json=as_json, empty=f"no dead letters of pipeline {services.pipeline.name}")


@dlq.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Option("--id", help="A letter, as `dlq list` names it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every letter that waits.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Put letters on the stream again, once what was wrong is put right; they move to redriven/ in the bucket."""
    from headwater.cli.output import print_json
    from headwater.cli.services import open_services
    from producers.redriving import Redrive

    if every == bool(ids):
        raise UsageError("dlq redrive: give either --all or --id, once for each letter")
    services = open_services()
    letters = list(services.letters.list(services.pipeline.name))
    if ids:
        known = {letter_id(letter): letter for letter in letters}
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise UsageError(f"no dead letter {unknown[0]!r} waits; `headwater dlq list` names them")
        letters = [known[one] for one in ids]
    redriving = Redrive(services.kinesis, services.settings.stream, services.pipeline.contract)
    sent = services.letters.redrive(services.pipeline.name, letters, redriving.put)
    if as_json:
        print_json({"sent": sent})
    else:
        sys.stdout.write(f"{sent:,} sent again\n")


def letter_id(letter: "DeadLetter") -> str:
    """SHARD:SEQUENCE-NUMBER, and :ROW for one event of a record."""
    return f"{letter.shard_id}:{letter.sequence_number}" + ("" if letter.index is None else f":{letter.index}")


def _row(letter: "DeadLetter", *, whole: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": letter_id(letter), "reason": letter.reason}
    try:
        payload: str = letter.payload.decode()
    except UnicodeDecodeError:
        payload = f"({len(letter.payload):,} bytes)"
    if not whole:
        return row | {"payload": payload if len(payload) <= 60 else payload[:59] + "…"}
    return row | {
        "contract": letter.contract,
        "arrived_ms": letter.arrived_ms,
        "bytes": len(letter.payload),
        "payload": payload,
    }
