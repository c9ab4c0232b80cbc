"""Forgetting a key removes exactly the dead letters that have it, whatever they were written as."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec import encode_batch, encode_kpl
from headwater.codec.rows import event_record
from headwater.contract import Contract, parse_contract
from headwater.contract.keyvalues import KeyValue
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.erasure.letters import KeyLetters
from headwater.sinks.deadletter import DeadLetter, DeadLetters
from headwater.testing.objects import MemoryObjects
from tests.typed import a_key, ipc

PLAIN = parse_contract(
    """
{name: c, version: 1, key: device, time: ts, fields: [
  {name: device, type: string, was: [machine]}, {name: ts, type: timestamp}, {name: n, type: long, required: false}]}
""",
    "here",
)
NESTED = parse_contract(
    """
{name: c, version: 1, key: device, time: ts, fields: [
  {name: device, type: string, from: detail.id}, {name: id, type: string, from: device, required: false},
  {name: ts, type: timestamp}]}
""",
    "here",
)
NUMBERED = parse_contract(
    "{name: c, version: 1, key: id, time: ts, fields: [{name: id, type: long}, {name: ts, type: timestamp}]}", "here"
)


def lines(data: bytes) -> list[dict[str, str]]:
    """Read what the stream's writers write: a key and a time."""
    return [dict(zip(("device", "ts"), line.split("\t"), strict=True)) for line in data.decode().splitlines()]


def text(keys: Sequence[str], *, ascii_only: bool = True) -> bytes:
    return b"\n".join(json.dumps({"device": key, "ts": "?"}, ensure_ascii=ascii_only).encode() for key in keys)


def columns(keys: Sequence[str], contract: Contract = PLAIN) -> bytes:
    return encode_batch(pa.table({"device": pa.array(keys), "ts": pa.array([0] * len(keys))}), contract)


EVENTS: dict[str, Callable[[str], bytes]] = {
    "plain": lambda key: text([key]),
    "plain text": lambda key: text([key], ascii_only=False),
    "earlier name": lambda key: json.dumps({"machine": key}).encode(),
    "other fields": lambda key: json.dumps({"device": key, "d1": "d1", "x": ["d1", "dé"]}).encode(),
    "wrapped": lambda key: event_record({"device": key}, flat=False),
    "flat": lambda key: event_record({"device": key}, flat=True),
}
RECORDS: dict[str, Callable[[Sequence[str]], bytes]] = {
    "lines": text,
    "array": lambda keys: json.dumps([{"device": key} for key in keys]).encode(),
    "gzip": lambda keys: gzip.compress(text(keys, ascii_only=False)),
    "columnar": columns,
    "newer": lambda keys: columns(keys, replace(PLAIN, version=9)),
    "KPL": lambda keys: encode_kpl([text([key]) for key in keys], "k", None),
    "KPL of batches": lambda keys: encode_kpl([columns(keys, replace(PLAIN, version=9)), text(["e"])], "k", None),
}
KEYS = st.sampled_from(["d", "d1", "d17", "xd1", "d1-d", "dé", "d\u00e9\u20ac", 'd"1', "d\\1", "d\n1", "😀", "\\u00e9"])
LETTERS = st.lists(
    st.tuples(st.sampled_from(sorted(EVENTS)), KEYS.map(lambda key: [key]))
    | st.tuples(st.sampled_from(sorted(RECORDS)), st.lists(KEYS, min_size=1, max_size=3)),
    max_size=12,
)


def letter(number: int, payload: bytes, index: int | None) -> DeadLetter:
    return DeadLetter("shardId-000000000000", str(10**40 + number), index, "why", None, None, payload, "c", 0)


