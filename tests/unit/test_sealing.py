"""Sealing: every event in one batch, numbered without a gap, each record within its limit."""

import random
import string
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.contract import Contract, load_contract, parse_contract
from headwater.errors import UsageError
from headwater.producers.lanes import lane_hash_key, lane_of
from headwater.producers.sealing import BatchSlice, EventGroup, Numbering, SealedBatch, Sealer
from headwater.producers.settings import ProducerSettings
from headwater.stream.hashkeys import HASH_SPACE
from headwater.testing.fleet import Fleet

TELEMETRY = load_contract("telemetry")
OWN = parse_contract(
    """
name: numbered
version: 1
key: device
time: ts
id: {origin: device, seq: seq, partitions: 4}
fields:
  - {name: device, type: string}
  - {name: seq, type: long}
  - {name: ts, type: timestamp}
""",
    "test",
)


def sealer(settings: ProducerSettings | None = None, contract: Contract = TELEMETRY) -> Sealer:
    return Sealer(contract, settings or ProducerSettings(), Numbering("origin"), lambda _: 77)


def put_table(subject: Sealer, table: pa.Table, now: int = 0) -> list[EventGroup]:
    parts = subject.cut_table(table, table.nbytes, lambda count: count)
    for part in parts:
        subject.append(part, now)
    return parts


def put_row(subject: Sealer, row: dict[str, object], now: int = 0) -> None:
    subject.append(subject.cut_row(row, 500, None), now)


def seal_all(subject: Sealer) -> list[tuple[SealedBatch, list[BatchSlice]]]:
    return [pair for buffer in subject.take(0, everything=True) for pair in subject.seal(buffer)]


def read(batch: SealedBatch, contract: Contract = TELEMETRY) -> pa.Table:
    found = decode_record(batch.payload, contract)
    assert isinstance(found, Decoded)
    return found.table.cast(contract.arrow_schema)


def fleet(events: int, seed: int = 1) -> pa.Table:
    return next(Fleet(devices=50, seed=seed).batches(events, events))


@given(st.lists(st.one_of(st.integers(1, 40), st.just(0)), min_size=1, max_size=8), st.integers(1, 60))
def test_tables_and_rows_come_out_in_order_and_numbered_without_a_gap(pieces: list[int], max_events: int) -> None:
    """A piece of 0 stands for a single `put`, between tables of any encoding."""
    subject = sealer(ProducerSettings(max_events=max_events))
    wanted = []
    for seed, size in enumerate(pieces):
        table = fleet(size or 1, seed)
        wanted.append(table.cast(TELEMETRY.arrow_schema))
        if size:
            put_table(subject, table if seed % 2 else wanted[-1])
        else:
            put_row(subject, wanted[-1].to_pylist()[0])
    batches = [batch for batch, _ in seal_all(subject)]
    assert all(batch.count <= max_events for batch in batches)
    assert [batch.first_seq for batch in batches] == [sum(b.count for b in batches[:i]) for i in range(len(batches))]
    assert pa.concat_tables([read(batch) for batch in batches]).equals(pa.concat_tables(wanted))
    assert {batch.explicit_hash_key for batch in batches} == {"77"}


def test_what_does_not_fit_a_record_is_halved_and_parts_know_their_pieces() -> None:
    rng = random.Random(1)
    rows = 64
    noise = ["".join(rng.choices(string.ascii_letters, k=2_000)) for _ in range(rows)]
    table = fleet(rows).cast(TELEMETRY.arrow_schema).set_column(4, "unit", pa.array(noise))
    subject = sealer(ProducerSettings(max_record_bytes=20_000, max_buffer_bytes=1 << 20))
    parts = put_table(subject, table)
    pairs = seal_all(subject)
    assert len(pairs) > 5
    assert all(batch.size <= 20_000 for batch, _ in pairs)
    assert pa.concat_tables([read(batch) for batch, _ in pairs]).equals(table)
    for part in parts:
        assert sum(one.count for _, slices in pairs for one in slices if one.group is part) == part.count


def test_an_event_that_no_record_holds_is_found_before_it_is_accepted() -> None:
    rng = random.Random(1)
    subject = sealer(ProducerSettings(max_record_bytes=20_000, max_buffer_bytes=1 << 20))
    noise = "".join(rng.choices(string.ascii_letters, k=40_000))
    units = pa.array(["V", "x" * 100_000, noise])
    table = fleet(3).set_column(4, "unit", units)
    found = subject.too_large(table)
    assert found is not None
    assert found[0] == 2, "the long text that compresses well is no obstacle"
    assert subject.too_large(table.set_column(4, "unit", units.dictionary_encode())) == found
    assert subject.too_large(table.slice(0, 2)) is None


