"""Tell which dead letters are about a key, by reading them as the pipeline's reader does. Pure.

A letter whose key can be read is about that one alone, however the texts of others contain it. Of one whose key cannot
be read nobody can say that; what may be about the key is told, for a person to decide.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from headwater.codec import Control, Decoded, decode_contents
from headwater.codec.columnar import is_arrow
from headwater.codec.inflate import decompressed
from headwater.codec.jsonrows import event_texts
from headwater.codec.records import decode_columns
from headwater.codec.rows import Arriving, Row, unwrapped_flat
from headwater.contract.keyvalues import KeyValue
from headwater.contract.selection import select_value
from headwater.contract.text import text_value
from headwater.contract.values import read_value
from headwater.errors import HeadwaterError, InvalidEvent, InvalidRecord
from headwater.processors.definition.pipeline import Pipeline
from headwater.sinks.deadletter import DeadLetter

__all__ = ["KeyLetters"]

_ESCAPE = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/bfnrt]")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f]")
_TOKENS = re.compile(r"(?=(\d{4}-\d\d-\d\d[T ][\d:.+Z-]*(?:,\d+[\d:+Z-]*)?))"), re.compile(r"[\w.+-]+(?::[\w.+-]+)*")
_NAMED = re.compile(r"[A-Za-z]\w*:")
"""What may be a key that is no text, within one: a time, a word, or the value behind a name."""
_PLAIN = str | bytes | int | float | Decimal | date | time | UUID
_BLANK = b"\xef\xbb\xbf \t\n\r\x0b\f\0\x1e"


class KeyLetters:
    """Find the letters of one key in a pipeline's; `doubtful` gathers the names of what may be about it.

    >>> from headwater.processors.definition.pipeline import Pipeline
    >>> plant = Pipeline("plant", contract="telemetry")
    >>> letters = KeyLetters(plant, KeyValue(plant.contract.field("device"), "d1"))
    >>> def letter(payload):
    ...     return DeadLetter("shardId-0", "7", 0, "no time", None, None, payload, "telemetry", 0)
    >>> [letters.has(letter(payload)) for payload in (b'{"device": "d1"}', b'{"device": "d17"}')]
    [True, False]
    """

    def __init__(self, pipeline: Pipeline, key: KeyValue) -> None:
        self._contract, self._decoder, self._key = pipeline.contract, pipeline.decoder, key
        # what the letter's event may be refused for is no matter here
        self._field = replace(pipeline.contract.field(key.column), minimum=None, maximum=None, values=())
        self._names = (self._field.name, *pipeline.contract.others.get(self._field.name, ()))
        self.doubtful = set[str]()

    def has(self, letter: DeadLetter) -> bool:
        """Tell whether an event of the letter has the key."""
        read = self._of_record if letter.index is None else self._of_event
        found = read(letter.payload, letter.arrived_ms)
        if found is None:
            self.doubtful.add(letter.name)
        return found is True

    def _of_record(self, payload: bytes, arrived_ms: int) -> bool | None:
        """Return whether a whole record has the key; None when that cannot be told."""
        decoder = None if self._decoder is None else Arriving(self._decoder, arrived_ms)
        try:
            contents = decode_contents(payload, self._contract, decoder).contents
        except InvalidRecord:
            return self._of_unread(payload)
        # a processor writes events that contradict others as lines of JSON, whatever the stream's format is
        found: list[bool | None] = [] if decoder is None else [self._of_lines(payload) or False]
        for content in contents:
            if isinstance(content, Decoded):
                found.append(self._of_column(content.table.column(self._field.name)))
                found += [self._of_event(row.event, arrived_ms) for row in content.invalid]
            elif isinstance(content, Control):
                found.append(self._of_values(content.body))
        return _any(found)

    def _of_event(self, payload: bytes, _arrived_ms: int) -> bool | None:
        try:
            row, flat = unwrapped_flat(payload)
        except (ValueError, RecursionError):
            return self._of_unread(payload)
        return self._of_row(row, flat=flat) if isinstance(row, dict) else self._of_unread(payload)

    def _of_row(self, row: Row, *, flat: bool) -> bool | None:
        value = None if flat else select_value(self._contract, row, self._field.name)
        if value is None:
            value = next((row[name] for name in self._names if row.get(name) is not None), None)
        return self._is_key(value) if isinstance(value, _PLAIN) else self._of_values(row)

    def _is_key(self, value: object) -> bool:
        """Tell whether a value is the key: as it is written, or as the contract reads it (its units, its format)."""
        if str(value) == self._key.text or self._key.matches(value):
            return True
        try:
            return self._key.matches(read_value(self._field, value))
        except (InvalidEvent, ValueError, OverflowError):
            return False

    def _of_values(self, row: object) -> bool | None:
        """Return None when a value or a name in a row without a key is the key's text."""
        waiting = [row]
        while waiting:
            one = waiting.pop()
            if isinstance(one, dict):
                waiting += [*one, *one.values()]
            elif isinstance(one, list | tuple):
                waiting += one
            elif isinstance(one, _PLAIN) and self._is_key(one):
                return None
        return False

    def _of_column(self, column: pa.ChunkedArray, is_key: Callable[[object], bool] | None = None) -> bool:
        return bool(pc.any(self._key.among(column, is_key)).as_py())

    def _of_unread(self, payload: bytes) -> bool | None:
        """Look for the key in what the reader refuses as a whole."""
        try:
            data = decompressed(payload)
        except InvalidRecord:
            return None  # what is in it is unknown
        if is_arrow(data):
            try:
                table = decode_columns(data)
                name = next(name for name in self._names if name in table.column_names)
            except (InvalidRecord, StopIteration, pa.ArrowException):
                return self._of_text(data)
            try:  # the contract may refuse the record for the column's type
                return self._of_column(table.column(name), self._is_key)
            except (pa.ArrowException, ValueError, OverflowError):
                return self._of_text(data) if self._key.is_text else None
        found = self._of_lines(data)
        return self._of_text(data) if found is None else found

    def _of_lines(self, data: bytes) -> bool | None:
        """Return whether one of several JSON objects has the key; None where that is not what it is, or not told."""
        text = data.strip(_BLANK)
        if not text.startswith((b"{", b"[")):
            return None
        try:
            rows = [unwrapped_flat(one) for one in event_texts(text)]
        except (HeadwaterError, ValueError, RecursionError):
            return None
        return _any([self._of_row(row, flat=flat) if isinstance(row, dict) else None for row, flat in rows])

    def _of_text(self, data: bytes) -> bool | None:
        """Return None when the key stands in a text as a whole value, or anywhere in other bytes; else False."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = ""
        if not text or _CONTROL.search(text):
            return None if self._key.text.encode(errors="replace") in data else False
        whole = re.compile(rf"(?<![\w-]){re.escape(self._key.text)}(?![\w-])")
        if whole.search(text) or whole.search(_ESCAPE.sub(_unescaped, text)):
            return None
        return None if not self._key.is_text and any(map(self._is_written, _tokens(text))) else False

    def _is_written(self, token: str) -> bool:
        value = text_value(self._field, token)
        return value is not None and self._is_key(value)


def _any(found: Sequence[bool | None]) -> bool | None:
    return True if True in found else None if None in found else False


def _tokens(text: str) -> Iterator[str]:
    for pattern in _TOKENS:
        for token in pattern.findall(text):
            # a comma may stand before the fraction of a second, or the next value; a point may end a sentence
            yield from {token, token.partition(",")[0], token.rstrip("."), _NAMED.sub("", token, count=1)}


def _unescaped(escape: "re.Match[str]") -> str:
    found: str = json.loads(f'"{escape[0]}"')
    return found
