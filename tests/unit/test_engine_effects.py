"""What the engine makes of records, one kind after the other: rows, letters, counts and sets, to the last of them."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.aggregates import count
from headwater.codec import encode_batch, encode_control, encode_kpl
from headwater.contract import Contract, parse_contract
from headwater.errors import UsageError
from headwater.lineage.origins import HORIZON_MS
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.engine import engine as module
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord

START = 1_762_160_400_000
SHARD = "shardId-000000000001"
TRACE = f"00-{'1' * 32}-{'2' * 16}-01"
FAILS, FILTERED, UNSENT = 13.0, 7.0, 21.0


def contract(more: str = "", most: int = 1_000, name: str = "reading", selected: str = "") -> Contract:
    return parse_contract(
        f"{{name: {name}, version: 1, key: device, time: ts, {more} fields: ["
        f"{{name: device, type: string{selected}}}, {{name: ts, type: timestamp}}, {{name: seq, type: long}},"
        f" {{name: value, type: double, maximum: {most}}}]}}",
        "test",
    )


READING, OUT = contract(), contract(most=100, name="out")
OWN = contract("id: {origin: device, seq: seq},")


def failing(events: pa.Table) -> pa.Table:
    if pc.any(pc.equal(events["value"], FAILS)).as_py():
        raise ValueError("unlucky")
    return pa.table({"twice": pc.multiply(events["value"], 2.0)})


def going(events: pa.Table) -> Any:
    if pc.any(pc.equal(events["value"], UNSENT)).as_py():
        raise KeyError("no answer")
    return pc.less(events["value"], 500)


def pipeline(of: Contract = READING, **options: Any) -> Pipeline:
    made = Pipeline("test", of, **options).map(failing, adds={"twice": "double"})
    made = made.where(lambda events: pc.not_equal(events["value"], FILTERED))
    return made.view("ever", by=["device"], n=count()).to_stream("out", contract=OUT, where=going).lake("readings")


def rows(values: Sequence[float], first: int = 0, device: str = "d") -> list[dict[str, Any]]:
    return [
        {"device": device, "ts": START + 1_000 * at, "seq": at, "value": one} for at, one in enumerate(values, first)
    ]


def batch(values: Sequence[float], first: int = 0, origin: str | None = "p", of: Contract = READING) -> bytes:
    table = pa.Table.from_pylist(rows(values, first), schema=of.arrow_schema)
    return encode_batch(table, of, origin=origin, first_seq=None if origin is None else first, traceparent=TRACE)


def record(at: int, data: bytes, arrived: int = START) -> StreamRecord:
    return StreamRecord(SHARD, str(at), arrived, "k", data)


class Reader:
    """A shard's engine, and all that came of its records."""

    def __init__(self, of: Pipeline | None = None, **options: Any) -> None:
        made = of or pipeline()
        self.state = ShardState(made)
        self.engine = Engine(made, SHARD, self.state, options.pop("load", lambda *_: pytest.fail("none")), **options)
        self.last = Effects()

    def read(self, *datas: bytes, arrived: Sequence[int] = (), first: int = 10) -> "Reader":
        times = arrived or [START] * len(datas)
        records = [record(first + at, data, ms) for at, (data, ms) in enumerate(zip(datas, times, strict=True))]
        self.last = self.engine.process(records)
        return self

    @property
    def lake(self) -> list[tuple[str, int, float]]:
        return [(row["_origin"], row["_seq"], row["value"]) for one in self.last.lake for row in one.to_pylist()]

    @property
    def letters(self) -> list[tuple[str, int | None, str, str | None, int | None]]:
        for one in self.last.letters:
            assert (one.shard_id, one.contract, one.arrived_ms) == (SHARD, "reading", START)
        return [(one.sequence_number, one.index, one.reason, one.origin, one.seq) for one in self.last.letters]

    def numbers(self, name: str, origin: str = "p") -> list[tuple[int, int]]:
        return list(getattr(self.state, name).get(origin))


