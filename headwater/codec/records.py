"""Decode the bytes of a record, whoever wrote them: one decoder for every place that reads a stream.

A user record of a KPL aggregate is decoded as a record of its own with the same bytes would be. Which records a shard
reads, and what becomes of a refused one, is the business of `processors`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
from headwater.codec.bounds import MAX_INVALID, check_containers
from headwater.codec.columnar import OtherContract, decode_batch, is_arrow, is_sealed, read_columns
from headwater.codec.control import Control, decode_control, is_control
from headwater.codec.decoded import Decoded, kept_rows, moved
from headwater.codec.inflate import InflateBudget, is_compressed
from headwater.codec.jsonrows import decode_payloads, event_texts, is_one_object, object_lines
from headwater.codec.kpl import MAGIC, is_kpl, user_payloads
from headwater.codec.rows import EVENT, MAX_EVENTS, Row, Unread, carried, decode_rows, event_record, one_line
from headwater.contract import Contract, InvalidRow, conform
from headwater.contract.written import EXACT
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = [
    "Content",
    "Contents",
    "Decoder",
    "Unit",
    "decode_columns",
    "decode_contents",
    "decode_record",
    "decode_units",
    "decoder_units",
    "is_plain",
    "is_plain_object",
    "json_payloads",
    "row_units",
]

_BOM = b"\xef\xbb\xbf"
_PACKED = b"\x1f\x28\x78"
"""First bytes of gzip, zstd and zlib."""
_BLANK = b" \t\n\r\x0b\f\0\x1e"
"""Bytes that may stand around a text: white space, and the separators that some writers use."""
_MAY_MARK = (b"$", b" ", b"\n", b"")
"""Bytes behind the first quote of a control record: its mark, or what is skipped before it."""
_BROKEN = (pa.ArrowException, ValueError, TypeError, KeyError, OSError, ArithmeticError, RecursionError, MemoryError)
"""Errors that Arrow, zlib and the contract raise over broken bytes; anything else is a bug and shall be seen."""
_MAX_CONTENTS = 1_000
"""Batches and control records in one aggregate: each costs a pass of its own, and no writer that we know makes any."""

_LARGE = 1 << 20
"""Bytes of text in which anything may be: see `check_containers`."""
_MAX_TABLE = 512 << 20
"""Bytes of a decoder's table."""

Decoder = Callable[[bytes], "pa.Table | Iterable[Row | Unread]"]
"""Turns the bytes of a record, or of one user record of an aggregate, into events: a table, or rows by name, in a list
or as they are yielded. May raise anything for what it cannot read. One may have a function `together`, which reads some
records at once as RowColumns, or returns None or raises where not each of them is as most are."""

Content = Decoded | Control | OtherContract


Unit = bytes | Row | Unread
"""One event before it is held to the contract: its JSON text, or a row, or the reason why there is none."""


class Contents(NamedTuple):
    """Hold what a record carries, in order: one content, or several where an aggregate mixes kinds.

    The places in `Decoded.rows` and `InvalidRow.index` count the events of the whole record. `users` holds, for an
    aggregate, the place of the first event of each user record; None where each has one event, and for other records.
    """

    contents: list[Content]
    users: Ints | None = None


def decode_contents(data: bytes, contract: Contract, decoder: Decoder | None = None) -> Contents:
    """Decode all that the record carries. A `decoder` reads what is no control record and no batch of headwater's own.

    Read are: columnar batches, also by other Arrow writers and uncompressed; JSON as objects in any separation, or as
    an array; control records; each plain or under gzip, zlib or zstd, alone or as user records of a KPL aggregate. Of
    an aggregate, a user record that cannot be read is one invalid row. Raise InvalidRecord, with a reason that names
    no place in the stream, for all else; the caller knows the place.
    """
    read = _aggregate if is_kpl(data) else _alone
    return _guarded(lambda: read(data, contract, decoder))


