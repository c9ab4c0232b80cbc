"""Decode Protobuf messages by a descriptor set, as `protoc --descriptor_set_out` writes it.

Each row has the message's fields under their names in the .proto file: numbers as they are, enums by name, nested
messages as mappings, repeated fields as lists, timestamps as times; a field that is absent is left out where the
message can tell. A field that the descriptors lack has its number as its name: the contract's `unknown` says what
becomes of it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from headwater.codec.records import Decoder
from headwater.codec.rows import MAX_EVENTS, Row, RowColumns, Values
from headwater.contract.conversion import micros_column
from headwater.errors import InvalidRecord, UsageError
from headwater.formats.framing import take_uvarint, unframed

__all__ = ["protobuf"]

_FRAMINGS = ("none", "glue", "confluent", "delimited")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def protobuf(descriptors: bytes | str | Path, message: str, *, framing: str = "none", index: int = 0) -> Decoder:
    """Return a decoder of one Protobuf message type.

    `descriptors` is a FileDescriptorSet with all imports (`protoc --include_imports --descriptor_set_out=FILE`), its
    bytes or its path, and `message` the full name of the type, such as `shop.Order`. `framing` is "none" for one
    message a record, "delimited" for many with their lengths before them, "glue" or "confluent" for the frame of a
    schema registry, behind which the number of the type in its file must be `index`. Raise UsageError for what cannot
    be read.
    """
    if framing not in _FRAMINGS:
        raise UsageError(f"protobuf: framing {framing!r} is none of {', '.join(_FRAMINGS)}")
    return _Messages(_message_class(descriptors, message), framing, index)


class _Messages:
    """Read messages of a class that protobuf has made."""

    def __init__(self, made: Any, framing: str, index: int) -> None:
        self._parse, self._name = made.FromString, made.DESCRIPTOR.full_name
        self._parts, self._framing, self._index = _parts(made.DESCRIPTOR), framing, index

    def __call__(self, data: bytes) -> list[Row]:
        pieces = _delimited(data) if self._framing == "delimited" else [self._message(data)]
        try:
            return [_row(self._parse(piece), self._parts) for piece in pieces]
        except DecodeError as error:
            raise InvalidRecord(f"not a {self._name} in Protobuf: {' '.join(str(error).split())[:200]}") from None

    def together(self, datas: Sequence[bytes]) -> RowColumns | None:
        """Return one row for each of the datas, where that is what each has; an absent field is null."""
        if self._framing == "delimited" or not (self._parts.names or self._parts.others):
            return None
        found = [*map(self._parse, datas if self._framing == "none" else map(self._message, datas))]
        if any(map(len, map(UnknownFieldSet, found))):
            return None
        names, plain, others = self._parts
        values: list[Values] = [*zip(*map(plain, found), strict=True)]
        for name, has_presence, read in others:
            ones = [getattr(one, name) if not has_presence or one.HasField(name) else None for one in found]
            if read is _timestamp:
                micros = [one if one is None else one.seconds * 1_000_000 + one.nanos // 1000 for one in ones]
                values.append(micros_column(micros))
            else:
                values.append([one if one is None else read(one) for one in ones])
        return RowColumns([*names, *(name for name, _, _ in others)], values, [1] * len(found))

    def _message(self, data: bytes) -> bytes:
        if self._framing == "none":
            return data
        return _behind_index(unframed(data, self._framing).message, self._framing, self._index)


def _message_class(descriptors: bytes | str | Path, message: str) -> Any:
    try:
        data = descriptors if isinstance(descriptors, bytes) else Path(descriptors).read_bytes()
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(message))
    except OSError as error:
        raise UsageError(f"protobuf: {descriptors!s:.200}: {error.strerror or error}") from None
    except (DecodeError, TypeError) as error:
        raise UsageError(f"protobuf: no descriptor set with all its imports: {error}") from None
    except KeyError:
        raise UsageError(f"protobuf: the descriptor set has no message {message}") from None


def _delimited(data: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length, at = take_uvarint(data, at)
        if length > len(data) - at:
            raise InvalidRecord("a message that is cut")
        pieces.append(data[at : at + length])
        at += length
        if len(pieces) > MAX_EVENTS:
            raise InvalidRecord(f"more than {MAX_EVENTS} events")
    return pieces


def _behind_index(data: bytes, framing: str, wanted: int) -> bytes:
    """Take off the number of the message type in its file; Confluent writes a list of numbers, zero for the first."""
    found, at = take_uvarint(data, 0)
    if framing == "confluent" and found:
        count = found >> 1  # lists of Confluent's are zigzag numbers
        if count != 1:
            raise InvalidRecord("a message of a type within a type, which the decoder was not made for")
        found, at = take_uvarint(data, at)
        found >>= 1
    if found != wanted:
        raise InvalidRecord(f"a message of the type number {found} of its file; the decoder is made for {wanted}")
    return data[at:]


class _Parts(NamedTuple):
    """Hold how the fields of a message type are read: those of these names as they stand, by one call, and the others
    by a function each where they are there; True for those of which the message can tell whether they are."""

    names: tuple[str, ...]
    plain: Callable[[Any], tuple[Any, ...]]
    others: tuple[tuple[str, bool, Callable[[Any], Any]], ...]


@lru_cache(maxsize=1024)
def _parts(descriptor: Any) -> _Parts:
    """Return the fields of a message type: to ask its descriptor costs more than to read a message."""
    readers = [(one.name, one.has_presence, _reader(one)) for one in descriptor.fields]
    names = tuple(name for name, has_presence, read in readers if read is None and not has_presence)
    get = attrgetter(*names) if names else _nothing
    others = tuple((name, has, read or _same) for name, has, read in readers if name not in names)
    return _Parts(names, (lambda message: (get(message),)) if len(names) == 1 else get, others)


def _nothing(_: Any) -> tuple[Any, ...]:
    return ()


def _same(value: Any) -> Any:
    return value


def _reader(field: Any) -> Callable[[Any], Any] | None:
    kind = field.message_type
    if kind is not None and kind.full_name == "google.protobuf.Timestamp" and not _is_repeated(field):
        return _timestamp
    if kind is not None and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        return lambda entries: {_key(key): _value(inner, one) for key, one in entries.items()}
    if _is_repeated(field):
        return lambda values: [_value(field, one) for one in values]
    return None if kind is None and field.enum_type is None else lambda value: _value(field, value)


def _key(key: object) -> str:
    """Return the key of a map as JSON has it."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def _row(message: Any, parts: _Parts) -> dict[str, Any]:
    row = dict(zip(parts.names, parts.plain(message), strict=True))
    for name, has_presence, read in parts.others:
        if not has_presence or message.HasField(name):
            row[name] = read(getattr(message, name))
    unknown = UnknownFieldSet(message)
    if len(unknown):
        row |= _unknown(unknown)
    return row


def _unknown(fields: Any) -> dict[str, Any]:
    """Return what is in fields that the descriptor lacks, or has in another type, by their numbers: whole numbers,
    bytes, and what is in groups."""
    found: dict[str, list[Any]] = {}
    for one in fields:
        value = one.data if isinstance(one.data, int | bytes) else _unknown(one.data)
        found.setdefault(str(one.field_number), []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _timestamp(value: Any) -> datetime:
    # a timedelta refuses what no datetime holds
    return _EPOCH + timedelta(0, value.seconds, value.nanos // 1000)


def _is_repeated(field: Any) -> bool:
    found = getattr(field, "is_repeated", None)  # `label` is on its way out
    return bool(found) if found is not None else field.label == FieldDescriptor.LABEL_REPEATED


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        known: Mapping[int, Any] = field.enum_type.values_by_number
        return known[value].name if value in known else value
    if field.message_type is None:
        return value
    if field.message_type.full_name == "google.protobuf.Timestamp":
        return _timestamp(value)
    if field.message_type.full_name.startswith("google.protobuf.") and field.message_type.name.endswith("Value"):
        return value.value if hasattr(value, "value") else _row(value, _parts(value.DESCRIPTOR))
    return _row(value, _parts(value.DESCRIPTOR))
