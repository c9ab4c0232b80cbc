"""Bound what a record becomes in memory when it is read, by what stands in its bytes.

A few bytes may become many: `{},` is an object of a hundred bytes, and a text that a record says once belongs to each
of its events. What is decompressed is bounded in `inflate`; nothing here reads any format.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.codec.inflate import MAX_BYTES
from headwater.errors import InvalidRecord

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_CONTAINERS",
    "MAX_INVALID",
    "MAX_VALUES",
    "TextBudget",
    "TooLarge",
    "bounded",
    "check_containers",
    "check_messages",
    "check_values",
    "container_count",
    "has_many",
    "plain_bytes",
    "row_bytes",
    "text_bytes",
]

MAX_BATCH_BYTES = MAX_BYTES // 2
"""Bytes of a batch's values, as `plain_bytes` counts them, that a writer puts into one record: well below what a reader
takes, however small they are when compressed."""

MAX_INVALID = 10_000
"""Events of one record or batch that may break the contract; one with more is refused as a whole. Each of them takes a
hundred times what a valid one does, in time and memory: its reason in words, and itself as JSON."""
MAX_CONTAINERS = (1 << 20) + 1
"""Objects and lists in one JSON document that is read at once: as many events as a record may have, in one list."""
MAX_VALUES = 500_000
"""Objects, lists and named values in one event, and a sixth of the values in lists; each takes up to 200 bytes of
memory."""
_LISTED = 6
"""Values of a list that count as one value: a number takes 32 bytes."""
_MOST_LISTED = 4 << 20
"""Values of lists and objects in a document that is read at once, as commas."""
_MOST_NAMED = 8
"""Names that an object has on average: many small objects share their names, which one large object does not."""
_SMALL_MESSAGE = 24
"""Length that is a control character in text, which so counts for little."""
_CHUNK = 1 << 16
"""Bytes of text that are counted at once: numpy takes ten times as much meanwhile."""
_ESCAPED = re.compile(rb"\\*.?", re.DOTALL)
"""The rest of what is escaped, where a chunk would end within it."""
_SMALL = 1 << 20
"""Bytes of text that take no more than 50 MB whatever they hold: nothing is counted in them."""

T = TypeVar("T")


class TooLarge(InvalidRecord):
    """Refuse what takes too much memory once each event has what its record says once."""


def container_count(text: bytes) -> int:
    """Return how many objects and lists JSON has at most; brackets in texts count as well."""
    return text.count(b"{") + text.count(b"[")


class _Marks(NamedTuple):
    containers: int
    colons: int
    commas: int


def _marks(text: bytes) -> _Marks:
    return _Marks(container_count(text), text.count(b":"), text.count(b","))


def _marks_outside(text: bytes) -> _Marks:
    """Return how many of these marks stand outside of texts: of JSON that is right, or as far as it is, just so many.

    >>> _marks_outside(b'{"a{": [1, "[:,"]}')
    _Marks(containers=2, colons=1, commas=1)
    """
    found, within, at = np.zeros(256, np.int64), False, 0
    while at < len(text):
        escaped = _ESCAPED.match(text, at + _CHUNK - 1)
        end = escaped.end() if escaped else len(text)
        codes = np.frombuffer(text[at:end].replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
        at = end
        if len(codes):
            inside = np.logical_xor.accumulate(codes == ord('"')) ^ within
            found += np.bincount(codes[~inside], minlength=256)
            within = bool(inside[-1])
    return _Marks(*(int(sum(found[code] for code in codes)) for codes in (b"{[", b":", b",")))


def _has_too_many(text: bytes, may_have: Callable[[_Marks], bool], has: Callable[[_Marks], bool] | None = None) -> bool:
    """Tell whether a text has too many marks outside of texts; only where it may have, as all together are too many."""
    return len(text) > _SMALL and may_have(_marks(text)) and (has or may_have)(_marks_outside(text))


def check_containers(text: bytes, most: int = MAX_CONTAINERS) -> None:
    """Raise InvalidRecord for JSON of more than `most` objects and lists, before it is read."""
    if _has_too_many(text, lambda marks: marks.containers > most):
        raise InvalidRecord(f"JSON of more than {most} objects and lists")


def check_values(text: bytes, most: int = MAX_CONTAINERS) -> None:
    """Raise InvalidRecord for JSON of too many values of any kind, of all of which there are objects at once."""
    check_containers(text, most)
    if _has_too_many(
        text,
        lambda marks: marks.commas > _MOST_LISTED or marks.colons > MAX_VALUES,
        lambda marks: marks.commas > _MOST_LISTED or marks.colons > MAX_VALUES + _MOST_NAMED * marks.containers,
    ):
        raise InvalidRecord("JSON of too many values to be read at once")


def check_messages(data: bytes, most: int = MAX_CONTAINERS) -> None:
    """Raise InvalidRecord for protobuf of more than `most` messages that are small: each takes 60 bytes and more.

    Counted are the tags of texts and messages before a length of a few bytes, wherever they stand.
    """
    if len(data) <= _SMALL:
        return
    found, codes = 0, np.frombuffer(data, np.uint8)
    for at in range(0, len(codes) - 1, _SMALL):
        some = codes[at : at + _SMALL + 1]
        tags = some[:-1]
        found += int(np.count_nonzero((tags & 7 == 2) & (tags > 7) & (tags < 128) & (some[1:] <= _SMALL_MESSAGE)))
    if found > most:
        raise InvalidRecord(f"protobuf of more than {most} small messages")


def has_many(event: bytes) -> bool:
    """Tell whether one event's JSON has more than `MAX_VALUES` values, so that it is not to be read."""
    return _has_too_many(event, lambda marks: sum(marks[:2]) + marks.commas // _LISTED > MAX_VALUES)


def bounded(items: Iterable[T], size: Callable[[T], int], limit: int = MAX_BYTES) -> Iterator[T]:
    """Yield the items; TooLarge once their sizes come to more than `limit` bytes.

    >>> list(bounded(["a", "b"], len, 2))
    ['a', 'b']
    """
    total = 0
    for item in items:
        total += size(item)
        if total > limit:
            raise TooLarge(_too_large(limit))
        yield item


class TextBudget:
    """Bound the texts that a table gets, column by column, before there is any of it."""

    def __init__(self, limit: int = MAX_BYTES) -> None:
        self._limit = self._left = limit

    def take(self, values: Sequence[object], kinds: Set[type]) -> None:
        """Count a column's values, which are of these types. Raise TooLarge once all come to more than the limit.

        >>> TextBudget(3).take(["ab", "c", None], {str, type(None)})
        """
        if kinds.isdisjoint(_LONG):
            return
        if isinstance(values, pa.ChunkedArray):
            self._left -= values.nbytes
            values = ()
        some: Any = values
        plain = len(kinds) == 1 and kinds <= _TEXTS
        self._left -= sum(map(len, some)) if plain else sum(map(_value_bytes, values))
        if self._left < 0:
            raise TooLarge(_too_large(self._limit))


_TEXTS: frozenset[type] = frozenset({str, bytes})
_LONG: frozenset[type] = _TEXTS | {list, dict}


def _too_large(limit: int) -> str:
    return f"its events come to more than {limit} bytes with what the record says once for all of them"


def row_bytes(row: Mapping[str, object]) -> int:
    """Return about how many bytes the texts of a row take in a table of their own."""
    return sum(map(_value_bytes, row.values()))


def _value_bytes(value: Any) -> int:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value)
    if kind is list:
        return sum(map(_value_bytes, value), 8)
    return sum(map(_value_bytes, value.values()), 8) if kind is dict else 0


def plain_bytes(table: pa.Table) -> int:
    """Return the bytes of all values, those of a text that rows share once for each.

    >>> plain_bytes(pa.table({"text": pa.array(["long" * 100, "s", "s"]).dictionary_encode()}))
    402
    """
    return sum(map(_plain, (chunk for column in table.columns for chunk in column.chunks)))


def _plain(column: pa.Array) -> int:
    return text_bytes(column) if pa.types.is_dictionary(column.type) else int(column.nbytes)


def text_bytes(column: pa.DictionaryArray) -> int:
    """Return the bytes of all rows' values, those of one that rows share once for each; of lists at most so many."""
    values, kinds = column.dictionary, pa.types
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    if kinds.is_primitive(values.type) or kinds.is_fixed_size_binary(values.type):
        return len(column) * 16
    text = kinds.is_string(values.type) or kinds.is_large_string(values.type)
    if not (text or kinds.is_binary(values.type) or kinds.is_large_binary(values.type)):
        return int(values.nbytes) * len(column)
    lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return int(lengths[column.indices.drop_null().to_numpy()].sum())