def decode_record(data: bytes, contract: Contract) -> Content:
    """Decode a record that carries one content, as all do but aggregates with batches or control records in them.

    Raise InvalidRecord as `decode_contents` does, and for several contents that are not all foreign events.
    """
    found = decode_contents(data, contract).contents
    if len(found) == 1:
        return found[0]
    if not found:
        return decode_payloads([], contract)
    events = [one for one in found if isinstance(one, Decoded) and one.origin is None]
    if len(events) < len(found):
        raise InvalidRecord("an aggregate of several kinds of content")
    return replace(
        events[0],
        table=pa.concat_tables([one.table.cast(contract.arrow_schema) for one in events]),
        rows=np.concatenate([one.rows for one in events]),
        invalid=tuple(row for one in events for row in one.invalid),
        total=sum(one.total for one in events),
    )


def decode_columns(data: bytes) -> pa.Table:
    """Return the columns of a batch (decompressed), held to no contract. Raise InvalidRecord for broken ones."""
    try:
        return read_columns(data)
    except _BROKEN as error:
        raise InvalidRecord(f"cannot be decoded: {type(error).__name__}: {one_line(error)}") from error


def decode_units(units: Sequence[Unit], contract: Contract) -> Decoded:
    """Decode one event from each unit; all are of one kind. Raise InvalidRecord once `MAX_INVALID` and more are bad."""
    if units and not isinstance(units[0], bytes):
        return decode_rows(cast("Sequence[Row | Unread]", units), contract, most=MAX_INVALID)
    return decode_payloads(cast(Sequence[bytes], units), contract, MAX_INVALID)


def decoder_units(data: bytes, contract: Contract, decoder: Decoder) -> list[Unit] | None:
    """Return what `decode_units` is to read of a record's events, as rows; None for all else, as `json_payloads`."""
    if is_plain(data):
        return _plain_units(data, decoder)
    if is_kpl(data) or is_arrow(data) or not data:
        return None
    try:
        found = _opened(data, contract, InflateBudget(), decoder)
    except (InvalidRecord, InvalidEvent, *_BROKEN):
        return None
    return found if isinstance(found, list) else None


def row_units(data: bytes, read: Decoder) -> list[Unit] | None:
    """Return the rows of a small record, or of an aggregate of such, by `json_row`; None for all else."""
    if not is_kpl(data):
        return _plain_units(data, read) if is_plain_object(data) else None
    try:
        payloads = user_payloads(data)
    except InvalidRecord:
        return None
    found = list[Unit]()
    for payload in payloads:
        rows = row_units(payload, read) if payload[:1] == b"{" else None
        if rows is None:
            return None
        found += rows
    return found or None


def is_plain_object(data: bytes) -> bool:
    """Tell whether the bytes are `is_plain` and begin as a JSON object."""
    return data[:1] == b"{" and is_plain(data)


def is_plain(data: bytes) -> bool:
    """Tell whether the bytes begin as nothing that is read before a decoder is asked; large ones may be anything."""
    if len(data) > _LARGE or not data:
        return False
    if data[0] in _PLAIN_FIRST or (data[:2] == b'{"' and data[2:3] not in _MAY_MARK):
        return True
    return data[0] in _BLANK and data.lstrip(_BLANK)[:1] != b"{"


_PLAIN_FIRST = frozenset(range(256)) - {*_PACKED, *_BLANK, *b"{", *_BOM[:1], 0xFF, MAGIC[0]}
"""First bytes of no compressed content, batch, aggregate or text that may be a control record."""


def _plain_units(data: bytes, decoder: Decoder) -> list[Unit] | None:
    """Return the rows of what is `is_plain`."""
    try:
        found = decoder(data)
    except Exception:  # a user's function may raise anything; `decode_contents` tells
        return None
    if type(found) is not list:
        return None
    if len(found) == 1:
        return cast("list[Unit]", found) if type(found[0]) is dict else None
    return cast("list[Unit]", found) if len(found) <= MAX_EVENTS and set(map(type, found)) <= _ROWS else None


_ROWS: frozenset[type] = frozenset({dict, Unread})


def json_payloads(data: bytes) -> list[Unit] | None:
    """Return what `decode_units` is to read of a small record: objects on lines of their own, or an aggregate of such
    with one each.

    None for all else, and for what cannot be read: `decode_contents` tells why.
    """
    if not is_kpl(data):
        stripped = data.removeprefix(_BOM).strip(_BLANK)
        if is_control(stripped):
            return None
        return [stripped] if is_one_object(stripped) else cast("list[Unit] | None", object_lines(stripped))
    try:
        payloads = user_payloads(data)
        found: list[Unit] = [text for payload in payloads if (text := _object_line(payload)) is not None]
        return found if found and len(found) == len(payloads) else None
    except InvalidRecord:
        return None


