"""KPL aggregates under a reshard: every event once, whichever of its records the KPL sends again."""

import json
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import SystemClock
from headwater.codec import encode_batch, user_records
from headwater.contract import parse_contract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.misplaced import AWAIT_MS, MOST_AWAITED, REASON, RENEWED_MS, united_awaited
from headwater.stream import HASH_SPACE, StreamRecord, hash_key_of
from tests.kpl import aggregate
from tests.unit.test_upstream import World, read_all

HALF = HASH_SPACE // 2
LOW, HIGH, WHOLE = (0, HALF - 1), (HALF, HASH_SPACE - 1), (0, HASH_SPACE - 1)
CONTRACT = parse_contract(
    "{name: reading, version: 1, key: device, time: ts, fields: "
    "[{name: device, type: string}, {name: ts, type: timestamp}, {name: value, type: long}]}",
    "test",
)
PIPELINE = Pipeline("p", CONTRACT).lake("readings")
START = 1_762_160_400_000


def event(value: int, device: str = "d") -> bytes:
    return json.dumps({"device": device, "ts": START, "value": value}).encode()


def key_in(hash_range: tuple[int, int], number: int = 0) -> str:
    """The n-th text whose MD5 is in the range."""
    found = (f"k{at}" for at in range(1_000_000))
    keys = (key for key in found if hash_range[0] <= hash_key_of(key) <= hash_range[1])
    return next(key for at, key in enumerate(keys) if at == number)


class Reader:
    """A shard's engine, and what it has put into the lake."""

    def __init__(self, hash_range: tuple[int, int] | None = LOW, state: ShardState | None = None) -> None:
        self.state = state or ShardState(PIPELINE)
        self._range, self._at = hash_range, 0
        self.values: list[int] = []
        self.places: list[tuple[str, int]] = []
        self.letters: list[tuple[str, bytes]] = []

    def take(self, *records: tuple[str, bytes], later_ms: int = 0) -> "Reader":
        """Read records, given by partition key and data, in one call."""
        engine = Engine(PIPELINE, "shard-1", self.state, lambda *_: pytest.fail("no references"), self._range)
        made = []
        for key, data in records:
            self._at += 1
            made.append(StreamRecord("shard-1", str(1000 + self._at), START + later_ms, key, data))
        found: Effects = engine.process(made)
        for table in found.lake:
            self.values += table["value"].to_pylist()
            self.places += list(zip(table["_origin"].to_pylist(), table["_seq"].to_pylist(), strict=True))
        self.letters += [(letter.reason, letter.payload) for letter in found.letters]
        return self


INSIDE, OUTSIDE = key_in(LOW), key_in(HIGH)


def test_what_is_outside_goes_to_the_dead_letters_and_what_is_inside_keeps_its_place() -> None:
    """The KPL said of the user records inside that they are delivered; it sends those outside again."""
    users = [(OUTSIDE, event(0)), (INSIDE, event(1)), (OUTSIDE, event(2)), (key_in(LOW, 1), event(3))]
    found = Reader().take((INSIDE, aggregate(*users)))
    assert found.values == [1, 3]
    assert [seq for _, seq in found.places] == [1, 3]
    assert found.letters == [(REASON, event(0) + b"\n" + event(2))]
    assert (found.state.counts["misplaced"], found.state.counts["events"]) == (2, 2)


def test_without_a_range_all_count() -> None:
    """Under the KCL the decision has been made."""
    assert Reader(None).take((INSIDE, aggregate((OUTSIDE, event(0)), (INSIDE, event(1))))).values == [0, 1]


@pytest.mark.parametrize("alone", [False, True])
def test_a_copy_of_what_was_inside_does_not_count(alone: bool) -> None:
    """A KPL that does not know the new shard sends all again, alone or in another aggregate."""
    found = Reader().take((INSIDE, aggregate((INSIDE, event(1)), (OUTSIDE, event(2)))))
    again = event(1) if alone else aggregate((INSIDE, event(1)), (INSIDE, event(5)))
    found.take((INSIDE, again), later_ms=900)
    assert found.values == ([1] if alone else [1, 5])
    assert found.state.counts["resent"] == 1
    assert found.take((INSIDE, event(1)), later_ms=901).values[-1] == 1, "one copy was awaited, and it has come"


def test_equal_events_are_no_copies_of_each_other() -> None:
    """Twice the same bytes in one aggregate are two events, and so many copies do not count."""
    twice = aggregate((INSIDE, event(1)), (INSIDE, event(1)), (OUTSIDE, event(2)))
    found = Reader().take((INSIDE, twice)).take((INSIDE, aggregate((INSIDE, event(1)), (INSIDE, event(1)))))
    assert found.values == [1, 1]