def test_each_event_of_a_batch_has_one_outcome() -> None:
    found = Reader().read(batch([1, FILTERED, FAILS, 250, UNSENT, 600]))
    assert found.lake == [("p", 0, 1), ("p", 3, 250), ("p", 4, UNSENT), ("p", 5, 600)]
    dead, failed, refused = found.letters
    assert dead == ("10", 2, "ValueError: unlucky", "p", 2)
    assert failed == ("10", 4, "to stream out: KeyError: 'no answer'", "p", 4)
    assert refused[:2] + refused[3:] == ("10", 3, "p", 3)
    assert refused[2].startswith("to stream out: ")
    assert [json.loads(one.payload)["value"] for one in found.last.letters] == [FAILS, UNSENT, 250]
    (made,) = found.last.streams
    assert (made.stream, made.table["value"].to_pylist(), made.record.tolist()) == ("out", [1], [0])
    ((at, keys),) = found.last.keys
    assert (at.tolist(), keys.to_pylist()) == ([0] * 6, ["d"] * 6)
    assert (found.last.traces, found.last.taken, found.last.refused, found.last.forged) == ([TRACE], 1, 0, 0)
    counts = {"records": 1, "events": 6, "filtered": 1, "dead_events": 1, "lake": 4, "to.out": 1, "not_to.out": 2}
    assert found.state.counts == counts
    assert (found.numbers("seen"), found.numbers("excluded"), found.numbers("dead")) == ([(0, 6)], [(1, 3)], [])
    assert (found.state.max_ts, found.state.max_arrived) == (START + 5_000, START)
    assert [len(one) for one in found.state.views.values()] == [1]


def test_copies_are_dropped_and_events_of_others_never() -> None:
    """In one call or several; the first origin that a shard meets is no exception."""
    other = json.dumps(rows([3])[0]).encode()
    filtered = json.dumps(rows([FILTERED])[0]).encode()
    found = Reader().read(batch([1, FILTERED]), other, batch([FILTERED, 2], 1), other, filtered)
    assert found.lake == [("p", 0, 1), (f"{SHARD}:11", 0, 3), ("p", 2, 2), (f"{SHARD}:13", 0, 3)]
    assert len(found.last.lake) == 1, "the records of a call are one table"
    wanted = {"records": 5, "events": 7, "duplicates": 1, "foreign": 3, "filtered": 2, "foreign_excluded": 1}
    assert found.state.counts == wanted | {"lake": 4, "to.out": 4}
    found.read(batch([1, FILTERED]), first=20)
    assert found.lake == []
    assert found.state.counts["duplicates"] == 3
    assert (found.numbers("excluded"), len(found.last.keys[0][0])) == ([(1, 2)], 2)


def test_other_content_under_a_known_identity_is_a_letter() -> None:
    found = Reader().read(batch([1, 2]), batch([5, 2]))
    assert (found.lake, found.state.counts["conflicts"]) == ([("p", 0, 1), ("p", 1, 2)], 1)
    assert [number for number, *_ in found.letters] == ["11"]


def test_invalid_events_are_buried_once_and_stop_no_other() -> None:
    """Lines with nothing that is right, a batch with a wrong event, and one in which nothing is right."""
    good, bad = (json.dumps(rows([one])[0]).encode() for one in (1, 5_000))
    found = Reader().read(bad, b"\n".join([good, bad]), batch([1, 5_000]), batch([5_000], 2), batch([5_000], 2), good)
    assert found.lake == [(f"{SHARD}:11", 0, 1), ("p", 0, 1), (f"{SHARD}:15", 0, 1)]
    assert sorted((number, index, seq) for number, index, _, _, seq in found.letters if seq is not None) == [
        ("12", 1, 1),
        ("13", 0, 2),
    ]
    assert [(number, index) for number, index, _, _, seq in found.letters if seq is None] == [("10", 0), ("11", 1)]
    counts = {"records": 6, "events": 8, "duplicates": 1, "foreign": 4, "foreign_excluded": 2, "dead_events": 4}
    assert found.state.counts == counts | {"lake": 3, "to.out": 3}
    assert found.numbers("excluded") == [(1, 3)]


@pytest.mark.parametrize("own", [False, True])
def test_of_a_good_and_an_invalid_event_of_one_identity_the_first_counts(own: bool) -> None:
    """In one call, also where the record of the second has nothing that is right."""
    good, bad = (json.dumps(rows([value])[0]).encode() if own else batch([value]) for value in (1, 5_000))
    found = Reader(pipeline(OWN) if own else None).read(good, bad)
    assert ([value for _, _, value in found.lake], found.letters, found.state.counts["duplicates"]) == ([1], [], 1)
    found = Reader(pipeline(OWN) if own else None).read(bad, good, good)
    if own:  # it was sent again, put right
        assert [value for _, _, value in found.lake] == [1]
    else:
        assert (found.lake, found.state.counts["duplicates"]) == ([], 2)