def _guarded(decode: Callable[[], Contents]) -> Contents:
    try:
        return decode()
    except InvalidRecord:
        raise
    except InvalidEvent as error:
        raise InvalidRecord(one_line(error)) from error
    except _BROKEN as error:
        raise InvalidRecord(f"cannot be decoded: {type(error).__name__}: {one_line(error)}") from error


def _object_line(data: bytes) -> bytes | None:
    """Return the text of a payload that is one object on one line, and no control record; None for all else."""
    text = data.removeprefix(_BOM).strip(_BLANK)
    return text if is_one_object(text) and not is_control(text) else None


def _alone(data: bytes, contract: Contract, decoder: Decoder | None) -> Contents:
    """Decode what is no aggregate."""
    found = _opened(data, contract, InflateBudget(), decoder)
    return Contents([decode_units(found, contract) if isinstance(found, list) else found])


def _opened(data: bytes, contract: Contract, budget: InflateBudget, decoder: Decoder | None) -> list[Unit] | Content:
    """Return what is no aggregate as units of one event each, or decoded when it is something else."""
    if not data:
        if decoder is not None and getattr(decoder, "reads_empty", False):
            return _decoded(decoder, data, contract)
        raise InvalidRecord("an empty record")
    if data[0] in _PACKED and is_compressed(data):
        data = budget.decompressed(data) if decoder is None else budget.tried(data)
    if is_arrow(data) and (decoder is None or is_sealed(data)):
        return decode_batch(data, contract, foreign=decoder is not None)
    text = data.removeprefix(_BOM).strip(_BLANK)
    if text[:1] == b"{" and is_control(text):
        return _control(text, contract)
    if decoder is not None:
        return _decoded(decoder, data, contract)
    if not text.startswith((b"{", b"[")):
        raise InvalidRecord("neither a batch nor JSON nor a KPL aggregate")
    return list[Unit](event_texts(text))


def _control(text: bytes, contract: Contract) -> Content:
    """Read a control record; one that carries an event is that event."""
    found = decode_control(text)
    if found.kind != EVENT:
        return found
    if contract.exact:  # numbers as they are written
        found = decode_control(text, EXACT)
    flat = found.body.get("flat") is True
    try:
        row = carried(found.body)
    except (ValueError, RecursionError) as error:
        raise InvalidRecord(f"an event that cannot be read: {one_line(error)}") from None
    return decode_rows([row if isinstance(row, dict) else Unread("not a JSON object", text)], contract, flat=flat)


