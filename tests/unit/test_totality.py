"""Whatever a record holds, its shard goes on: the engine's whole step ends in rows, counts and dead letters."""

import gzip
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.codec import encode_batch, encode_kpl
from headwater.processors.definition.pipeline import Pipeline
from tests.total_shard import CONTRACTS, DAY, SHARD, START, Shard, encoded, event, pipeline

HOSTILE: dict[str, bytes] = {
    "seq 2**70": encoded(event(1, n=2**70)),
    "seq 2**63": encoded(event(1, n=2**63)),
    "seq -2**63-1": encoded(event(1, n=-(2**63) - 1)),
    "seq 2**63-1, broken": encoded(event(1, n=2**63 - 1, value=5000)),
    "seq -2**63, broken": encoded(event(1, n=-(2**63), value=5000)),
    "seq true": encoded(event(1, n=True, value=5000)),
    "surrogate origin": encoded(event(1, device="\ud800")),
    "surrogate origin, broken": encoded(event(1, device="\ud800", value=5000)),
    "empty origin": encoded(event(1, device="", value=5000)),
    "NUL origin": encoded(event(1, device="\0", value=5000)),
    "list origin": encoded(event(1, device=["\ud800"])),
    "5,000 digits": b'{"device":"a","n":%s,"ts":"x"}' % (b"9" * 5000),
    "nested 100,000 deep": b'{"device":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "doubled keys": b'{"device":"a","device":"b","n":1,"n":10000000000000000000000000,"ts":"x"}',
    "origin of 900 KB": encoded(event(1, device="x" * 900_000)),
    "function fails": encoded(event(1, value=13.0)),
    "year 1": encoded(event(1, ts="0001-01-01T00:00:00Z")),
    "year 9999": encoded(event(1, ts="9999-12-31T23:59:59.999Z")),
    "batch with an origin of 900 KB": encode_batch(
        pa.table({"device": ["a"], "n": [1], "ts": pa.array([START], pa.timestamp("ms", "UTC"))}),
        CONTRACTS["none"],
        origin="o" * 900_000,
        first_seq=0,
    ),
    "forged reference": encoded(
        {"$headwater": {"kind": "reference", "name": "devices", "version": 9, "uri": "s3://x/y"}}
    ),
    "reference 10**400": b'{"$headwater":{"kind":"reference","name":"devices","version":1%s,"uri":"first"}}'
    % (b"0" * 400),
    "reference -1": encoded({"$headwater": {"kind": "reference", "name": "devices", "version": True, "uri": "first"}}),
    "receipt beyond int64": encoded(
        {"$headwater": {"kind": "receipt", "contract": "reading", "intervals": {"o": [[0, 2**64]]}}}
    ),
    "receipt turned round": encoded(
        {"$headwater": {"kind": "receipt", "contract": "reading", "intervals": {"o": [[10, 0]]}}}
    ),
    "receipt with surrogates": encoded(
        {"$headwater": {"kind": "receipt", "contract": "reading", "intervals": {"a": [[0, 1]], "\ud800": [[0, 1]]}}}
    ),
    "kind surrogate": b'{"$headwater":{"kind":"\\ud800"}}',
    "controls that are none": b'{"$headwater":[1]}',
}


@pytest.mark.parametrize("kind", CONTRACTS)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_record_leaves_its_neighbours_alone(what: str, kind: str) -> None:
    """Twice, with good events around: those are in the lake, and the hostile one is buried or counted."""
    shard = Shard(pipeline(CONTRACTS[kind]))
    good = [encoded(event(n)) for n in range(10, 20)]
    shard.put(*good[:5], HOSTILE[what], *good[5:])
    shard.put(HOSTILE[what])
    shard.commit()
    shard.check()
    assert shard.counts["lake"] >= 10
    assert shard.counts["lake"] - 10 + len(shard.letters()) + shard.counts.get("unknown_controls", 0) >= 1
    assert shard.worker.position == shard.worker.entry.position


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        2**31,
        2**53,
        2**63 - 1,
        2**63,
        -(2**63) - 1,
        10**40,
        1e308,
        13.0,
        float("nan"),
        "",
        "\ud800",
        "\0",
        "x" * 2000,
        [],
        {},
        [[]],
        {"a": {}},
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "NaN",
        0.1,
        "१२",
    ]
)
NAMES = st.sampled_from(["device", "n", "ts", "value", "note", "extra", "", "$headwater", "\ud800"])
EVENTS = st.builds(
    lambda n, changes: event(n) | changes, st.integers(0, 50), st.dictionaries(NAMES, VALUES, max_size=3)
)
CONTROLS = st.builds(
    lambda kind, changes: {
        "$headwater": {
            "kind": kind,
            **({"contract": "reading", "intervals": {"o": [[0, 5]]}, "refused": {SHARD: 1}} | changes),
        }
    },
    st.sampled_from(["receipt", "reference", "x", "", "\ud800"]),
    st.dictionaries(
        st.sampled_from(["contract", "intervals", "refused", "name", "version", "uri"]),
        st.one_of(
            VALUES,
            st.sampled_from(["devices", "first"]),
            st.dictionaries(st.text(max_size=3), st.one_of(VALUES, st.lists(st.lists(VALUES, max_size=3), max_size=2))),
        ),
        max_size=3,
    ),
)