def test_a_copy_is_awaited_for_minutes_and_across_restarts_and_splits() -> None:
    """Snapshots and children have what is awaited; later the same bytes are another event."""
    first = Reader().take((INSIDE, aggregate((INSIDE, event(1)), (OUTSIDE, event(2)))))
    state = ShardState.loads(PIPELINE, first.state.dumps())
    for heir in (state, state.child(PIPELINE)):
        assert Reader(state=heir).take((INSIDE, event(1)), later_ms=AWAIT_MS - 1).values == []
    late = Reader(state=ShardState.loads(PIPELINE, first.state.dumps()))
    assert late.take((INSIDE, event(1)), later_ms=AWAIT_MS).values == [1]


@pytest.mark.parametrize("first", [0, 1])
def test_a_merged_shard_awaits_what_both_parents_did(first: int) -> None:
    """The same bytes twice, and the copies of the parent that is named second no older than those of the first."""
    parents = [Reader(), Reader()]
    for at, one in enumerate(parents):
        users = [(INSIDE, event(1)), (INSIDE, event(10 + at)), (OUTSIDE, event(2))]
        one.take((INSIDE, aggregate(*users)), later_ms=AWAIT_MS // 2 * (at ^ first))
    merged = Reader(state=parents[0].state.child(PIPELINE, parents[1].state))
    merged.state.renewed_ms = None  # the beginning of a child has a rule of its own, which keeps no count
    again = [(INSIDE, event(1)), (INSIDE, event(1)), (INSIDE, event(10)), (INSIDE, event(11)), (INSIDE, event(1))]
    assert merged.take(*again, later_ms=AWAIT_MS // 2).values == [1], "four copies were awaited, and have come"
    late = Reader(state=parents[0].state.child(PIPELINE, parents[1].state))
    assert late.take((INSIDE, event(10 + first)), later_ms=AWAIT_MS + 1).values == [10 + first], "no longer awaited"


def test_what_is_awaited_is_bounded() -> None:
    """However many user records an aggregate has."""
    many = [(INSIDE, event(value)) for value in range(MOST_AWAITED + 5)]
    found = Reader().take((INSIDE, aggregate(*many, (OUTSIDE, event(-1)))))
    assert len(found.state.awaited) == MOST_AWAITED
    assert len(found.values) == MOST_AWAITED + 5


def test_a_broken_aggregate_is_one_dead_letter() -> None:
    """Its tables are not looked into."""
    found = Reader().take((INSIDE, aggregate((INSIDE, event(1)))[:-1] + b"x"))
    assert [reason for reason, _ in found.letters] == ["a KPL aggregate whose checksum is wrong"]


@given(st.integers(0, 2**32), st.sampled_from(["knows the shard", "does not know it", "by chance"]))
def test_every_event_once_whatever_the_kpl_knows(seed: int, kpl: str) -> None:
    """A split under a KPL: aggregates for the parent land on a child, and what the KPL takes for lost comes again."""
    chance = random.Random(seed)
    readers = {LOW: Reader(LOW), HIGH: Reader(HIGH)}
    keys = {value: f"k{chance.randrange(50)}" for value in range(60)}

    def home(value: int) -> tuple[int, int]:
        return LOW if hash_key_of(keys[value]) < HALF else HIGH

    waiting = [chance.sample(range(at, at + 6), 6) for at in range(0, 60, 6)]
    while waiting:
        values = waiting.pop(0)
        shard = home(values[0])  # the first user record says where the aggregate goes
        readers[shard].take((keys[values[0]], aggregate(*((keys[value], event(value)) for value in values))))
        wrong = [value for value in values if home(value) != shard]
        if wrong:
            knows = kpl == "knows the shard" or (kpl == "by chance" and chance.random() < 0.5)
            again = wrong if knows else values
            chance.shuffle(again)
            by_shard = [[value for value in again if home(value) == one] for one in (LOW, HIGH)]
            # now the KPL knows the shards, or a part of them is put together as before
            waiting += [some for some in by_shard if some] if chance.random() < 0.7 else [again]
    assert sorted(readers[LOW].values + readers[HIGH].values) == list(range(60))


@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 4))
def test_every_event_once_until_the_kpl_knows_the_child(seed: int, merge: bool, surprises: int) -> None:
    """A KPL goes on with the shards of before, and sends all again that came to one that it does not know."""
    chance = random.Random(seed)
    before, after = ([LOW, HIGH], [WHOLE]) if merge else ([WHOLE], [LOW, HIGH])
    parents = [Reader(one) for one in before]
    parents[-1].take((INSIDE, aggregate((INSIDE, event(-1)), (INSIDE, event(-2)))))
    states = [one.state for one in parents]
    readers = {one: Reader(one, states[0].child(PIPELINE, *states[1:])) for one in after}
    keys = {value: f"k{chance.randrange(50)}" for value in range(60)}

    def home(value: int, shards: list[tuple[int, int]]) -> tuple[int, int]:
        return next(one for one in shards if one[0] <= hash_key_of(keys[value]) <= one[1])

    waiting = [chance.sample(range(at, at + 6), 6) for at in range(0, 60, 6)]
    while waiting:
        values = waiting.pop(0)
        known = before if surprises else after
        for shard in known:
            mine = [value for value in values if home(value, known) == shard]
            alone = chance.random() < 0.5  # as what has waited for too long
            for some in [[value] for value in mine] if alone else [mine] if mine else []:
                users = [(keys[value], event(value)) for value in some]
                data = users[0][1] if alone else aggregate(*users)
                readers[home(some[0], after)].take((users[0][0], data))
                if known is before:
                    waiting.insert(chance.randrange(2), some)
        surprises -= bool(surprises) and chance.random() < 0.3
    assert sorted(value for reader in readers.values() for value in reader.values) == list(range(60))


