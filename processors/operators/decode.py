"""Decode records into one table: each record by itself, the tables of a run of records laid end to end. Pure.

Every string column comes out dictionary-encoded with int32 codes and one dictionary, because the operators behind work
on codes. Whatever a record holds, it is decoded, a `Poison`, or a control record; nothing is raised.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import cast

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, times, whole
from headwater.clock import DAY_MS
from headwater.codec import (
    Content,
    Control,
    Decoded,
    Decoder,
    InvalidRow,
    OtherContract,
    Unit,
    decode_contents,
    decode_units,
    decoder_units,
    event_bodies,
    is_plain,
    is_plain_object,
    json_payloads,
    json_row,
    row_units,
)
from headwater.codec.decoded import moved
from headwater.codec.rows import Arriving, Gathered, Row, Unread, lacks_time, rows_of_each, with_arrival
from headwater.contract import Contract
from headwater.contract.checks import long_texts
from headwater.errors import InvalidRecord
from headwater.processors.engine.bounds import MAX_LETTERS, MAX_ORIGIN_BYTES
from headwater.stream.record import StreamRecord

__all__ = ["Batch", "Found", "Part", "Poison", "combine", "decode"]

_SMALL = 64 << 10
"""Bytes up to which a record is read together with its neighbours; a larger one is worth a pass of its own."""
_AT_ONCE = 10_000
"""Events of one pass, about."""
_RUN, _RUN_BYTES = 128, 256 << 10
"""Records that a decoder reads at once, and their bytes, of which no writer needs less than one for a row."""


@dataclass(frozen=True)
class Part:
    """Hold the events of one record, or of several small ones that were read in one pass: those are all valid.

    `at` is the index in the call of the first of the records; per valid event `record` is the index of its own, and
    `row` the event's place in that. `users` is as in `Contents`, of a part of one record; a record may have several
    parts.
    """

    at: int
    decoded: Decoded
    record: Ints
    row: Ints
    users: Ints | None = None

    def by_record(self) -> "list[Part]":
        """Return a part for each record."""
        starts = np.flatnonzero(np.diff(self.record)) + 1
        if not len(starts):
            return [self]
        out = []
        for start, stop in pairwise([0, *starts.tolist(), len(self.record)]):
            table, rows = self.decoded.table.slice(start, stop - start), self.row[start:stop]
            one = replace(self.decoded, table=table, rows=rows, total=stop - start)
            out.append(Part(int(self.record[start]), one, self.record[start:stop], rows, self.users))
        return out


@dataclass(frozen=True)
class Poison:
    """Hold a record that cannot be decoded, and the reason."""

    at: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """Hold the valid events of several records, in stream order. `record` and `row` say where each came from."""

    table: pa.Table
    record: Ints
    row: Ints
    parts: tuple[Part, ...]


Found = Part | Poison | tuple[int, Control] | tuple[int, OtherContract]


def decode(records: Sequence[StreamRecord], contract: Contract, decoder: Decoder | None = None) -> list[Found]:
    """Return each record's content, in order; neighbours that are small are read in one pass.

    `decoder` is the pipeline's, which reads what others wrote in place of JSON.
    """
    if contract.unknown == "ignore" if contract.selects else decoder is not None:
        return _gathered(records, contract, decoder)
    out: list[Found] = []
    small: list[list[Unit]] = []
    events = 0
    for at, record in enumerate(records):
        units = _units(record, contract, decoder) if len(record.data) <= _SMALL else None
        first = records[at - len(small)]
        if small and (units is None or events >= _AT_ONCE or record.arrived_ms - first.arrived_ms > DAY_MS):
            out += _small(records, at - len(small), small, contract, decoder)
            small, events = [], 0
        if units is None:
            out += _one(at, record, contract, decoder)
        else:
            small.append(units)
            events += len(units)
    return out + _small(records, len(records) - len(small), small, contract, decoder)


def _gathered(records: Sequence[StreamRecord], contract: Contract, decoder: Decoder | None) -> list[Found]:
    """Return what `decode` does, of rows whose fields can be taken one by one."""
    out: list[Found] = []
    rows, first = Gathered(contract), 0
    in_json = json_row(contract)

    def end(at: int) -> None:
        """Add what was gathered of the records up to this one."""
        nonlocal rows, first
        out.extend(_together(records[first:at], first, rows, contract, decoder))
        rows, first = Gathered(contract), at

    for start, stop in _runs(records, is_plain_object if decoder is None else is_plain, 0, len(records)):
        if rows.total >= _AT_ONCE or records[stop - 1].arrived_ms - records[first].arrived_ms > DAY_MS:
            end(start)
        if stop - start > 1:
            each = rows_of_each([record.data for record in records[start:stop]], decoder or in_json, _RUN_BYTES)
            if each is not None and rows.add(each):
                continue
        for at, record in enumerate(records[start:stop], start):
            if rows.total >= _AT_ONCE:  # a decoder may make many rows of few bytes
                end(at)
            units = None
            if len(record.data) <= _SMALL:
                data = record.data
                units = row_units(data, in_json) if decoder is None else decoder_units(data, contract, decoder)
            if units is None or not rows.add([units]):
                end(at)
                out += _one(at, record, contract, decoder)
                first = at + 1
    end(len(records))
    return out


def _runs(
    records: Sequence[StreamRecord], plain: Callable[[bytes], bool], start: int, stop: int
) -> Iterator[tuple[int, int]]:
    """Yield where neighbours begin and end that are all plain, and not too much together; any other is alone."""
    if not 0 < stop - start <= _RUN:
        for at in range(start, stop, _RUN):
            yield from _runs(records, plain, at, min(stop, at + _RUN))
        return
    datas = [record.data for record in records[start:stop]]
    near = records[stop - 1].arrived_ms - records[start].arrived_ms <= DAY_MS
    if stop - start == 1 or (near and sum(map(len, datas)) <= _RUN_BYTES and all(map(plain, datas))):
        yield start, stop
        return
    half = (start + stop) // 2
    yield from _runs(records, plain, start, half)
    yield from _runs(records, plain, half, stop)


def _together(
    records: Sequence[StreamRecord], at: int, rows: Gathered, contract: Contract, decoder: Decoder | None
) -> list[Found]:
    """Return the events that were gathered of these records, from `at` on; where one is invalid, by way of rows."""
    if len(records) < 2:
        return [found for one, record in enumerate(records, at) for found in _one(one, record, contract, decoder)]
    arrivals = [record.arrived_ms for record in records]
    decoded = rows.decoded(arrivals)
    arrived = np.repeat(np.array(arrivals, np.int64), rows.counts)
    if decoded is None or _doubtful(decoded.table, arrived, contract):
        units = [_units(record, contract, decoder) for record in records]
        known = [one for one in units if one is not None]
        if len(known) == len(units):
            return _small(dict(enumerate(records, at)), at, known, contract, decoder)
        return [found for one, record in enumerate(records, at) for found in _one(one, record, contract, decoder)]
    starts = np.cumsum([0, *rows.counts])
    return [_part(at, 0, len(records), starts, decoded)]


def _units(record: StreamRecord, contract: Contract, decoder: Decoder | None) -> list[Unit] | None:
    if decoder is None:
        return json_payloads(record.data)
    return decoder_units(record.data, contract, decoder)


def _one(at: int, record: StreamRecord, contract: Contract, decoder: Decoder | None) -> list[Found]:
    """Return what one record carries, or the reason why it cannot be read whole."""
    try:
        found = decode_contents(record.data, contract, decoder and Arriving(decoder, record.arrived_ms))
        foreign = decoder is not None or contract.selects
        out = [_placed(at, record, one, found.users, contract, foreign=foreign) for one in found.contents]
        invalid = [row for one in out if isinstance(one, Part) for row in one.decoded.invalid]
        if len(invalid) > MAX_LETTERS:
            total = sum(one.decoded.total for one in out if isinstance(one, Part))
            raise InvalidRecord(
                f"{len(invalid):,} of {total:,} events break the contract; the first: {invalid[0].reason}"
            )
    except InvalidRecord as error:
        return [Poison(at, str(error))]
    return out


def _placed(
    at: int, record: StreamRecord, content: Content, users: Ints | None, contract: Contract, *, foreign: bool
) -> Found:
    if isinstance(content, Control):
        return at, content
    if isinstance(content, OtherContract):
        return at, content
    if content.origin is not None and len(content.origin.encode()) > MAX_ORIGIN_BYTES:
        raise InvalidRecord(f"a batch whose origin is longer than {MAX_ORIGIN_BYTES:,} bytes")
    content = _sound(content, record.arrived_ms, contract, foreign=foreign)
    rows = np.asarray(content.rows, np.int64)
    return Part(at, content, np.full(len(rows), at, np.int64), rows, users)


def _sound(decoded: Decoded, arrived_ms: int, contract: Contract, *, foreign: bool) -> Decoded:
    """Return the events with those among the invalid that only their shard can judge: see `_doubtful`.

    `foreign` is for events whose writers do not use the contract's own names.
    """
    bad = _doubtful(decoded.table, np.full(decoded.table.num_rows, arrived_ms, np.int64), contract)
    faulty: Mask = np.logical_or.reduce([*bad.values(), np.zeros(decoded.table.num_rows, np.bool_)])
    if not faulty.any():
        return decoded
    reasons = dict[int, str]()
    for reason, mask in bad.items():
        reasons |= dict.fromkeys(np.flatnonzero(mask).tolist(), reason)
    events = event_bodies(decoded.table.filter(pa.array(faulty)), contract, foreign=foreign)
    places = np.asarray(decoded.rows, np.int64)
    more = [InvalidRow(int(places[at]), reasons[at], event) for at, event in zip(sorted(reasons), events, strict=True)]
    invalid = tuple(sorted([*decoded.invalid, *more], key=lambda row: row.index))
    kept = pa.array(~faulty)
    return replace(decoded, table=decoded.table.filter(kept), rows=places[~faulty], invalid=invalid)


def _doubtful(table: pa.Table, arrived: Ints, contract: Contract) -> dict[str, Mask]:
    """Return the reasons for which events that keep their contract are refused, each with the events it is for.

    An own id may have an origin that is too long to be remembered, and a time may be too far after the arrival of its
    record: then a clock is wrong, and its windows would stay open for as long.
    """
    found: dict[str, Mask] = {}
    field = contract.field(contract.time)
    far = times(table, field.name) - arrived > field.ahead_ms
    if far.any():
        days = f"{field.ahead_ms / DAY_MS:g} days" if field.ahead_ms != DAY_MS else "a day"
        found[
            f"field {field.name}: the time is more than {days} after the record's arrival: is a clock wrong, or the "
            "unit? A contract says with ahead how far a time may be"
        ] = far
    if contract.id is not None and pa.types.is_string(contract.arrow_schema.field(contract.id.origin).type):
        long = long_texts(table.column(contract.id.origin), MAX_ORIGIN_BYTES)
        if long is not None:
            mask = found[f"field {contract.id.origin}: an origin of events has at most {MAX_ORIGIN_BYTES:,} bytes"] = (
                np.zeros(table.num_rows, np.bool_)
            )
            mask[long] = True
    return found


def _small(
    records: Sequence[StreamRecord] | Mapping[int, StreamRecord],
    at: int,
    units: Sequence[list[Unit]],
    contract: Contract,
    decoder: Decoder | None,
) -> list[Found]:
    """Read records from `at` on that are these units. One with an event that breaks the contract is its own part."""

    def alone(first: int, last: int) -> list[Found]:
        return [found for i in range(at + first, at + last) for found in _one(i, records[i], contract, decoder)]

    if len(units) < 2:
        return alone(0, len(units))
    every = [*chain.from_iterable(units)]
    if decoder is not None and lacks_time(every):
        every = [unit for i, one in enumerate(units, at) for unit in _timed(one, records[i].arrived_ms)]
    try:
        decoded = decode_units(every, contract)
    except InvalidRecord:  # more events together than one record may have
        return alone(0, len(units))
    starts = np.cumsum([0, *map(len, units)])
    arrived = np.array([records[i].arrived_ms for i in range(at, at + len(units))], np.int64)
    if _doubtful(decoded.table, arrived[np.searchsorted(starts, decoded.rows, side="right") - 1], contract):
        return alone(0, len(units))
    invalid: dict[int, list[InvalidRow]] = {}
    of = np.searchsorted(starts, [row.index for row in decoded.invalid], side="right") - 1
    for one, row in zip(of.tolist(), decoded.invalid, strict=True):
        invalid.setdefault(one, []).append(row)
    broken = np.zeros(len(units), np.bool_)
    broken[[*invalid]] = True
    none = _part(at, 0, 0, starts, decoded)
    changes = np.flatnonzero(np.diff(broken)) + 1
    out: list[Found] = []
    for first, last in pairwise([0, *changes.tolist(), len(units)]):
        if not broken[first]:
            out.append(_part(at, first, last, starts, decoded))
            continue
        for one in range(first, last):
            if len(invalid[one]) > MAX_LETTERS:
                out += alone(one, one + 1)
                continue
            rows = moved(invalid[one], -int(starts[one]))
            part = none if len(rows) == len(units[one]) else _part(at, one, one + 1, starts, decoded)
            out.append(replace(part, at=at + one, decoded=replace(part.decoded, invalid=rows)))
    return out


def _timed(units: list[Unit], arrived_ms: int) -> list[Unit]:
    return [*with_arrival(cast("list[Row | Unread]", units), arrived_ms)]


def _part(at: int, first: int, last: int, starts: Ints, decoded: Decoded) -> Part:
    """Return the part of the valid events of the records `first` to `last`."""
    begin, stop = np.searchsorted(decoded.rows, starts[[first, last]]).tolist()
    places = decoded.rows[begin:stop]
    record = np.searchsorted(starts, places, side="right") - 1
    whole = replace(decoded, table=decoded.table.slice(begin, stop - begin), rows=places, invalid=())
    return Part(at + first, whole, at + record, places - starts[record])


def combine(parts: Sequence[Part], schema: pa.Schema) -> Batch:
    """Concatenate the parts into one batch; `schema` is the contract's."""
    columns = [_column([part.decoded.table.column(field.name) for part in parts], field.type) for field in schema]
    none = np.zeros(0, np.int64)
    return Batch(
        table=pa.table(columns, names=schema.names),
        record=np.concatenate([none, *(part.record for part in parts)]),
        row=np.concatenate([none, *(part.row for part in parts)]),
        parts=tuple(parts),
    )


