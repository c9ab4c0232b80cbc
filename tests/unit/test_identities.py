"""Who an event is: by its session and number, by its own id, or by its place; and which of several copies is new."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater.codec import Decoded, InvalidRow
from headwater.contract import Contract, load_contract, parse_contract
from headwater.lineage.origins import OriginSets
from headwater.processors.engine.bounds import MAX_ORIGIN_BYTES
from headwater.processors.operators.decode import Batch, Part
from headwater.processors.operators.dedupe import Identities, first_copies, identify, invalid_identities
from headwater.stream.record import StreamRecord

TELEMETRY = load_contract("telemetry")
OWN = parse_contract(
    "{name: a, version: 1, key: o, time: t, id: {origin: o, seq: s}, fields: [{name: o, type: string},"
    " {name: t, type: timestamp}, {name: s, type: long}, {name: v, type: double, required: false}]}",
    "test",
)
UNIQUE = parse_contract(
    "{name: a, version: 1, key: o, time: t, id: {origin: o}, fields: [{name: o, type: string},"
    " {name: t, type: timestamp}]}",
    "test",
)
RECORDS = [StreamRecord("shard-1", str(70 + at), 0, "k", b"") for at in range(5)]


def found(table: pa.Table, origin: str | None = None, first: int = 0, *invalid: InvalidRow) -> Decoded:
    return Decoded("a", 1, table, np.arange(table.num_rows), invalid, table.num_rows + len(invalid), origin, first)


def part(at: int, records: list[int], rows: list[int], origin: str | None = None, first: int = 0) -> Part:
    table = pa.table({"value": pa.array([0.0] * len(rows), pa.float64())})
    return Part(at, found(table, origin, first), np.array(records, np.int64), np.array(rows, np.int64))


def batch(*parts: Part) -> Batch:
    table = pa.concat_tables([one.decoded.table for one in parts])
    record, row = (np.concatenate([getattr(one, name) for one in parts]) for name in ("record", "row"))
    return Batch(table, record, row, parts)


def names(identities: Identities) -> list[tuple[Any, int, int]]:
    columns = identities.origin.to_pylist(), identities.seq.tolist(), identities.codes.tolist()
    return list(zip(*columns, strict=True))


def test_events_of_sessions_have_their_numbers_and_those_of_others_their_place() -> None:
    """A part may have many records of others, and a batch none of whose events is valid lies between."""
    seen = OriginSets()
    seen.codes(["x", "q"])
    parts = (
        part(0, [0, 0], [0, 2], "p", 40),
        part(1, [1, 1, 2], [0, 1, 0]),
        part(2, [], [], "nobody", 9),
        part(3, [3], [5], "q", 7),
        part(4, [4], [1], "p", 100),
    )
    assert names(identify(batch(*parts), RECORDS, TELEMETRY, seen)) == [
        ("p", 40, 2),
        ("p", 42, 2),
        ("shard-1:71", 0, -1),
        ("shard-1:71", 1, -1),
        ("shard-1:72", 0, -1),
        ("q", 12, 1),
        ("p", 101, 2),
    ]
    assert names(identify(batch(part(0, [0], [3])), RECORDS, TELEMETRY, seen)) == [("shard-1:70", 3, -1)]
    assert names(identify(batch(part(0, [], [], "p", 4)), RECORDS, TELEMETRY, seen)) == []
    assert len(seen) == 4


@pytest.mark.parametrize("coded", [False, True])
def test_own_ids_are_in_the_events(coded: bool) -> None:
    seen = OriginSets()
    seen.codes(["b"])
    origin = pa.array(["a", "b", "a"])
    table = pa.table({"o": origin.dictionary_encode() if coded else origin, "s": pa.array([5, -3, 1 << 62])})
    one = Batch(table, np.zeros(3, np.int64), np.arange(3), ())
    assert names(identify(one, RECORDS, OWN, seen)) == [("a", 5, 1), ("b", -3, 0), ("a", 1 << 62, 1)]


def test_an_id_without_a_number_is_number_0() -> None:
    seen = OriginSets()
    one = Batch(pa.table({"o": ["u", "w", "u"]}), np.zeros(3, np.int64), np.arange(3), ())
    assert names(identify(one, RECORDS, UNIQUE, seen)) == [("u", 0, 0), ("w", 0, 1), ("u", 0, 0)]


def test_the_first_copy_is_new_and_events_of_others_always_are() -> None:
    seen = OriginSets()
    codes = seen.codes(["o", "p"])
    assert codes.tolist() == [0, 1]

    def new(codes: list[int], seqs: list[int]) -> list[bool]:
        origin = pa.array(["-"] * len(codes)).dictionary_encode()
        identities = Identities(origin, np.array(seqs, np.int64), np.array(codes, np.int64))
        mask: list[bool] = first_copies(identities, np.full(len(codes), 5, np.int64), seen).tolist()
        return mask

    assert new([0, 1, 0], [3, 3, 3]) == [True, True, False]
    assert new([-1, 0, -1, 0, 1], [3, 3, 3, 4, 3]) == [True, False, True, True, False]
    assert new([-1, -1], [3, 3]) == [True, True]
    assert new([0, 1], [4, 5]) == [False, True]
    assert seen.count() == 4


@pytest.mark.parametrize(("origin", "wanted"), [("p", [("p", 41), ("p", 43)]), (None, [None, None])])
def test_an_invalid_event_of_a_session_has_its_number(origin: str | None, wanted: list[object]) -> None:
    one = found(pa.table({"value": [1.0]}), origin, 40, InvalidRow(1, "no", b"{}"), InvalidRow(3, "no", b"{}"))
    assert invalid_identities(Part(0, one, np.zeros(1, np.int64), np.zeros(1, np.int64)), TELEMETRY) == wanted


def refused(contract: Contract, *events: bytes) -> list[tuple[str, int] | None]:
    rows = [InvalidRow(at, "no", event) for at, event in enumerate(events)]
    one = found(pa.table({"value": list[float]()}), None, 0, *rows)
    return invalid_identities(Part(0, one, np.zeros(0, np.int64), np.zeros(0, np.int64)), contract)


def test_an_invalid_event_has_its_own_id_where_that_is_as_the_contract_says() -> None:
    """Whatever is wrong with the others; a name too long for the state is none."""
    longest = "é" * (MAX_ORIGIN_BYTES // 2)
    events = [
        (b'{"o": "d", "s": 4, "v": "x"}', ("d", 4)),
        (b'{"$headwater": {"flat": true, "row": {"o": "d", "s": 5}}}', ("d", 5)),
        (b'{"$headwater": {"flat": false, "row": {"o": "d", "s": 6}}}', ("d", 6)),
        (b'{"o": "d", "s": "four"}', None),
        (b'{"o": "d"}', None),
        (b'{"s": 4}', None),
        (b'{"o": 7, "s": 4}', None),
        (b'{"o": "", "s": 4}', None),
        (b'["o", "s"]', None),
        (b"no json", None),
        (f'{{"o": "{longest}", "s": 4}}'.encode(), (longest, 4)),
        (f'{{"o": "{longest}x", "s": 4}}'.encode(), None),
    ]
    assert refused(OWN, *(event for event, _ in events)) == [wanted for _, wanted in events]
    assert refused(OWN) == []


def test_an_invalid_event_without_a_number_is_number_0_of_its_id() -> None:
    assert refused(UNIQUE, b'{"o": "u", "t": "never"}', b'{"t": 1}') == [("u", 0), None]


def test_names_that_the_contract_selects_are_looked_for_where_it_says() -> None:
    """In an event as it was written, and not in a row that was decoded before it was refused."""
    contract = parse_contract(
        "{name: a, version: 1, key: o, time: t, id: {origin: o, seq: s}, unknown: ignore, fields: ["
        "{name: o, type: string, from: item.o}, {name: t, type: timestamp}, {name: s, type: long, from: n}]}",
        "test",
    )
    flat = b'{"$headwater": {"flat": true, "row": {"o": "d", "s": 5, "item": {"o": "e"}, "n": 6}}}'
    assert refused(contract, b'{"item": {"o": "e"}, "n": 6, "o": "d", "s": 5}', flat) == [("e", 6), ("d", 5)]