def test_the_newest_arrival_of_a_call_counts_and_time_never_goes_back() -> None:
    found = Reader().read(batch([1]), batch([2], 1), batch([3], 2), arrived=[START, START + 5, START + 3])
    assert (found.state.max_arrived, len(found.last.lake)) == (START + 5, 1)
    found.read(batch([4], 3), first=20)
    assert found.state.max_arrived == START + 5


def test_records_that_are_no_events_are_letters_or_counted() -> None:
    found = Reader().read(
        b"\x00\x01",
        batch([1, 2, 3], of=contract(name="another")),
        encode_control("what", {}),
        encode_control("reference", {"name": "sites"}),
        batch([4], 3),
    )
    assert found.lake == [("p", 3, 4)]
    assert [(number, index) for number, index, *_ in found.letters] == [("10", None), ("13", None)]
    assert found.letters[1][2].startswith("a control record of kind 'reference' that makes no sense: ")
    assert found.last.letters[0].payload == b"\x00\x01"
    assert found.last.letters[1].payload == encode_control("reference", {"name": "sites"})
    counts = {"records": 5, "poison_records": 2, "other_contract": 3, "unknown_controls": 1, "controls": 1}
    assert found.state.counts == counts | {"events": 1, "lake": 1, "to.out": 1}


def test_a_record_that_is_buried_unread_is_a_letter() -> None:
    found = Reader()
    found.state.max_arrived = START - 5
    found.last = found.engine.bury(record(10, b"whatever"), "too slow")
    assert (found.letters, found.last.letters[0].payload) == ([("10", None, "too slow", None, None)], b"whatever")
    assert (found.last.taken, found.state.max_arrived) == (1, START)
    assert found.state.counts == {"records": 1, "poison_records": 1}
    found.engine.bury(record(11, b"", START - 1), "too slow")
    assert found.state.max_arrived == START


def test_a_receipt_is_added_where_it_is_of_this_contract() -> None:
    """What it says of refused records counts whatever its contract."""

    def receipt(stop: int, refused: dict[str, int], name: str = "reading") -> bytes:
        return encode_control("receipt", {"contract": name, "intervals": {"p": [[0, stop]]}, "refused": refused})

    found = Reader().read(batch([1]), receipt(3, {SHARD: 4, "another": 9}), receipt(9, {SHARD: 2}, "other"))
    assert (found.last.refused, found.numbers("accepted"), found.letters) == (6, [(0, 3)], [])
    assert found.state.counts["controls"] == 2
    found.read(receipt(3, {}), arrived=[START + 7], first=20)
    assert (found.last.refused, found.state.seen.seen_ms("p"), found.state.accepted.seen_ms("p")) == (
        0,
        START + 7,
        START + 7,
    )
    found.read(receipt(1, {}), arrived=[START + 8 + HORIZON_MS], first=21)
    assert found.numbers("accepted") == [(0, 1)], "what it said of old has gone with the horizon"


def test_a_forged_control_record_changes_nothing_and_is_a_letter() -> None:
    body = {"contract": "reading", "intervals": {"p": [[0, 3]]}, "refused": {SHARD: 4}}
    found = Reader(check_control=lambda control: "by nobody" if control.body.get("refused") else None)
    found.read(encode_control("receipt", body), encode_control("receipt", body | {"refused": {}}))
    assert (found.last.forged, found.last.refused, found.numbers("accepted")) == (1, 0, [(0, 3)])
    reason = "a control record of kind 'receipt' that is forged: by nobody"
    assert found.letters == [("10", None, reason, None, None)]
    assert found.state.counts == {"records": 2, "forged_controls": 1, "poison_records": 1, "controls": 1}