@settings(max_examples=150, deadline=None)
@given(LETTERS, KEYS)
def test_exactly_the_letters_of_the_key_go(kinds: list[tuple[str, list[str]]], gone: str) -> None:
    """Among keys that contain one another, with escapes; wrapped, compressed, columnar, in aggregates."""
    letters = DeadLetters(MemoryObjects())
    written = [
        letter(at, EVENTS[kind](keys[0]), 0) if kind in EVENTS else letter(at, RECORDS[kind](keys), None)
        for at, (kind, keys) in enumerate(kinds)
    ]
    letters.write("p", written)
    about = KeyLetters(Pipeline("p", contract=PLAIN), a_key("device", gone))
    removed = letters.remove("p", about.has)
    kept = [one for one, (_, keys) in zip(written, kinds, strict=True) if gone not in keys]
    assert list(letters.list("p")) == kept
    assert removed == len(written) - len(kept)
    assert about.doubtful == set()


def found(pipeline: Pipeline, key: str, payload: bytes, index: int | None = 0) -> bool | None:
    """Return whether the letter has the key; None where a person is to decide."""
    contract = pipeline.contract
    about = KeyLetters(pipeline, KeyValue(contract.field(contract.key), key))
    has = about.has(letter(1, payload, index))
    return None if about.doubtful else has


@pytest.mark.parametrize(
    ("payload", "has"),
    [
        (b'{"detail": {"id": "d1"}, "device": "d2", "unknown": 1}', True),
        (b'{"detail": {"id": "d2"}, "device": "d1", "unknown": 1}', False),
        (event_record({"device": "d1", "id": "d2"}, flat=True), True),
        (event_record({"device": "d2", "id": "d1"}, flat=True), False),
    ],
)
def test_the_key_of_an_event_is_where_the_contract_has_it(payload: bytes, has: bool) -> None:
    """Also of an event that is refused for what else is in it, and of one in the contract's own names."""
    assert found(Pipeline("p", contract=NESTED), "d1", payload) is has


def test_a_record_is_read_by_the_pipelines_decoder() -> None:
    """And what a processor has written in place of it, by the contract's names."""
    pipeline = Pipeline("p", contract=PLAIN).decode(lines)
    record = b"d17\t2026-01-01T00:00:00Z\nd2\t?"
    assert [found(pipeline, key, record, None) for key in ("d17", "d2", "d1")] == [True, True, False]
    assert [found(pipeline, key, text(["d17"]), None) for key in ("d17", "d1")] == [True, False]


@pytest.mark.parametrize("value", [b"17", b'"17"', b"17.0"])
def test_a_whole_number_is_a_key_however_it_is_written(value: bytes) -> None:
    """As the contract reads it, and as the text that was refused."""
    pipeline = Pipeline("p", contract=NUMBERED)
    assert found(pipeline, "17", b'{"id": %s}' % value) is True
    assert found(pipeline, "1", b'{"id": %s, "n": 1}' % value) is False


