"""Define the commands that read the lake: query, queries, shell, tables, describe, sample."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.commands.lake import lake
from headwater.commands.options import Json
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from headwater.sinks.lake.query import LakeSession

__all__ = ["print_answer", "register"]

External = Annotated[bool, typer.Option("--external", help="Reach files of this machine and the network, too.")]
AsOf = Annotated[str, typer.Option(help="Show tables as they were then, ISO 8601; without a zone it is UTC.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV with a header on stdout.")]
TableName = Annotated[str, typer.Argument(help="As `headwater lake tables` names it.")]
_WORDS = (
    *(
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "ORDER",
        "LIMIT",
        "JOIN",
        "USING",
        "AS",
        "COUNT",
        "DISTINCT",
        "BETWEEN",
    ),
    *("AND", "EXPLAIN", "ANALYZE", "DESCRIBE", "SUMMARIZE", "SHOW", "TABLES", "FOR", "TIMESTAMP", "VERSION", "OF"),
)


def register(_: typer.Typer) -> None:
    """Add nothing: importing this module has added the commands to `headwater lake`."""


@lake.command("query")
def query_(
    sql: Annotated[str, typer.Argument(help="One SQL statement (DuckDB) over the tables of the lake.")],
    as_json: Json = False,
    as_csv: AsCsv = False,
    as_of: AsOf = "",
    external: External = False,
) -> None:
    """Run SQL over the current snapshot of the tables it names, or over an earlier one."""
    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    session = _session(as_of, external=external)
    print_answer(session.query(sql), as_json=as_json, as_csv=as_csv)


@lake.command("tables")
def tables_(as_json: Json = False) -> None:
    """List the tables with their rows, files and bytes, and the time of the last commit."""
    from headwater.commands.output import print_rows

    session = _session()
    print_rows(map(session.summary, session.tables()), as_json=as_json, empty="the lake has no tables")


@lake.command("describe")
def describe_(table: TableName, as_json: Json = False) -> None:
    """Show a table's columns with their types and descriptions, and by what it is partitioned."""
    from headwater.commands.output import print_rows

    session = _session()
    print_rows(session.columns(table), as_json=as_json, empty=f"table {table} has no columns")


@lake.command("queries")
def queries_(
    name: Annotated[str, typer.Argument(help="Print this one's SQL, for Athena and Trino.")] = "", as_json: Json = False
) -> None:
    """List what is usually asked of the pipeline's table, or print one as SQL; each ? is a parameter."""
    from headwater.commands.output import print_rows
    from headwater.config import Settings
    from headwater.processors.definition.loading import load
    from headwater.sinks.lake.queries import named_queries

    pipeline = load(Settings().pipeline)
    found = named_queries(pipeline.lake_to.table, pipeline.contract)
    chosen = found.get(name.replace("_", " "))
    if name and chosen is None:
        raise UsageError(f"no query {name!r}; `headwater lake queries` names them")
    if chosen and not as_json:
        sys.stdout.write(f"{chosen.sql}\n")
        return
    rows = [chosen] if chosen else found.values()
    shown = ("name", "description", *(["sql"] if as_json else []))
    print_rows(({one: getattr(row, one) for one in shown} for row in rows), as_json=as_json, empty="no queries")


@lake.command("sample")
def sample_(
    table: TableName,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, max=10_000, help="Rows at most.")] = 10,
    as_json: Json = False,
    as_csv: AsCsv = False,
) -> None:
    """Show some rows out of a few of a table's files, chosen at random."""
    from random import SystemRandom

    if as_json and as_csv:
        raise UsageError("--json and --csv: choose one")
    session = _session()
    print_answer(session.sample(table, rows, SystemRandom()), as_json=as_json, as_csv=as_csv)


@lake.command("shell")
def shell_(as_of: AsOf = "", external: External = False) -> None:
    """Take statements one after the other, each ended by a semicolon; Tab completes names, Ctrl-D ends."""
    session = _session(as_of, external=external)
    asks = sys.stdin.isatty()
    if asks:
        _complete(session)
        sys.stdout.write("Statements end with a semicolon, the shell with Ctrl-D. It only reads.\n")
    failed = False
    for sql in _statements(asks=asks):
        try:
            print_answer(session.query(sql))
        except (HeadwaterError, OSError) as error:
            failed = True
            sys.stderr.write(f"headwater: {' '.join(str(error).split())}\n")
    if failed and not asks:
        raise typer.Exit(1)


def _session(as_of: str = "", *, external: bool = False) -> "LakeSession":
    with _without_pandas():
        from headwater.sinks.lake.query import LakeSession
    from headwater.aws import client
    from headwater.commands.services import check_endpoint
    from headwater.config import Settings

    settings = Settings()
    check_endpoint(client("glue", settings).meta.endpoint_url)
    return LakeSession(settings, external=external, as_of=as_of)


class _NoPandas:
    """Say of pandas alone that it is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError(name, name=name)


@contextmanager
def _without_pandas() -> Iterator[None]:
    """Import without pandas, which pyarrow.dataset loads if it is there: a quarter of the time of a small query."""
    finder: Any = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _statements(*, asks: bool) -> Iterator[str]:
    """Yield the statements of stdin, each without its semicolon. Ctrl-C gives up the one that is being typed."""
    held = ""
    while True:
        try:
            line = input(("headwater> " if not held else "       ... ") if asks else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            if not asks:
                raise
            held = ""
            sys.stdout.write("\n")
            continue
        held = f"{held}\n{line}" if held else line
        if held.rstrip().endswith(";"):
            yield held.rstrip().removesuffix(";")
            held = ""
    if held.strip():
        yield held
    if asks:
        sys.stdout.write("\n")


def _complete(session: "LakeSession") -> None:
    """Let Tab complete tables, their columns and some words; nothing where there is no readline."""
    try:
        import readline
    except ImportError:
        return
    tables = session.tables()
    names = sorted({*tables, *(str(one["column"]) for name in tables for one in session.columns(name))})

    def complete(text: str, state: int) -> str | None:
        words = [name for name in names if name.startswith(text)]
        words += [word for word in _WORDS if text and word.startswith(text.upper())]
        return words[state] if state < len(words) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n,()=<>+-*/;")
    readline.parse_and_bind("tab: complete")


def print_answer(found: "pa.Table", *, as_json: bool = False, as_csv: bool = False) -> None:
    """Print the result of a statement: a table, JSON lines or CSV; of EXPLAIN its lines."""
    from headwater.commands.output import print_lines, print_table

    if as_csv:
        _print_csv(found)
    elif as_json:
        for batch in found.to_batches():
            print_lines(batch.to_pylist())
    elif found.column_names == ["plan"]:
        sys.stdout.writelines(f"{line}\n" for line in found["plan"].to_pylist())
    else:
        print_table(found.column_names, (list(row.values()) for row in found.to_pylist()))


def _print_csv(found: "pa.Table") -> None:
    import json

    import pyarrow as pa
    from pyarrow import csv

    from headwater.commands.output import plain

    for at, one in enumerate(found.schema):
        if pa.types.is_nested(one.type):  # CSV has no such values: as JSON
            texts = [None if value is None else json.dumps(plain(value)) for value in found.column(at).to_pylist()]
            found = found.set_column(at, one.name, pa.array(texts, pa.string()))
    sys.stdout.flush()
    sink = pa.output_stream(sys.stdout.buffer)
    csv.write_csv(found, sink)
