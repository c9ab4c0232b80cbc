"""Find where JSON values end in a text, without holding what is in them.

The text is read through windows as Latin-1, one character a byte, in which values end where they do in UTF-8: as text
all of it could take four times its bytes, and its values thirty times.
"""

import codecs
import json
import re
from collections.abc import Iterator

from headwater.codec.bounds import MAX_VALUES, has_many
from headwater.errors import InvalidRecord

__all__ = ["ValueEnds", "array_values", "check_utf8", "space_end"]

_WINDOW = 1 << 20
_OPEN_END = 8
"""Bytes before the end of a window in which a number only seems to end, as the 1 of `1e+5` does."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(rb"[ \t\r\n]*+")
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb'(?:"(?:[^"\\]++|\\.)*+"|[^]\[{}"]++)*+([]\[{}])', re.DOTALL)
"""A bracket, and before it texts and what is no bracket."""


def array_values(text: bytes, most: int) -> Iterator[bytes]:
    """Yield the values of an array as they are written, one at a time.

    Raises json.JSONDecodeError where `json.loads` would, UnicodeDecodeError for what is no UTF-8, and InvalidRecord
    when there are more than `most` values, or one is of more than `MAX_VALUES`.

    >>> list(array_values(b'[1.50, {"a": 2}]', 2))
    [b'1.50', b'{"a": 2}']
    """
    check_utf8(text)
    values, at, places = ValueEnds(text), space_end(text, 1), 0
    while places or text[at : at + 1] != b"]":
        if places == most:
            raise InvalidRecord(f"more than {most} events")
        end = values.end(at)
        yield text[at:end]
        places += 1
        at = space_end(text, end)
        if text[at : at + 1] == b"]":
            break
        if text[at : at + 1] != b",":
            raise _error("Expecting ',' delimiter", text, at)
        at = space_end(text, at + 1)
    end = space_end(text, at + 1)
    if end != len(text):
        raise _error("Extra data", text, end)


def space_end(text: bytes, at: int) -> int:
    """Return where the white space that begins here ends."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def check_utf8(text: bytes) -> None:
    """Raise UnicodeDecodeError for what is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, len(text), _WINDOW):
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(text[at : at + _WINDOW], at + _WINDOW >= len(text))
        except UnicodeDecodeError as error:
            start = at - waiting + error.start
            raise UnicodeDecodeError("utf-8", text, start, start + 1, error.reason) from None


class ValueEnds:
    """Tell where values of a text end, asked for one after the other."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._window, self._start, self._stop = "", 0, 0

    def end(self, at: int) -> int:
        """Return where the value that begins here ends.

        Raises what `json.loads` raises for what is no JSON, and InvalidRecord for one of more than `MAX_VALUES` values.
        """
        end = self._end_in_window(at) if self._start <= at < self._stop else None
        if end is None:
            self._start, self._stop = at, min(at + _WINDOW, len(self._text))
            self._window = self._text[at : self._stop].decode("latin-1")
            end = self._end_in_window(at)
        return self._end_of_long(at) if end is None else end

    def _end_in_window(self, at: int) -> int | None:
        """Return the end; None where the window ends too early to tell."""
        whole = self._stop == len(self._text)
        try:
            end = self._start + _DECODER.raw_decode(self._window, at - self._start)[1]
        except json.JSONDecodeError as error:
            if whole:
                raise _error(error.msg, self._text, self._start + error.pos) from None
            return None
        return end if whole or end <= self._stop - _OPEN_END else None

    def _end_of_long(self, at: int) -> int:
        value = self._text[at : _long_end(self._text, at)]
        if has_many(value):
            raise InvalidRecord(f"a value of more than {MAX_VALUES} values")
        try:
            return at + _DECODER.raw_decode(value.decode("latin-1"))[1]
        except json.JSONDecodeError as error:
            raise _error(error.msg, self._text, at + error.pos) from None


def _long_end(text: bytes, at: int) -> int:
    """Return where a value ends, by its quotes and brackets alone; the end of the text for one without an end."""
    if text[at : at + 1] not in (b"{", b"["):
        found = _TEXT.match(text, at)
        return found.end() if found else len(text)
    depth = 0
    while found := _BRACKET.match(text, at):
        depth += 1 if found[1] in b"[{" else -1
        at = found.end()
        if not depth:
            return at
    return len(text)


def _error(what: str, text: bytes, at: int) -> json.JSONDecodeError:
    before = text[:at].decode(errors="replace")
    return json.JSONDecodeError(what, before, len(before))
