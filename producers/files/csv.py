"""Read blocks of CSV rows into the contract's columns.

A block is read in one pass where possible, and row by row where that fails or could read a value otherwise: what
becomes of a row never depends on its neighbours. Each row that comes in is an event or is reported. Where rows begin
and end is decided in `csvrows`.
"""

import re
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from headwater.codec.csvrows import count_tidy_rows, miscount, split_row, split_rows
from headwater.contract import Contract, Field, InvalidRow, conform
from headwater.contract.rowcolumns import conform_rows
from headwater.contract.text import MILLISECONDS, NULLS, text_value
from headwater.contract.types import TIMES
from headwater.contract.values import EXACT_FLOATS
from headwater.errors import InvalidEvent, UsageError

__all__ = ["MAX_COLUMNS", "CsvReader", "known_columns"]

_TEXT = frozenset({"string", "timestamp", "timestamp_us", "date", "time", "uuid", "binary", "decimal"})
_BARE = ("string", "binary")
"""Types in which only the empty text is null."""
MAX_COLUMNS = 10_000
_PART = 4_096
"""Rows that are read apart together, which bounds the memory."""
_HEXADECIMAL = re.compile(rb'(?:\A|[,\n"])[ \t]*0[xX]')
"""Arrow reads such text as a whole number."""


def known_columns(name: str, columns: Sequence[str], contract: Contract, ignore_unknown: bool) -> list[str]:
    """Return the columns to read, in the file's order.

    Raises UsageError for a column that is unknown (unless `ignore_unknown`), there twice, or required and missing.
    """
    known = contract.all_names
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


class CsvReader:
    """Read blocks one after the other and count the rows. `report` gets each row that breaks the contract."""

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
        """Read the first line as the names of the columns; return what is behind it."""
        block = block.removeprefix(b"\xef\xbb\xbf")  # the byte order mark that spreadsheets write
        line, _, rest = block.partition(b"\n")
        try:
            self._columns = split_row(line.removesuffix(b"\r"), MAX_COLUMNS) if line.strip() else []
        except UnicodeDecodeError as error:
            raise UsageError(f"{self._name}: neither NDJSON nor CSV nor Parquet") from error
        if not self._columns:
            raise UsageError(f"{self._name}: is empty: no header")
        if len(self._columns) > MAX_COLUMNS:
            raise UsageError(f"{self._name}: more than {MAX_COLUMNS} columns")
        wanted = known_columns(self._name, self._columns, self._contract, self._ignore_unknown)
        self._fields = {column: self._contract.field(self._contract.all_names[column]) for column in wanted}
        return rest

    def read(self, block: bytes) -> pa.Table:
        """Return the valid events of a block of whole rows."""
        if not block.strip():
            return self._contract.arrow_schema.empty_table()
        # whole numbers may be written as 1.0 or 1e3, which only a float column reads
        for integers in (pa.int64(), pa.float64()):
            table = self._at_once(block, integers)
            if table is not None:
                return table
        return self._row_by_row(block)

    def _at_once(self, block: bytes, integers: pa.DataType) -> pa.Table | None:
        """Return the block read in one pass; None when it must be read row by row."""
        rows = count_tidy_rows(block)
        if rows is None or _HEXADECIMAL.search(block):
            return None
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
                    null_values=[*NULLS],
                    strings_can_be_null=False,
                ),
            )
            if table.num_rows != rows or (integers == pa.float64() and self._inexact(table)):
                return None
            nulled = self._with_nulls(table)
            if nulled is None:
                return None
            found = conform(self._contract, nulled)
        except pa.ArrowException:
            return None
        except InvalidEvent as error:
            raise UsageError(f"{self._name}: {error}") from error
        if found.invalid:
            self._report_all(found.invalid, block)
        self._row += table.num_rows
        return found.table

    def _report_all(self, invalid: Sequence[InvalidRow], block: bytes) -> None:
        raw, _ = split_rows(block)
        for one in invalid:
            self._report(self._row + one.index, one.reason, raw[one.index])

    def _inexact(self, table: pa.Table) -> bool:
        """Return True when a whole number was read as a float too large to be exact."""
        for column, field in self._fields.items():
            if field.type in ("int", "long"):
                largest = pc.max(pc.abs(table.column(column))).as_py()
                if largest is not None and not largest < EXACT_FLOATS:
                    return True
        return False

    def _with_nulls(self, table: pa.Table) -> pa.Table | None:
        """Replace text that is null by null where the field allows it, and times written as milliseconds by numbers.

        Return None for a column that has times of both kinds.
        """
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            field = self._fields[name]
            if field.kind.name in _TEXT and not (field.type in _BARE and field.required):
                null = pc.equal(column, "") if field.type in _BARE else pc.is_in(column, pa.array(NULLS))
                column = pc.if_else(null, pa.scalar(None, pa.string()), column)
            if field.kind.name == "decimal":
                column = pc.utf8_trim(column, " \t")
            if field.type in TIMES:
                counted = pc.match_substring_regex(column, f"^{MILLISECONDS.pattern}$")
                if pc.all(counted).as_py():
                    column = column.cast(pa.int64())
                elif pc.any(counted).as_py():
                    return None
            columns.append(column)
        return pa.table(columns, names=table.column_names)

    def _row_by_row(self, block: bytes) -> pa.Table:
        """Take each row apart by itself, and hold the events of some rows to the contract together."""
        raw, _ = split_rows(block)
        return pa.concat_tables([self._apart(raw[at : at + _PART]) for at in range(0, len(raw) or 1, _PART)])

    def _apart(self, raw: list[bytes]) -> pa.Table:
        read = [self._split(text) for text in raw]
        events = [row for row in read if not isinstance(row, str)]
        places = [at for at, row in enumerate(read) if not isinstance(row, str)]
        table, faults = conform_rows(self._contract, events)
        reasons: dict[int, str | Exception] = {at: row for at, row in enumerate(read) if isinstance(row, str)}
        reasons |= {places[at]: fault for at, fault in faults.items()}
        for at in sorted(reasons):
            self._report(self._row + at, str(reasons[at]), raw[at])
        self._row += len(raw)
        return table

    def _split(self, text: bytes) -> dict[str, object] | str:
        """Return the row's values by the names of their columns; the reason as text where it has others."""
        try:
            values = split_row(text, len(self._columns))
        except UnicodeDecodeError:
            return "not UTF-8 text"
        wrong = miscount(values, len(self._columns))
        if wrong:
            return wrong
        return {
            column: text_value(self._fields[column], value)
            for column, value in zip(self._columns, values, strict=True)
            if column in self._fields
        }


def _read_as(field: Field, integers: pa.DataType) -> pa.DataType:
    if field.kind.name in _TEXT:
        return pa.string()
    if field.type in ("int", "long"):
        return integers
    return pa.bool_() if field.type == "boolean" else pa.float64()