def _decoded(decoder: Decoder, data: bytes, contract: Contract) -> list[Unit] | Content:
    """Run a decoder. Whatever it raises is the record's fault, and what it makes is bounded."""
    try:
        if len(data) > _LARGE and data.lstrip()[:1] in (b"{", b"["):  # most decoders read such bytes as JSON, whole
            check_containers(data)
        found = decoder(data)
        if type(found) is list and len(found) == 1 and type(found[0]) is dict:
            return cast("list[Unit]", found)
        if not isinstance(found, pa.Table):
            found = list(islice(found, MAX_EVENTS + 1))
            if {*map(type, found)} != {dict}:
                found = [one if isinstance(one, Mapping | Unread) else _no_row(one) for one in found]
    except InvalidRecord:
        raise
    except Exception as error:  # a user's function may raise anything
        raise InvalidRecord(f"the decoder fails on it: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(found, pa.Table):
        if len(found) > MAX_EVENTS:
            raise InvalidRecord(f"more than {MAX_EVENTS} events")
        return cast("list[Unit]", found)
    if found.num_rows > MAX_EVENTS or found.nbytes > _MAX_TABLE:
        raise InvalidRecord(f"more than {MAX_EVENTS} events, or {_MAX_TABLE >> 20} MiB of them, in one record")
    found.validate(full=True)
    if contract.selects:
        return list[Unit](found.to_pylist())
    conformed = conform(contract, found.replace_schema_metadata(None), MAX_INVALID)
    rows = found.take(pa.array([row.index for row in conformed.invalid], pa.int64())).to_pylist()
    events = [event_record(row, flat=False) for row in rows]
    invalid = tuple(row._replace(event=event) for row, event in zip(conformed.invalid, events, strict=True))
    kept = kept_rows(found.num_rows, invalid)
    return Decoded(contract.name, contract.version, conformed.table, kept, invalid, found.num_rows)


def _no_row(row: object) -> Unread:
    return Unread(f"the decoder gives a {type(row).__name__} in place of a row", repr(row).encode(errors="replace"))


def _aggregate(data: bytes, contract: Contract, decoder: Decoder | None) -> Contents:
    """Decode each user record. Units of events are read in one pass over all user records up to another content."""
    payloads = user_payloads(data)
    contents: list[Content] = []
    starts = np.zeros(len(payloads), np.int64)
    run = _EventRun(0)
    budget = InflateBudget()
    for at, payload in enumerate(payloads):
        starts[at] = run.stop
        text = _object_line(payload) if decoder is None else None
        found = [text] if text is not None else _user_record(payload, contract, budget, decoder)
        if isinstance(found, InvalidRow):
            run.refuse(found)
        elif isinstance(found, list):
            run.add(found)
        else:
            run.flush(contents, contract)
            contents.append(_moved(found, run.stop))
            run = _EventRun(run.stop + (found.total if isinstance(found, Decoded) else 0))
        if run.stop > MAX_EVENTS or len(contents) > _MAX_CONTENTS:
            raise InvalidRecord(f"more than {MAX_EVENTS} events, or {_MAX_CONTENTS} batches and control records")
    run.flush(contents, contract)
    one_each = bool(np.array_equal(starts, np.arange(len(payloads))))
    return Contents(contents or [decode_payloads([], contract)], None if one_each else starts)


def _user_record(
    payload: bytes, contract: Contract, budget: InflateBudget, decoder: Decoder | None
) -> list[Unit] | Content | InvalidRow:
    """Open one user record; what cannot be read is one invalid row, so that its neighbours count."""
    try:
        if is_kpl(payload):
            raise InvalidRecord("an aggregate within an aggregate")
        return _opened(payload, contract, budget, decoder)
    except (InvalidRecord, InvalidEvent) as error:
        reason = one_line(error)
    except _BROKEN as error:
        reason = f"cannot be decoded: {type(error).__name__}: {one_line(error)}"
    return InvalidRow(0, reason, payload)


class _EventRun:
    """Gather neighbouring events, and refused user records among them, to be read in one pass."""

    def __init__(self, start: int) -> None:
        self.stop = start
        self._start = start
        self._units: list[Unit] = []
        self._places: list[int] = []
        self._refused: list[InvalidRow] = []

    def add(self, units: Sequence[Unit]) -> None:
        """Add units of one event each."""
        self._units += units
        self._places += range(self.stop, self.stop + len(units))
        self.stop += len(units)

    def refuse(self, row: InvalidRow) -> None:
        """Add a user record that cannot be read: it takes one place."""
        self._refused.append(row._replace(index=self.stop))
        self.stop += 1

    def flush(self, contents: list[Content], contract: Contract) -> None:
        """Decode what was gathered, if anything, and append it to the contents."""
        if self.stop == self._start:
            return
        found = decode_units(self._units, contract)
        places = np.asarray(self._places, np.int64)
        invalid = [row._replace(index=self._places[row.index]) for row in found.invalid] + self._refused
        invalid.sort(key=lambda row: row.index)
        rows, total = places[found.rows], self.stop - self._start
        contents.append(replace(found, rows=rows, invalid=tuple(invalid), total=total))


def _moved(found: Content, by: int) -> Content:
    """Return the content with its places counted from the record's beginning."""
    if not by or not isinstance(found, Decoded):
        return found
    invalid = moved(found.invalid, by)
    # the identity of a sealed batch is its first number plus the place, so the first moves the other way
    return replace(found, rows=found.rows + by, invalid=invalid, first_seq=found.first_seq - by)