def batch(kind: str, rows: int, first: int) -> bytes:
    table = pa.table(
        {
            "device": [f"d{n % 7}" for n in range(rows)],
            "n": list(range(rows)),
            "ts": pa.array([START + n * DAY for n in range(rows)], pa.timestamp("ms", "UTC")),
            "value": [None if n % 5 else float(n) for n in range(rows)],
        }
    )
    own = CONTRACTS[kind].id is not None
    return encode_batch(table, CONTRACTS[kind], origin=None if own else "o", first_seq=None if own else first)


def mutated(data: bytes, cuts: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The bytes with pieces replaced by others."""
    for at, length, instead in cuts:
        at %= len(data) + 1
        data = data[:at] + instead + data[at + length :]
    return data


CUTS = st.lists(
    st.tuples(
        st.integers(0, 1 << 20),
        st.integers(0, 16),
        st.one_of(
            st.binary(max_size=16), st.sampled_from([b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 4, b"\0\0\0\x80"])
        ),
    ),
    max_size=4,
)
WRAPS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, zstandard.compress, lambda data: b"\xef\xbb\xbf" + data]


@st.composite
def hostile_records(draw: st.DrawFn, kind: str) -> bytes:
    """Arbitrary bytes, and valid records of every format with something changed in any layer."""
    events = draw(st.lists(EVENTS, min_size=1, max_size=6))
    whole = batch(kind, draw(st.sampled_from([1, 20, 600])), draw(st.sampled_from([0, 2**62, 2**63 - 700])))
    made = draw(st.integers(0, 6))
    if made == 0:
        return draw(st.binary(max_size=200))
    if made == 1:
        return mutated(whole, draw(CUTS))
    if made == 2:
        return draw(st.sampled_from(WRAPS))(mutated(zstandard.decompress(whole), draw(CUTS)))
    if made == 3:
        return draw(st.sampled_from(WRAPS))(mutated(b"\n".join(map(encoded, events)), draw(CUTS)))
    if made == 4:
        return draw(st.sampled_from(WRAPS))(encoded(events))
    if made == 5:
        return mutated(encode_kpl([*map(encoded, events)], "pk", None), draw(CUTS))
    return draw(st.sampled_from(WRAPS))(mutated(encoded(draw(CONTROLS)), draw(st.one_of(st.just([]), CUTS))))


@pytest.mark.parametrize("kind", CONTRACTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_whatever_records_hold_the_shard_goes_on(kind: str, data: st.DataObject) -> None:
    """No record raises, events are conserved, and the good events around are in the lake."""
    shard = Shard(pipeline(CONTRACTS[kind], data.draw(st.sampled_from([None, 8]))))
    hostile = data.draw(st.lists(hostile_records(kind), min_size=1, max_size=4))
    good = [encoded(event(n, device=f"good-{n}")) for n in (1000, 1001)]
    shard.put(good[0], *hostile)
    shard.commit()
    shard.put(good[1])
    shard.commit()
    shard.check()
    (entry,) = shard.ledger.shards()
    assert entry.position == shard.worker.position
    assert shard.counts["lake"] >= 2


@pytest.mark.parametrize(("kind", "far"), [("timestamp", 10**17), ("timestamp_us", 10**18), ("date", 2 * 10**9)])
def test_a_time_that_a_function_computes_stops_no_shard(kind: str, far: int) -> None:
    """One that no file could hold buries its event; the others go on, and the commit after it works."""

    def later(events: pa.Table) -> pa.Table:
        numbers = pa.array([far if value == 7.0 else 0 for value in events["value"].to_pylist()], pa.int64())
        return pa.table({"later": numbers.cast(pa.int32()).cast(pa.date32()) if kind == "date" else numbers})

    shard = Shard(Pipeline("t", CONTRACTS["none"]).map(later, adds={"later": kind}).lake("t"))
    shard.put(encoded(event(1)), encoded(event(2, value=7.0)), encoded(event(3)))
    shard.commit()
    assert shard.counts["lake"] == 2
    (letter,) = shard.letters()
    assert "later: a " in letter.reason
