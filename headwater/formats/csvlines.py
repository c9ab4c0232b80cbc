"""Decode lines of CSV without a header, whose columns the pipeline names."""

from collections.abc import Sequence

from headwater.codec.csvrows import split_row, split_rows
from headwater.codec.records import Decoder
from headwater.codec.rows import Row, Unread
from headwater.contract import Contract, Field
from headwater.contract.text import text_value, text_values
from headwater.errors import UsageError

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
        columns = [(name, fields.get(name)) for name in self.columns]

        def decode(data: bytes) -> list[Row | Unread]:
            rows, _ = split_rows(data.removeprefix(b"\xef\xbb\xbf"))
            return (None if b'"' in data else _plain_rows(rows, columns)) or [_row(row, columns) for row in rows]

        return decode

    def __call__(self, data: bytes) -> list[Row | Unread]:
        """Refuse any bytes: without a contract nobody knows what the values are."""
        raise UsageError(f"csv: {len(data)} bytes and no contract: give the decoder to Pipeline.decode")


def _plain_rows(rows: list[bytes], columns: list[tuple[str, Field | None]]) -> list[Row | Unread] | None:
    """Return the rows of lines without quotes, read column by column; None where one has more or fewer values."""
    try:
        cells = [line.split(",") for line in b"\n".join(rows).decode().split("\n")]
    except UnicodeDecodeError:
        return None
    if set(map(len, cells)) != {len(columns)}:
        return None
    read = [
        texts if field is None else text_values(field, texts)
        for (_, field), texts in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    names = [name for name, _ in columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*read, strict=True)]


def _row(row: bytes, columns: list[tuple[str, Field | None]]) -> Row | Unread:
    try:
        values = split_row(row)
    except UnicodeDecodeError:
        return Unread("not UTF-8 text", row)
    if len(values) != len(columns):
        return Unread(f"{len(values)} values for {len(columns)} columns", row)
    pairs = zip(columns, values, strict=True)
    return {name: text if field is None else text_value(field, text) for (name, field), text in pairs}