def test_a_new_version_of_a_reference_table_is_in_force_behind_its_record() -> None:
    """If it is ours, newer and there."""
    reference = Reference("sites", "unused.csv", "device", {"site": "string"})
    tables = {"v1": "x", "v2": "y", "s3://b/reference/test/sites/0000000002-0123456789abcdef.parquet": "z"}

    def load(name: str, uri: str) -> ReferenceTable:
        assert name == "sites"
        if uri not in tables:
            raise UsageError(f"{uri} is not there")
        return ReferenceTable.of(reference, pa.table({"device": ["d"], "site": [tables[uri]]}))

    def announced(version: int, uri: str, name: str = "sites") -> bytes:
        return encode_control("reference", {"name": name, "version": version, "uri": uri})

    found = Reader(Pipeline("test", READING).enrich(reference, on="device").lake("readings"), load=load)
    found.state.references = {"sites": {"version": 1, "uri": "v1"}}
    found.read(batch([1]), announced(2, "v2"), batch([2], 1), announced(1, "v1"), batch([3], 2))
    assert [one["site"].to_pylist() for one in found.last.lake] == [["x"], ["y"], ["y"]]
    foreign = "s3://b/reference/other/sites/0000000003-0123456789abcdef.parquet"
    found.read(announced(3, "gone"), announced(3, foreign), announced(9, "v1", "unknown"), batch([4], 3), first=20)
    assert [one["site"].to_pylist() for one in found.last.lake] == [["y"]]
    assert [(number, reason) for number, _, reason, _, _ in found.letters] == [
        ("20", "a control record of kind 'reference' that makes no sense: gone is not there")
    ]
    assert (found.state.counts["other_pipeline"], found.state.counts["controls"]) == (1, 4)
    assert found.state.references == {"sites": {"version": 2, "uri": "v2"}}


def test_a_dead_event_of_an_own_id_may_come_again() -> None:
    """Within one call as well; then it is in the lake, once, and revived."""
    of = pipeline(OWN)

    def own(*events: tuple[int, float]) -> bytes:
        made = [{"device": "d", "ts": START, "seq": seq, "value": value} for seq, value in events]
        return encode_kpl([json.dumps(one).encode() for one in made], "k", None)

    assert len(Reader(of).read(own((0, 1)), own((1, 2)), own((2, 1), (3, 1))).last.lake) == 1
    found = Reader(of).read(own((0, 1), (1, FAILS), (2, 5_000)))
    assert found.lake == [("d", 0, 1)]
    assert [(index, origin, seq) for _, index, _, origin, seq in found.letters] == [(1, "d", 1), (2, "d", 2)]
    assert (found.numbers("dead", "d"), found.numbers("excluded", "d")) == ([(1, 3)], [(1, 3)])
    found.read(own((1, FAILS)), own((1, 4)), own((1, 4), (2, 5_000)), own((2, 6), (2, 6), (0, 1)), first=20)
    assert found.lake == [("d", 1, 4), ("d", 2, 6)]
    assert [(number, seq) for number, _, _, _, seq in found.letters] == [("20", 1), ("22", 2)]
    assert (found.numbers("dead", "d"), found.numbers("revived", "d")) == ([(1, 3)], [(1, 3)])
    assert found.state.counts["revived"] == 2
    found.read(own((1, 4), (2, 6), (3, 8)), first=30)
    assert (found.lake, found.state.counts["revived"]) == ([("d", 3, 8)], 2)
    both = Reader(of).read(own((5, FAILS)), own((5, 2)), own((6, 1), (6, 1)), own((5, 3)))
    assert (both.lake, both.numbers("revived", "d")) == ([("d", 5, 2), ("d", 6, 1)], [(5, 6)])
    sites = Reference("sites", "unused.csv", "device", {"site": "string"})
    table = ReferenceTable.of(sites, pa.table({"device": ["d"], "site": ["x"]}))
    of = Pipeline("test", OWN).enrich(sites, on="device").map(failing, adds={"twice": "double"}).lake("readings")
    both = Reader(of, load=lambda *_: table)
    both.state.references = {"sites": {"version": 1, "uri": "v1"}}
    assert both.read(own((5, FAILS)), own((5, 2)), own((5, 3))).lake == [("d", 5, 2)]


def test_functions_are_not_called_for_no_events() -> None:
    """What all others have left out goes on as an empty table, whose columns are there."""
    sites = Reference("sites", "unused.csv", "device", {"site": "string"})
    table = ReferenceTable.of(sites, pa.table({"device": ["d"], "site": ["x"]}))

    def never(events: pa.Table) -> pa.Table:
        raise ValueError(f"{len(events)} events")

    of = Pipeline("test", READING).where(lambda events: pc.less(events["value"], 0)).enrich(sites, on="device")
    of = of.map(never, adds={"twice": "double"}).where(lambda events: never(events)).lake("readings")
    found = Reader(of, load=lambda *_: table)
    found.state.references = {"sites": {"version": 1, "uri": "v1"}}
    found.read(batch([1, 2]))
    assert (found.lake, found.letters, found.state.counts["filtered"]) == ([], [], 2)
    assert {"site", "twice"} < set(found.last.lake[0].column_names)