@pytest.mark.parametrize(
    ("payload", "may"),
    [
        (b'{"dev": "d1"}', True),
        (b'{"dev": "d17", "text": "xd1"}', False),
        (b'{"device": null, "of": [{"d1": 1}]}', True),
        (b'{"device": "d1", ', True),
        (b'{"device": "d17", ', False),
        (b'"d1"', True),
        (b"\x08\x04d1\xff", True),
        (b"\x08\x04d7\xff", False),
        (gzip.compress(b'{"device": "d7"}')[:-9], True),
        (b'{"$headwater": {"kind": "event"}}', False),
        (b"[" * 100_000, False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("index", [None, 0])
def test_a_letter_whose_key_cannot_be_read_stays_and_is_named(payload: bytes, may: bool, index: int | None) -> None:
    """When it may be about the key: its text is a whole value in it, or somewhere in bytes, or nobody can look."""
    assert found(Pipeline("p", contract=PLAIN), "d1", payload, index) is (None if may else False)


@pytest.mark.parametrize("payload", [b'{"device": "d\\u00e9", ', '{"device": "dé", '.encode()])
def test_escapes_hide_no_key(payload: bytes) -> None:
    """A broken text is searched as it is written and as it is meant."""
    assert found(Pipeline("p", contract=PLAIN), "dé", payload) is None


SEVEN = UUID(int=7)


@pytest.mark.parametrize("given", [SEVEN, SEVEN.bytes, str(SEVEN).upper()])
def test_a_decoders_row_has_the_key_in_whatever_type_it_gave(given: object) -> None:
    """In its place, and, where that is empty, in another of the row's, which a person looks at."""
    of = parse_contract(
        "{name: c, version: 1, key: id, time: ts, fields: [{name: id, type: uuid}, {name: ts, type: timestamp}]}",
        "here",
    )
    rows: list[dict[str, object]] = [
        {"id": given},
        {"x": given},
        {"x": [given]},
        {"x": (1, given)},
        {"x": {"y": given}},
    ]
    has = [found(Pipeline("p", contract=of), str(SEVEN), event_record(row, flat=False)) for row in rows]
    assert has == [True, None, None, None, None]
    assert found(Pipeline("p", contract=of), str(UUID(int=8)), event_record(rows[0], flat=False)) is False


TIMED = parse_contract(
    "{name: c, version: 1, key: at, time: ts, fields: [{name: at, type: timestamp, epoch: s}, "
    "{name: ts, type: timestamp}]}",
    "here",
)
NOON, FAR = 1_772_366_400, 10**12


@pytest.mark.parametrize(
    ("contract", "key", "column", "has"),
    [
        (PLAIN, "1", pa.array([1, 2]), True),
        (PLAIN, "3", pa.array([1, 2]), False),
        (PLAIN, "1", pa.array([[1], [2]]), False),
        (PLAIN, "2026-03-01", pa.array([FAR], pa.timestamp("s")), False),
        (TIMED, "2026-03-01T12:00Z", pa.array([NOON, None]), True),
        (TIMED, "2026-03-01T12:00Z", pa.array([NOON + 1, None]), False),
        (TIMED, "2026-03-01T12:00Z", pa.array([str(NOON)]), False),
        (TIMED, "2026-03-01T12:00Z", pa.array(["2026-03-01 13:00+01:00"]).dictionary_encode(), True),
        (TIMED, "2026-03-01T12:00Z", pa.array([NOON, FAR], pa.timestamp("s")), None),
        (TIMED, "2026-03-01T12:00Z", pa.array([[NOON]]), None),
    ],
)
def test_a_refused_batch_has_the_key_as_one_of_its_events_would(
    contract: Contract, key: str, column: pa.Array, has: bool | None
) -> None:
    """Whatever the type of its column: where its values are none that can be looked at, a person decides."""
    batch = ipc(pa.table({contract.key: column, "no such field": [1] * len(column)}))
    assert found(Pipeline("p", contract=contract), key, batch, None) is has


AT = parse_contract(
    "{name: c, version: 1, key: at, time: ts, fields: [{name: at, type: timestamp}, {name: ts, type: timestamp}]}",
    "here",
)


@pytest.mark.parametrize(
    ("contract", "key", "broken", "may"),
    [
        (NUMBERED, "7", '{"id":7.0,', True),
        (NUMBERED, "7", "id:7.0 and more", True),
        (NUMBERED, "7", "at 12:07:00 id=8", False),
        (AT, "2026-03-01T12:00Z", "2026-03-01T12:00:00Z,5.3", True),
        (AT, "2026-03-01T12:00Z", "at:2026-03-01 13:00+01:00.", True),
        (AT, "2026-03-01T12:00:00.5Z", "x,2026-03-01T12:00:00,5Z,x", True),
        (AT, "2026-03-01T12:00Z", "2026-03-01T12:00:00,5,x", True),
        (AT, "2026-03-01T12:00Z", '{"at":1772366400000,', True),
        (AT, "2026-03-01T12:00Z", '{"at":1772366401000,"date":"2026-03-01"', False),
        (TIMED, "2026-03-01T12:00Z", '{"at":1772366400,', True),
    ],
)
def test_a_key_that_is_no_text_is_seen_in_a_broken_one(contract: Contract, key: str, broken: str, may: bool) -> None:
    """However it is written there, and whatever stands around it."""
    assert found(Pipeline("p", contract=contract), key, broken.encode(), None) is (None if may else False)