def family() -> ShardState:
    """Of a child whose parent had an aggregate."""
    return Reader().take((INSIDE, aggregate((INSIDE, event(-1)), (INSIDE, event(-2))))).state.child(PIPELINE)


def test_equal_events_are_one_at_the_beginning_of_a_child_alone() -> None:
    """For five minutes, and copies of those for fifteen; within one aggregate they are two."""
    pair = (INSIDE, aggregate((INSIDE, event(1)), (INSIDE, event(2))))
    heir = family()
    found = Reader(state=heir).take(pair).take(pair, later_ms=1000)
    assert (found.values, found.state.counts["resent"]) == ([1, 2], 2)
    again = Reader(state=ShardState.loads(PIPELINE, heir.dumps()))
    assert again.take(pair, later_ms=2000).values == []
    assert Reader(state=heir.child(PIPELINE)).take(pair, later_ms=3000).values == [], "and those of its children"
    twice = (INSIDE, aggregate((INSIDE, event(3)), (INSIDE, event(3))))
    assert found.take(twice, (INSIDE, event(4)), (INSIDE, event(4)), later_ms=4000).values[2:] == [3, 3, 4]
    later = (INSIDE, aggregate((INSIDE, event(5)), (INSIDE, event(6))))
    assert found.take(later, later, later_ms=RENEWED_MS).values[5:] == [5, 6, 5, 6]
    alone = [(INSIDE, event(value)) for value in (4, 7, 7)]
    assert found.take(*alone, later_ms=RENEWED_MS).values[9:] == [7, 7]
    assert found.take((INSIDE, event(3)), later_ms=AWAIT_MS + 4000).values[11:] == [3], "no copy comes so late"


@pytest.mark.parametrize("data", [aggregate((INSIDE, event(1)), (INSIDE, event(2))), event(1)])
def test_equal_events_of_others_are_as_many_as_come(data: bytes) -> None:
    """On a shard that no reshard has made, and on a child of shards without an aggregate."""
    plain = Reader().take((INSIDE, event(0))).state
    again = ShardState.loads(PIPELINE, plain.dumps())
    for state in (ShardState(PIPELINE), plain.child(PIPELINE), again.child(PIPELINE)):
        found = Reader(state=state).take((INSIDE, data), (INSIDE, data))
        assert len(found.values) == 2 * len(set(found.values))


def test_a_record_of_our_own_is_no_copy_by_its_bytes() -> None:
    """Its events say themselves which they are, and a control record may be said twice."""
    table = pa.Table.from_pylist([{"device": "d", "ts": START, "value": 1}])
    batch = encode_batch(table.cast(CONTRACT.arrow_schema), CONTRACT, origin="o", first_seq=0)
    found = Reader(state=family()).take((INSIDE, batch), (INSIDE, batch))
    assert (found.values, found.state.counts["duplicates"], found.state.counts.get("resent")) == ([1], 1, None)


