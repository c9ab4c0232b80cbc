"""Blocks of CSV rows, read into the contract's columns."""

import csv
import io
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from headwater.contract import Contract, Field, InvalidRow, conform, validate_row
from headwater.errors import InvalidEvent, UsageError

__all__ = ["Reader", "known_columns"]

_NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
"""Of columns that are no strings. Of those only the empty text is null, and only where the field is optional."""
_TEXT = ("string", "timestamp", "date")
_EXACT = 2**53
"""Up to here float64 holds every whole number."""


def known_columns(name: str, columns: Sequence[str], contract: Contract, ignore_unknown: bool) -> list[str]:
    """The columns to be read; UsageError names one that is unknown, double, or required and missing."""
    known = {one: field.name for field in contract.fields for one in (field.name, *field.was)}
    wanted: list[str] = []
    taken: set[str] = set()
    for column in columns:
        if column not in known:
            if ignore_unknown:
                continue
            shown = column.encode("ascii", "backslashreplace").decode()[:80]
            raise UsageError(f"{name}: column {shown} is not in contract {contract.name} v{contract.version}")
        if known[column] in taken:
            raise UsageError(f"{name}: there are two columns for field {known[column]}")
        taken.add(known[column])
        wanted.append(column)
    for field in contract.fields:
        if field.required and field.name not in taken:
            raise UsageError(f"{name}: column {field.name} is missing: contract {contract.name} requires it")
    return wanted


class Reader:
    """Keeps the row number from block to block. `report` gets each row that breaks the contract."""

    def __init__(
        self, name: str, contract: Contract, ignore_unknown: bool, report: Callable[[int, str, bytes], None]
    ) -> None:
        self._name = name
        self._contract = contract
        self._ignore_unknown = ignore_unknown
        self._report = report
        self._row = 1
        self._columns: list[str] = []
        self._fields: dict[str, Field] = {}

    def header(self, block: bytes) -> bytes:
        """Take the first line as the names of the columns; returns what is behind it."""
        block = block.removeprefix(b"\xef\xbb\xbf")
        line, _, rest = block.partition(b"\n")
        try:
            self._columns = next(csv.reader([line.decode()]), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{self._name}: neither NDJSON nor CSV nor Parquet") from error
        if not self._columns:
            raise UsageError(f"{self._name}: is empty: no header")
        wanted = known_columns(self._name, self._columns, self._contract, self._ignore_unknown)
        of_name = {one: field for field in self._contract.fields for one in (field.name, *field.was)}
        self._fields = {column: of_name[column] for column in wanted}
        return rest

    def read(self, block: bytes) -> pa.Table:
        """The valid events of a block of whole rows."""
        if not block.strip():
            return self._contract.arrow_schema.empty_table()
        for integers in (pa.int64(), pa.float64()):
            table = self._at_once(block, integers)
            if table is not None:
                return table
        return self._row_by_row(block)

    def _at_once(self, block: bytes, integers: pa.DataType) -> pa.Table | None:
        """The block in one pass, or None where row by row must decide."""
        try:
            table = pacsv.read_csv(
                pa.BufferReader(block),
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=len(block) + 1, column_names=self._columns
                ),
                parse_options=pacsv.ParseOptions(newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(
                    column_types={column: _read_as(field, integers) for column, field in self._fields.items()},
                    include_columns=list(self._fields),
                    null_values=_NULLS,
                    strings_can_be_null=False,
                ),
            )
            if integers == pa.float64() and self._inexact(table):
                return None
            table = self._with_nulls(table)
            found = conform(self._contract, table)
        except pa.ArrowException:
            return None
        except InvalidEvent as error:
            raise UsageError(f"{self._name}: {error}") from error
        if found.invalid:
            self._report_all(found.invalid, block)
        self._row += table.num_rows
        return found.table

    def _report_all(self, invalid: Sequence[InvalidRow], block: bytes) -> None:
        raw = _raw_rows(block)
        for one in invalid:
            self._report(self._row + one.index, one.reason, raw[one.index] if one.index < len(raw) else b"")

    def _inexact(self, table: pa.Table) -> bool:
        for column, field in self._fields.items():
            if field.type in ("int", "long"):
                largest = pc.max(pc.abs(table.column(column))).as_py()
                if largest is not None and not largest < _EXACT:
                    return True
        return False

    def _with_nulls(self, table: pa.Table) -> pa.Table:
        """Empty text is null where it may be; times written as milliseconds are numbers."""
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            field = self._fields[name]
            if field.type in _TEXT and not (field.type == "string" and field.required):
                column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
            if field.type == "timestamp" and pc.all(pc.match_substring_regex(column, r"^-?\d{5,}$")).as_py():
                column = column.cast(pa.int64())
            columns.append(column)
        return pa.table(columns, names=table.column_names)

    def _row_by_row(self, block: bytes) -> pa.Table:
        rows = []
        raw = _raw_rows(block)
        for text in raw:
            verdict = self._judge(text)
            if isinstance(verdict, dict):
                rows.append(verdict)
            else:
                self._report(self._row, verdict, text)
            self._row += 1
        return pa.Table.from_pylist(rows, schema=self._contract.arrow_schema)

    def _judge(self, text: bytes) -> dict[str, object] | str:
        try:
            values = next(csv.reader(io.StringIO(text.decode(), newline="")), [])
            if len(values) != len(self._columns):
                return f"{len(values)} values for {len(self._columns)} columns"
            row = {
                column: _value(self._fields[column], value)
                for column, value in zip(self._columns, values, strict=True)
                if column in self._fields
            }
            return dict(validate_row(self._contract, row))
        except InvalidEvent as error:
            return str(error)
        except UnicodeDecodeError:
            return "not UTF-8 text"
        except csv.Error as error:
            return f"no CSV: {error}"


def _read_as(field: Field, integers: pa.DataType) -> pa.DataType:
    if field.type in _TEXT:
        return pa.string()
    if field.type in ("int", "long"):
        return integers
    return pa.bool_() if field.type == "boolean" else pa.float64()


def _value(field: Field, text: str) -> object:
    """One value as `validate_row` takes it; what cannot be read stays text, and is refused there."""
    if field.type == "string":
        return text if text or field.required else None
    if text in _NULLS:
        return None
    try:
        if field.type in ("int", "long") or (field.type == "timestamp" and len(text) > 4):
            return int(text) if field.type == "timestamp" or text.lstrip("+-").isdigit() else float(text)
        if field.type in ("float", "double"):
            return float(text)
    except ValueError:
        return text
    if field.type == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    return text


def _raw_rows(block: bytes) -> list[bytes]:
    """The rows' text; a row goes on over a line break between quotes. Empty lines are no rows."""
    rows: list[bytes] = []
    open_row = b""
    for line in block.split(b"\n"):
        open_row = open_row + b"\n" + line if open_row else line
        if open_row.count(b'"') % 2 == 0:
            if open_row.strip():
                rows.append(open_row.rstrip(b"\r"))
            open_row = b""
    if open_row.strip():
        rows.append(open_row)
    return rows