def _column(columns: Sequence[pa.ChunkedArray], kind: pa.DataType) -> pa.Array:
    chunks = [chunk for column in columns for chunk in column.chunks if len(chunk)]
    if not pa.types.is_string(kind):
        return whole(pa.chunked_array(chunks, kind))
    if len(chunks) > 1 and all(pa.types.is_dictionary(chunk.type) and not chunk.null_count for chunk in chunks):
        return _united(chunks)
    coded = [_coded(chunk) for chunk in chunks]
    united = pa.chunked_array(coded, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
    return whole(united)


def _united(chunks: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """Return what `unify_dictionaries` returns, in one pass over all dictionaries: faster for many small chunks."""
    dictionaries = [chunk.dictionary for chunk in chunks]
    every = pa.concat_arrays(dictionaries).dictionary_encode()
    place = every.indices.to_numpy()
    codes = np.empty(sum(map(len, chunks)), np.int32)
    at = first = 0
    for chunk, dictionary in zip(chunks, dictionaries, strict=True):
        stop, last = at + len(chunk), first + len(dictionary)
        # codes are always inside the dictionary; "clip" spares numpy's check with a buffered copy
        np.take(place[first:last], chunk.indices.to_numpy(), out=codes[at:stop], mode="clip")
        at, first = stop, last
    return pa.DictionaryArray.from_arrays(pa.array(codes), every.dictionary)


def _coded(chunk: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    if chunk.type.index_type == pa.int32():
        return chunk
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary)