def test_a_buffer_is_due_when_it_is_full_or_has_lingered() -> None:
    subject = sealer(ProducerSettings(max_events=10, linger_ms=500))
    put_table(subject, fleet(25), now=1_000)
    assert subject.due_ms() == 0
    assert [buffer.count for buffer in subject.take(1_000)] == [10, 10]
    assert subject.due_ms() == 1_500
    assert not subject.take(1_499)
    assert [buffer.count for buffer in subject.take(1_500)] == [5]
    assert subject.due_ms() is None


def test_the_oldest_of_several_lanes_says_when_and_what_waits_is_seen() -> None:
    """Full or open, either counts; a buffer of another lane that came later does not put it off."""
    subject = sealer(ProducerSettings(max_events=10, linger_ms=500), OWN)
    assert not subject.waiting
    lanes = {lane_of(f"d{at}", 4): f"d{at}" for at in range(20)}
    for at, device in enumerate(lanes.values()):
        put_row(subject, {"device": device, "seq": 1, "ts": 1}, now=1_000 + at)
    assert len(lanes) > 1
    assert subject.waiting
    assert subject.due_ms() == 1_500
    full = sealer(ProducerSettings(max_events=10))
    put_table(full, fleet(10))
    assert full.waiting, "one full buffer, and none open"


def test_batches_that_others_sealed_get_the_next_numbers_of_batches() -> None:
    """One after the other, also of a later call; events are numbered by those who sealed them."""
    subject = sealer()
    put_table(subject, fleet(30))
    ((first, _),) = seal_all(subject)
    group = EventGroup(None, None, 30, 0, None)
    found = [[one.batch_id for one, _ in subject.number([first] * count, group)] for count in (2, 3)]
    assert (first.batch_id, found) == (0, [[1, 2], [3, 4, 5]])
    assert subject.numbering.next_seq == 30
    assert [(one.group, one.offset, one.count) for _, (one,) in subject.number([first], group)] == [(group, 0, 30)]
    subject.begin_session("another")
    put_table(subject, fleet(5))
    ((batch, _),) = seal_all(subject)
    assert (batch.batch_id, batch.origin, batch.first_seq) == (7, "another", 0)
    assert batch.size == len(batch.payload) + len(batch.partition_key.encode())


def test_large_events_seal_early() -> None:
    subject = sealer(ProducerSettings(max_record_bytes=1_000, max_buffer_bytes=1 << 20))
    for _ in range(8):
        put_row(subject, fleet(1).to_pylist()[0])
    assert [buffer.count for buffer in subject.take(0)] == [8]


@pytest.mark.parametrize("rows", [True, False])
def test_copies_of_an_event_go_to_one_lane_whoever_puts_them(rows: bool) -> None:
    table = pa.table(
        {"device": [f"d{n % 20}" for n in range(200)], "seq": range(200), "ts": pa.array(range(200))}
    ).cast(OWN.arrow_schema)
    subject = sealer(contract=OWN)
    if rows:
        for row in table.to_pylist():
            put_row(subject, row)
    else:
        put_table(subject, table)
    pairs = seal_all(subject)
    assert len(pairs) == 4
    for batch, _ in pairs:
        found = read(batch, OWN)
        assert {lane_of(device, 4) for device in found["device"].to_pylist()} == {batch.lane}
        assert batch.lane is not None
        assert batch.explicit_hash_key == str(lane_hash_key(batch.lane, 4))
        assert batch.origin is None
        for device in set(found["device"].to_pylist()):
            seqs = [row["seq"] for row in found.to_pylist() if row["device"] == device]
            assert seqs == sorted(seqs)


def test_lanes_never_move() -> None:
    """Written down: another release must place the copies of an event where this one did."""
    assert [lane_of(f"dev-{n:05d}", 16) for n in range(6)] == [5, 13, 15, 3, 10, 10]
    assert lane_hash_key(0, 16) == HASH_SPACE // 32
    assert lane_hash_key(15, 16) == HASH_SPACE - HASH_SPACE // 32


def test_ordered_keeps_keys_on_lanes_with_the_sessions_identity() -> None:
    subject = sealer(ProducerSettings(ordered=True, partitions=3))
    put_table(subject, fleet(600))
    pairs = seal_all(subject)
    assert sorted(batch.lane or 0 for batch, _ in pairs) == [0, 1, 2]
    seqs = [batch.first_seq + row for batch, _ in pairs for row in range(batch.count)]
    assert seqs == list(range(600))


def test_ordered_by_another_key_than_the_id_is_refused() -> None:
    contract = parse_contract(
        "{name: a, version: 1, key: k, time: t, id: {origin: o, seq: s}, fields: [{name: k, type: string},"
        " {name: t, type: timestamp}, {name: o, type: string}, {name: s, type: long}]}",
        "test",
    )
    with pytest.raises(UsageError, match="ordered needs the events' own id to be by the key k"):
        sealer(ProducerSettings(ordered=True), contract)


