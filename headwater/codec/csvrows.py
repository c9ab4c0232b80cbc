r"""Take CSV text apart into rows and values: the one tokenizer for whole blocks and for single rows. Pure.

A value is quoted when it begins with a quote and ends with one before a comma, a line break or the end, within
`MAX_QUOTED` bytes; two quotes in it are one. Every other quote is a character like any, as in `5" pipe`: a stray one
concerns its own row alone. Rows end with a line break outside quoted values; a carriage return before it belongs to it.
What a value means is read in `headwater.contract.text`.

>>> text = b'a,5" pipe\nb,"one, ""two""\nthree"\n'
>>> [split_row(row, 2) for row in split_rows(text)[0]]
[['a', '5" pipe'], ['b', 'one, "two"\nthree']]
"""

import re
from collections.abc import Sequence

__all__ = ["MAX_QUOTED", "count_tidy_rows", "miscount", "split_row", "split_rows"]

MAX_QUOTED = 1 << 20
"""Bytes of a quoted value: Kinesis' records of old had 1 MiB, and a quote that is never closed ends here."""

_MOST_QUOTES = 1 << 20
_QUOTED = re.compile(rb'"(?:[^"]++|"")*+"(?=,|\r?\n|\r?\Z)')
_RAW = re.compile(rb"[^,\n]*+")
_TIDY_VALUE = rb'(?:"(?:[^"]++|"")*+"(?=,|\r?\n|\r?\Z)\r?|[^,"\n][^,\n]*+|)'
_TIDY_ROW = re.compile(_TIDY_VALUE + rb"(?:," + _TIDY_VALUE + rb")*+(?:\n|\Z)")
_VALUES = re.compile(
    rb'(?:(?:"(?:[^"]++|"")*+"(?=,)|"(?=(?:[^"]++|"")*+"(?!,|\r?\n|\r?\Z))[^,\n]*+|[^,"\n][^,\n]*+|),)++'
)
"""Values with a comma behind each, as `_value_end` finds them one by one, where none reaches the end of what is given.

A quoted one, one that a quote begins and none ends, one without a quote before it, an empty one.
"""
_QUOTED_AT_START = re.compile(rb'(?:(?<=[,\n])|\A)"(?:[^"]++|"")*+"(?=,|\r?\n|\r?\Z)')
_LONE_RETURN = re.compile(rb"\r(?!\n|\Z)")


def split_rows(data: bytes, *, final: bool = True) -> tuple[list[bytes], int]:
    """Return the rows, without their line breaks and without empty ones, and how many bytes they take.

    With `final=False` more is to come: a row that what comes could change is left.
    """
    rows: list[bytes] = []
    at = 0
    if final and b'"' not in data:
        return [row for line in data.split(b"\n") if (row := line.removesuffix(b"\r")).strip()], len(data)
    while at < len(data):
        stop = _row_end(data, at, final)
        if stop is None:
            break
        row = data[at:stop].removesuffix(b"\n").removesuffix(b"\r")
        if row.strip():
            rows.append(row)
        at = stop
    return rows, at


def split_row(row: bytes, most: int) -> list[str]:
    """Return the values of one row, of more than `most` the first ones, and one too many.

    Raise UnicodeDecodeError when it is not UTF-8 text.
    """
    if b'"' not in row and b"\n" not in row:
        return [value.decode() for value in row.split(b",", most + 1)[: most + 1]]
    values: list[bytes] = []
    at = 0
    while True:
        stop = _value_end(row, at)
        value = row[at:stop]
        values.append(value[1:-1].replace(b'""', b'"') if _is_quoted(row, at, stop) else value)
        if stop >= len(row) or len(values) > most:
            return [value.decode() for value in values]
        at = stop + 1


def miscount(values: Sequence[str], columns: int) -> str:
    """Return what is wrong with the number of a row's values, of which `split_row` was asked for as many as columns.

    >>> miscount(["a"], 2), miscount(["a", "b"], 2)
    ('1 values for 2 columns', '')
    """
    if len(values) == columns:
        return ""
    found = f"{len(values)}" if len(values) < columns else f"more than {columns}"
    return f"{found} values for {columns} columns"


def count_tidy_rows(block: bytes) -> int | None:
    """Return the number of rows that are not empty, where any CSV reader takes them apart as this one does.

    None where a quote stands within a value or a carriage return by itself, or a quoted value is too long: there
    readers differ. None also for very many quotes, which would take 50 bytes each.
    """
    bare = block
    if b'"' in block:
        if block.count(b'"') > _MOST_QUOTES:
            return None
        if any(one.end() - one.start() > MAX_QUOTED for one in _QUOTED_AT_START.finditer(block)):
            return None
        bare = _QUOTED_AT_START.sub(b"q", block)
        if b'"' in bare:
            return None
    if _LONE_RETURN.search(bare):
        return None
    lines = bare.split(b"\n")
    return len(lines) - sum(not line.strip() for line in lines)


def _row_end(data: bytes, at: int, final: bool) -> int | None:
    """Return where the row that begins here ends, behind its line break; None when more bytes are needed to tell."""
    tidy = _TIDY_ROW.match(data, at)
    if tidy and tidy.end() - at <= MAX_QUOTED:
        end = tidy.end()
        return end if final or data[end - 1 : end] == b"\n" else None
    while True:
        if not final and data[at : at + 1] == b'"' and len(data) - at <= MAX_QUOTED + 2:
            stop = _QUOTED.match(data, at)
            if stop is None or stop.end() >= len(data) - 1:
                return None
        many = _VALUES.match(data, at, at + MAX_QUOTED)
        if many:
            at = many.end()
            continue
        at = _value_end(data, at)
        if at >= len(data):
            return len(data) if final else None
        at += 1
        if data[at - 1 : at] == b"\n":
            return at


def _value_end(data: bytes, at: int) -> int:
    """Return where the value that begins here ends: at a comma, a line break or the end."""
    quoted = _QUOTED.match(data, at) if data[at : at + 1] == b'"' else None
    if quoted and quoted.end() - at <= MAX_QUOTED:
        end = quoted.end()
        return end + 1 if data[end : end + 1] == b"\r" else end
    raw = _RAW.match(data, at)
    assert raw is not None  # it matches nothing, too
    return raw.end()


def _is_quoted(row: bytes, at: int, stop: int) -> bool:
    quoted = _QUOTED.match(row, at) if row[at : at + 1] == b'"' else None
    return quoted is not None and quoted.end() == stop and stop - at <= MAX_QUOTED