def test_copies_of_what_came_to_both_parents_are_known_as_the_later_came() -> None:
    """After a second merge, within fifteen minutes of the later; the oldest are forgotten first."""
    pair = (INSIDE, aggregate((INSIDE, event(1)), (INSIDE, event(2))))
    parents = [Reader(state=family()).take(pair, later_ms=ms) for ms in (60_000, 1000)]
    for one, other in (parents, parents[::-1]):
        heir = one.state.child(PIPELINE, other.state)
        assert sorted(set(heir.renewed.values())) == [START + 60_000]
        assert list(heir.child(PIPELINE).renewed) == list(heir.renewed)
        assert Reader(state=heir).take(pair, later_ms=AWAIT_MS + 59_999).values == []
        assert Reader(state=one.state.child(PIPELINE, other.state)).take(pair, later_ms=AWAIT_MS + 60_000).values == [
            1,
            2,
        ]
    again = Reader(state=family()).take(pair).take((INSIDE, event(1)), (INSIDE, event(3)), later_ms=5)
    assert [at - START for at in again.state.renewed.values()] == [0, 5, 5], "the one that came last is last"


def test_of_both_parents_the_oldest_is_forgotten_first() -> None:
    """By when it came last, not by how many of it are awaited."""
    assert united_awaited([{"both": [9, 1]}, {"both": [5, 1]}]) == {"both": [9, 2]}
    assert list(united_awaited([{"late": [9, 1], "early": [5, 3]}, {"between": [7, 2]}])) == [
        "early",
        "between",
        "late",
    ]


def test_user_records_of_several_events_count_or_not_as_a_whole() -> None:
    """Lines in one user record have its hash key."""
    users = [(OUTSIDE, event(0) + b"\n" + event(1)), (INSIDE, event(2) + b"\n" + event(3)), (INSIDE, event(4))]
    found = Reader().take((INSIDE, aggregate(*users)))
    assert found.values == [2, 3, 4]
    assert found.state.counts["misplaced"] == 1
    assert found.take((INSIDE, event(2) + b"\n" + event(3)), (INSIDE, event(4))).values == [2, 3, 4]


def test_an_invalid_event_is_a_dead_letter_where_it_belongs_and_once() -> None:
    """Outside it comes again to its own shard; a copy of one inside is no second letter."""
    bad, other = b'{"device": "d", "ts": "never", "value": 1}', b'{"device": "d", "ts": "no", "value": 2}'
    found = Reader().take((INSIDE, aggregate((OUTSIDE, other), (INSIDE, bad), (INSIDE, event(3)))))
    assert found.values == [3]
    assert sorted(payload for _, payload in found.letters) == sorted([bad, other])
    assert {payload: reason == REASON for reason, payload in found.letters} == {bad: False, other: True}
    assert len(found.take((INSIDE, bad)).letters) == 2
    assert len(found.take((INSIDE, aggregate((INSIDE, event(3)), (INSIDE, other)))).letters) == 3


def test_outside_records_of_several_kinds_are_kept_as_an_aggregate() -> None:
    """JSON and other bytes cannot be put end to end."""
    ((_, letter),) = (
        Reader().take((INSIDE, aggregate((OUTSIDE, event(0)), (OUTSIDE, b"\xff"), (INSIDE, event(1))))).letters
    )
    assert [one.payload for one in user_records(letter)] == [event(0), b"\xff"]


def test_what_a_child_remembers_of_its_beginning_is_bounded() -> None:
    """However many user records come."""
    found = Reader(state=family())
    found.take((INSIDE, aggregate(*((INSIDE, event(value)) for value in range(MOST_AWAITED + 5)))))
    assert len(found.state.renewed) == MOST_AWAITED


def test_the_embedded_runner_knows_the_range_of_each_shard() -> None:
    """An aggregate of both halves lands on the lower, and the KPL sends the upper's again."""
    world = World(SystemClock())
    kinesis = world.stream(2)
    rows = [b'{"device": "d", "metric": "m", "ts": 1762160400000, "value": %d}' % value for value in range(2)]
    data = aggregate((INSIDE, rows[0]), (OUTSIDE, rows[1]))
    kinesis.put_record(StreamName="s", Data=data, PartitionKey=INSIDE, ExplicitHashKey=str(hash_key_of(INSIDE)))
    kinesis.put_record(StreamName="s", Data=rows[1], PartitionKey=OUTSIDE)
    read_all(world, kinesis, lambda: sum(entry.counts.get("records", 0) for entry in world.ledger.shards()) == 2)
    assert len(world.numbers()) == 2