def test_an_events_own_id_is_kept_for_the_receipt_where_there_is_to_be_one() -> None:
    """Beside the batch: one that comes from a file without it is the same batch."""
    row: dict[str, object] = {"device": "d", "seq": 3, "ts": 1}
    text = replace(OWN, id=replace(OWN.id, seq=None) if OWN.id else None)
    plain = dict[str, Any](fleet(1).to_pylist()[0])
    cases: list[tuple[Contract, dict[str, Any], dict[str, object], bool]] = [
        (OWN, {}, row, True),
        (OWN, {"receipts": False}, row, False),
        (OWN, {"format": "json"}, row, False),
        (text, {}, row, False),
        (TELEMETRY, {}, plain, False),
    ]
    for contract, settings, event, kept in cases:
        subject = sealer(ProducerSettings(**settings), contract)
        put_row(subject, event)
        ((batch, _),) = seal_all(subject)
        assert (batch.ids.to_pylist() if batch.ids is not None else None) == (
            [{"device": "d", "seq": 3}] if kept else None
        )
        assert replace(batch, ids=None) == batch
        assert "ids" not in repr(batch)
        assert (batch.origin, batch.first_seq) == (("origin", 0) if contract is TELEMETRY else (None, 0))


@pytest.mark.parametrize("ordered", [False, True])
def test_ordered_by_the_key_that_the_id_has_is_taken_and_any_id_unordered(ordered: bool) -> None:
    assert sealer(ProducerSettings(ordered=ordered), OWN).lane_field == "device"
    assert sealer(ProducerSettings(ordered=ordered)).lane_field == (TELEMETRY.key if ordered else None)


def test_the_parts_of_calls_know_their_places_in_the_batches() -> None:
    """Each with its share of the call's bytes, and cut where a buffer is full, which others have filled in part."""
    subject = sealer(ProducerSettings(max_events=10))
    put_row(subject, fleet(1).to_pylist()[0])
    first, second = subject.cut_table(fleet(15), 3_000, lambda count: f"{count} events")
    assert [(one.count, one.raw_bytes, one.put, one.lane) for one in (first, second)] == [
        (9, 1_800, "9 events", None),
        (6, 1_200, "6 events", None),
    ]
    for group in (first, second):
        subject.append(group, 0)
    (third,) = subject.cut_table(fleet(4), 800, lambda count: f"{count} events")
    subject.append(third, 0)
    assert third.count == 4
    assert subject.cut_table(fleet(3).slice(0, 0), 0, lambda _: pytest.fail("no events")) == []
    (one, slices), (two, others) = seal_all(subject)
    assert [(a.group is first, a.offset, a.count) for a in slices[1:]] == [(True, 1, 9)]
    assert [(a.offset, a.count) for a in slices] == [(0, 1), (1, 9)]
    assert [(a.group, a.offset, a.count) for a in others] == [(second, 0, 6), (third, 6, 4)]
    assert (one.partition_key, two.partition_key, one.batch_id, two.batch_id) == ("origin", "origin", 0, 1)


def test_the_partition_key_is_the_head_of_a_session_and_the_number_of_a_lane() -> None:
    long = Sealer(TELEMETRY, ProducerSettings(), Numbering("0123456789"), lambda _: 77)
    put_table(long, fleet(5))
    ((batch, _),) = seal_all(long)
    assert (batch.partition_key, batch.lane, batch.explicit_hash_key) == ("01234567", None, "77")
    lane = sealer(contract=OWN)
    put_row(lane, {"device": "d", "seq": 3, "ts": 1})
    ((batch, _),) = seal_all(lane)
    assert (batch.partition_key, batch.lane) == (str(lane_of("d", 4)), lane_of("d", 4))


@pytest.mark.parametrize("halved", [False, True])
def test_parts_of_a_call_that_is_cut_over_records_know_where_they_are(halved: bool) -> None:
    """A part that ends where a record begins is not in that one."""
    rng = random.Random(2)
    noise = ["".join(rng.choices(string.ascii_letters, k=2_000)) for _ in range(8)]
    table = fleet(8).cast(TELEMETRY.arrow_schema).set_column(4, "unit", pa.array(noise))
    subject = sealer(ProducerSettings(max_record_bytes=11_000 if halved else 1 << 20, max_buffer_bytes=1 << 24))
    parts = [part for at in (0, 4) for part in put_table(subject, table.slice(at, 4))]
    found = [[(parts.index(one.group), one.offset, one.count) for one in slices] for _, slices in seal_all(subject)]
    assert found == ([[(0, 0, 4)], [(1, 0, 4)]] if halved else [[(0, 0, 4), (1, 4, 4)]])


@pytest.mark.parametrize("form", ["kpl", "json"])
def test_formats_for_other_readers_carry_the_events_and_no_identity(form: str) -> None:
    subject = sealer(ProducerSettings(format=form))  # type: ignore[arg-type]  # a format by its name
    table = fleet(100)
    put_table(subject, table)
    ((batch, _),) = seal_all(subject)
    assert batch.origin is None
    assert batch.explicit_hash_key == "77"
    assert read(batch).equals(table.cast(TELEMETRY.arrow_schema))
    assert batch.payload != encode_batch(table, TELEMETRY)
