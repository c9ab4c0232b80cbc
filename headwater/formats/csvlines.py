"""Decode lines of CSV without a header, whose columns the pipeline names."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from headwater.codec.csvrows import miscount, split_row, split_rows
from headwater.codec.records import Decoder
from headwater.codec.rows import MAX_EVENTS, Row, RowColumns, Unread
from headwater.contract import Contract, Field
from headwater.contract.text import text_column, text_value
from headwater.errors import InvalidRecord, UsageError

__all__ = ["CsvDecoder", "csv"]


def csv(columns: Sequence[str]) -> "CsvDecoder":
    """Return a decoder of CSV: a row for each line, with a value for each of the columns.

    A column is a field of the contract, by its name or an earlier one; others are left to the contract's `unknown`.
    Numbers, times and nulls are read as in CSV files: see `headwater produce`.

    >>> from headwater.contract import load_contract
    >>> read = csv(["device", "metric", "ts", "value"]).for_contract(load_contract("telemetry"))
    >>> read(b"a,speed,1772366400000,1.5")[0]["value"]
    1.5
    """
    return CsvDecoder(tuple(columns))


_BOM = b"\xef\xbb\xbf"


class CsvDecoder:
    """Decode CSV once it knows the contract, whose types say what the text of a value means."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        if not columns or len(set(columns)) < len(columns):
            raise UsageError("csv: name each column once, in the order of the lines")
        self.columns = columns

    def for_contract(self, contract: Contract) -> Decoder:
        """Return the decoder for events of the contract."""
        fields: dict[str, Field] = {}
        for field in contract.fields:
            for name in (field.path[0],) if len(field.path) == 1 else (field.name, *field.was):
                fields[name] = field
        return _Lines([(name, fields.get(name)) for name in self.columns])

    def __call__(self, data: bytes) -> list[Row | Unread]:
        """Refuse any bytes: without a contract nobody knows what the values are."""
        raise UsageError(f"csv: {len(data)} bytes and no contract: give the decoder to Pipeline.decode")


class _Lines:
    """Read lines of these columns, each with the field that it is."""

    def __init__(self, columns: list[tuple[str, Field | None]]) -> None:
        self._columns = columns

    def __call__(self, data: bytes) -> list[Row | Unread]:
        if data.count(b"\n") > MAX_EVENTS:  # before there is an object for each of them
            raise InvalidRecord(f"more than {MAX_EVENTS} lines")
        found = self.together([data])
        return [*found] if found else [_row(row, self._columns) for row in split_rows(data.removeprefix(_BOM))[0]]

    def together(self, datas: Sequence[bytes]) -> RowColumns | None:
        """Return the rows of lines that are all alike; None where one has quotes, an odd line break, more or fewer
        values, or may be blank."""
        datas = [data.removeprefix(_BOM).replace(b"\r\n", b"\n").removesuffix(b"\n") for data in datas]
        text = b"\n".join(datas)
        if b'"' in text or b"\r" in text or text.startswith(_BOM) or len(self._columns) < 2:
            return None
        names = [name for name, _ in self._columns]
        try:
            found = pacsv.read_csv(
                pa.BufferReader(text),
                pacsv.ReadOptions(use_threads=False, column_names=names, block_size=len(text) + 1),
                pacsv.ParseOptions(quote_char=False),
                pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
        except pa.ArrowInvalid:
            return None
        counts = [data.count(b"\n") + 1 for data in datas]
        if found.num_rows != sum(counts):
            return None
        fields = [field for _, field in self._columns]
        values = [
            one if field is None else text_column(field, one)
            for field, one in zip(fields, found.itercolumns(), strict=True)
        ]
        return RowColumns(names, values, counts)


def _row(row: bytes, columns: list[tuple[str, Field | None]]) -> Row | Unread:
    try:
        values = split_row(row, len(columns))
    except UnicodeDecodeError:
        return Unread("not UTF-8 text", row)
    wrong = miscount(values, len(columns))
    if wrong:
        return Unread(wrong, row)
    pairs = zip(columns, values, strict=True)
    return {name: text if field is None else text_value(field, text) for (name, field), text in pairs}