def test_user_records_of_one_aggregate_come_one_after_the_other() -> None:
    """Whatever they are: the second is the first put right."""
    made = {"device": "d", "ts": START, "seq": 5}
    sealed = encode_batch(pa.Table.from_pylist([made | {"value": 2.0}], schema=OWN.arrow_schema), OWN)
    found = Reader(pipeline(OWN)).read(encode_kpl([json.dumps(made | {"value": FAILS}).encode(), sealed], "k", None))
    assert (found.lake, found.numbers("revived", "d")) == ([("d", 5, 2)], [(5, 6)])
    assert [(reason, seq) for _, _, reason, _, seq in found.letters] == [("ValueError: unlucky", 5)]


@pytest.mark.parametrize("past_ms", [0, 1])
def test_an_origin_is_new_again_after_the_horizon(past_ms: int) -> None:
    """In one call and in two, to the millisecond, with all that is known of it."""
    later = START + HORIZON_MS + past_ms
    for calls in (1, 2):
        found = Reader()
        datas = [batch([1, FILTERED]), batch([1, FILTERED])]
        if calls == 2:
            found.read(datas[0]).read(datas[1], arrived=[later], first=20)
        else:
            found.read(*datas, arrived=[START, later])
            assert len(found.last.lake) == 1 + past_ms, "within the horizon they are one table"
        assert found.state.counts.get("duplicates", 0) == (0 if past_ms else 2)
        assert found.state.counts["lake"] == 1 + past_ms
    found.read(batch([5], 9), arrived=[later + HORIZON_MS + 1], first=30)
    assert (found.numbers("seen"), found.numbers("excluded")) == ([(9, 10)], [])


def test_what_is_late_is_decided_by_the_records_before_and_no_clock_that_runs_ahead() -> None:
    of = Pipeline("test", READING, max_future="10s", allowed_lateness="1s")
    of = of.view("minutes", by=["device"], window=tumbling("1m"), n=count()).lake("readings")

    def at(*seconds: int) -> bytes:
        made = [{"device": "d", "ts": START + 1_000 * one, "seq": 0, "value": 1.0} for one in seconds]
        return b"\n".join(json.dumps(one).encode() for one in made)

    found = Reader(of).read(at(60, 0), at(61, 30), b"\x00", at(59), at(121, 119), at(120, 119), arrived=[2 * START] * 6)
    assert (found.state.counts["late.minutes"], found.state.max_ts) == (2, START + 121_000)
    found = Reader(of).read(at(100_000, 5), at(59), at(61), at(58), arrived=[START + 50_000] * 4)
    assert (found.state.counts.get("late.minutes", 0), found.state.max_ts) == (0, START + 60_000)
    found.read(at(61), at(59), arrived=[START + 51_000] * 2, first=20)
    assert (found.state.counts["late.minutes"], found.state.max_ts) == (1, START + 61_000)
    found.read(at(3), first=30)
    assert (found.state.counts["late.minutes"], found.state.max_ts) == (2, START + 61_000)


def test_a_call_ends_before_the_record_that_has_more_to_bury_than_a_commit_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first record is always taken, so the shard goes on."""
    bad = b"\n".join([json.dumps(rows([5_000])[0]).encode()] * 3)
    for most, taken in ((6, 3), (5, 1), (2, 1)):
        monkeypatch.setattr(module, "MAX_LETTERS", most)
        found = Reader().read(bad, bad, batch([1]))
        assert (found.last.taken, len(found.letters), found.state.counts["records"]) == (
            taken,
            min(taken, 2) * 3,
            taken,
        )


@pytest.mark.parametrize("selects", [False, True])
def test_a_dead_event_is_a_record_that_can_be_put_again(selects: bool) -> None:
    """Where the contract looks for fields elsewhere, in the contract's own names, which the reader knows as such."""
    of = contract("unknown: ignore,", selected=", from: item.device") if selects else READING
    event = rows([FAILS])[0]
    found = Reader(pipeline(of)).read(
        json.dumps(event | {"item": {"device": "d"}}).encode() if selects else batch([FAILS])
    )
    (letter,) = found.last.letters
    assert ("$headwater" in json.loads(letter.payload)) == selects
    again = Reader(Pipeline("test", of).lake("readings")).read(letter.payload)
    assert [value for _, _, value in again.lake] == [FAILS]


def test_an_empty_call_changes_nothing() -> None:
    found = Reader().read(batch([1]))
    before = found.state.dumps()
    found.read()
    assert (found.lake, found.letters, found.last.taken, found.state.dumps()) == ([], [], 0, before)
