"""Loss told apart from shards that are read at different speeds, over reshards and receipts that are told in part."""

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.ledger import ShardEntry
from headwater.processors.audit.audit import audit
from headwater.processors.audit.report import OriginAudit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState

PIPELINE = Pipeline("p", "telemetry").lake("t")
STEP_MS = 1_000
ORIGIN = "session"


@dataclass
class Shard:
    parents: tuple[str, ...]
    records: list[tuple[int, int | None, int]] = field(default_factory=list)
    """When each arrived; the event, None for a receipt, -1 for what is others'; up to where a receipt tells."""
    closed: bool = False
    read: int = 0
    claimed: bool = False


class Stream:
    """A producer that numbers its events, a stream that loses some of them, and readers that stop anywhere."""

    def __init__(self, shards: int) -> None:
        self.shards = {f"{at:03}": Shard(()) for at in range(shards)}
        self.now_ms = 1_790_000_000_000
        self.events = 0
        self.lost: set[int] = set()
        self.told = 0
        """Up to which event a receipt went on every shard."""

    def open(self) -> list[str]:
        return [name for name, shard in self.shards.items() if not shard.closed]

    def put(self, where: int, *, lost: bool) -> None:
        if lost:
            self.lost.add(self.events)
        else:
            self.add(self.open()[where % len(self.open())], self.events, 0)
        self.events += 1

    def add(self, name: str, event: int | None, upto: int) -> None:
        """A record; the clocks of shards differ by up to 40 s."""
        skew_ms = (int(name) % 3 - 1) * 20_000
        self.shards[name].records.append((self.now_ms + skew_ms, event, upto))

    def tell(self, most: int) -> None:
        for name in self.open()[:most]:
            self.add(name, None, self.events)
        if most >= len(self.open()):
            self.told = self.events

    def traffic(self, where: int) -> None:
        """Of others."""
        self.add(self.open()[where % len(self.open())], -1, 0)

    def split(self, where: int) -> None:
        self._replace((self.open()[where % len(self.open())],), 2)

    def merge(self, where: int) -> None:
        if len(self.open()) > 1:
            at = where % (len(self.open()) - 1)
            self._replace(tuple(self.open()[at : at + 2]), 1)

    def _replace(self, parents: tuple[str, ...], count: int) -> None:
        for name in parents:
            self.shards[name].closed = True
        for _ in range(count):
            self.shards[f"{len(self.shards):03}"] = Shard(parents)

    def read(self, where: int, records: int) -> None:
        """As readers do: a shard when those before it have been read to their ends."""
        shard = list(self.shards.values())[where % len(self.shards)]
        before = [self.shards[name] for name in shard.parents]
        if all(one.claimed and one.closed and one.read == len(one.records) for one in before):
            shard.claimed = True
            shard.read = min(len(shard.records), shard.read + records)

    def audited(self) -> OriginAudit | None:
        entries, states = list[ShardEntry](), dict[str, ShardState]()
        for name, shard in self.shards.items():
            if not shard.claimed:
                continue
            state = ShardState(PIPELINE)
            for parent in shard.parents:
                state = state.child(PIPELINE, states[parent])
            for arrived_ms, event, upto in shard.records[: shard.read]:
                if event is None:
                    state.accepted.add_intervals(ORIGIN, [(0, upto)], arrived_ms)
                elif event >= 0:
                    state.seen.add_intervals(ORIGIN, [(event, event + 1)], arrived_ms)
                state.max_arrived = max(state.max_arrived, arrived_ms)
            states[name] = state
            entries.append(ShardEntry("p", name, 1, "o", closed=shard.closed and shard.read == len(shard.records)))
        listed = {name: shard.parents for name, shard in self.shards.items()}
        report = audit("p", entries, list(states.values()), [], listed=listed)
        return next(iter(report.origins), None)


numbers = st.integers(0, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers, st.booleans()),
        st.tuples(st.just("tell"), st.integers(1, 8), st.just(value=False)),
        st.tuples(st.sampled_from(["traffic", "split", "merge"]), numbers, st.just(value=False)),
        st.tuples(st.just("read"), numbers, st.booleans()),
        st.tuples(st.just("pause"), st.just(120), st.just(value=False)),
    ),
    max_size=40,
)


def played(shards: int, does: list[tuple[str, int, bool]]) -> Stream:
    stream = Stream(shards)
    for what, number, flag in does:
        stream.now_ms += STEP_MS
        if what == "put":
            stream.put(number, lost=flag)
        elif what == "tell":
            stream.tell(number)
        elif what == "pause":
            stream.now_ms += number * STEP_MS
        elif what == "read":
            stream.read(number, 100 if flag else 1)
        elif what == "traffic":
            stream.traffic(number)
        elif len(stream.shards) < 12:
            (stream.split if what == "split" else stream.merge)(number)
    return stream


def numbers_of(intervals: tuple[tuple[int, int], ...]) -> int:
    return sum(stop - start for start, stop in intervals)


def missing(found: OriginAudit | None) -> set[int]:
    return {number for start, stop in found.not_processed for number in range(start, stop)} if found else set()


@settings(max_examples=1_000)
@given(st.integers(1, 3), steps)
@example(
    2,
    [
        ("put", 1, False),
        ("tell", 1, False),
        ("pause", 120, False),
        ("traffic", 0, False),
        ("merge", 0, False),
        ("read", 0, True),
    ],
)
@example(  # the clock of the last shard is ahead
    3,
    [
        *(("traffic", at, False) for at in (1, 2)),
        *(("read", at, True) for at in (1, 2)),
        ("put", 2, False),
        ("tell", 1, False),
        ("read", 0, True),
    ],
)
def test_what_is_not_read_yet_is_never_missing(shards: int, does: list[tuple[str, int, bool]]) -> None:
    stream = played(shards, does)
    found = stream.audited()
    assert missing(found) <= stream.lost
    if found is not None:
        assert len(missing(found)) + numbers_of(found.unread) + found.processed >= (found.accepted or 0)


@settings(max_examples=1_000)
@given(st.integers(1, 3), steps, st.booleans())
def test_what_is_lost_is_named_once_all_is_read(shards: int, does: list[tuple[str, int, bool]], dies: bool) -> None:
    """What a receipt on every shard told of; and of one that its producer died in, once there was traffic after it."""
    stream = played(shards, does)
    if dies:
        stream.now_ms += STEP_MS
        stream.tell(1)
        stream.now_ms += 101 * STEP_MS
        for at in range(len(stream.open())):
            stream.traffic(at)
    for _ in stream.shards:
        for at in range(len(stream.shards)):
            stream.read(at, 1_000)
    found = stream.audited()
    assert missing(found) <= stream.lost
    assert missing(found) >= {number for number in stream.lost if dies or number < stream.told}
    assert not dies or found is None or not found.unread


def test_without_the_stream_everything_accepted_has_to_be_processed() -> None:
    state = ShardState(PIPELINE)
    state.accepted.add_intervals(ORIGIN, [(0, 5)], 0)
    state.seen.add_intervals(ORIGIN, [(0, 2)], 0)
    entry = ShardEntry("p", "000", 1, "o")
    alone = audit("p", [entry], [state], []).origins[0]
    assert (alone.not_processed, alone.unread) == (((2, 5),), ())
    behind = audit("p", [entry], [state], [], listed={"000": (), "001": ()}).origins[0]
    assert (behind.not_processed, behind.unread) == ((), ((2, 5),))
    expired = audit("p", [entry], [state], [], listed={"001": ()}).origins[0]
    assert (expired.not_processed, expired.unread) == (((2, 5),), ())
