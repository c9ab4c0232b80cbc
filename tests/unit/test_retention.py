"""Records that expire before they are read: counted as lost, whenever the reader was overtaken, and only then."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock, SystemClock
from headwater.processors.ports import StreamClient
from headwater.processors.runners.kcl.shard import KclShard
from headwater.processors.runners.pages import ReaderSettings, records_of
from headwater.processors.runners.retention import LOST_RANGES
from headwater.processors.runners.shardreader import ReaderStatus, ShardReader
from headwater.stream import list_shards
from headwater.testing.kinesis import MemoryKinesis
from tests.unit.test_upstream import START, World, read_all

HOUR = 3_600.0
RETENTION_HOURS = 24


class Reader:
    """A process that reads the first shard, one record a call, and is started again now and then."""

    def __init__(self, world: World, kinesis: MemoryKinesis, shard: int = 0) -> None:
        self.world, self.kinesis, self.number = world, kinesis, shard
        self.start()

    def start(self) -> None:
        """Claim anew: what the process before had not committed is read again."""
        shard_id = list_shards(self.kinesis, "s")[self.number].shard_id
        self.worker = self.world.claim(self.kinesis, shard_id)
        args = self.kinesis, "s", self.worker, self.world.clock, ReaderSettings(max_records=1)
        self.reader = ShardReader(*args, ReaderStatus(shard_id), retention=lambda: None)
        self.reader.start()

    def step(self) -> None:
        """Read a record, if there is one: the first call may find its iterator expired."""
        if not self.reader.step():
            self.reader.step()

    def to_tip(self) -> None:
        for _ in range(150):
            self.reader.status.lag_ms = None
            if not self.reader.step() and self.reader.status.lag_ms == 0:
                self.worker.commit()
                return
        raise AssertionError("the tip is never reached")

    @property
    def lost(self) -> int:
        return self.worker.engine.state.counts.get(LOST_RANGES, 0)


def one_shard() -> tuple[World, MemoryKinesis]:
    world = World(ManualClock(START))
    return world, world.stream()


def hours(world: World, number: float) -> None:
    world.clock.sleep(number * HOUR)


def test_a_reader_that_lags_while_it_commits_and_then_stands_still() -> None:
    """Its last commit is recent, what it has still to read is not."""
    world, kinesis = one_shard()
    world.put(kinesis, 1, 2, 3)
    hours(world, 20)
    reader = Reader(world, kinesis)
    reader.step()
    reader.worker.commit()
    hours(world, 6)
    world.put(kinesis, 4)
    reader.start()
    reader.to_tip()
    assert world.numbers() == [1, 4]
    assert (reader.lost, world.audited(kinesis).lost) == (1, 1)


def test_a_process_that_stands_still_for_longer_than_the_retention() -> None:
    """Its iterator has expired, and the new one begins with the oldest record."""
    world, kinesis = one_shard()
    world.put(kinesis, 1)
    reader = Reader(world, kinesis)
    reader.to_tip()
    world.put(kinesis, 2, 3)
    hours(world, 26)
    world.put(kinesis, 4)
    reader.to_tip()
    assert (world.numbers(), reader.lost) == ([1, 4], 1)


def test_a_reader_that_is_overtaken_while_it_reads() -> None:
    """Each iterator is fresh, and still retention takes what is before it."""
    world, kinesis = one_shard()
    reader = Reader(world, kinesis)
    for number in range(400):
        world.put(kinesis, number)
        world.clock.sleep(HOUR / 4)
        if number % 3 == 0:
            reader.step()
    read = world.numbers()
    assert read[-1] >= len(read), "records expired unread, or the test shows nothing"
    assert reader.lost


def test_a_shard_of_which_nothing_was_read() -> None:
    """It was claimed, and nobody read it; or its parent was read to the end, and then nobody was there."""
    world, kinesis = one_shard()
    Reader(world, kinesis)
    world.put(kinesis, 1)
    hours(world, 26)
    world.put(kinesis, 2)
    reader = Reader(world, kinesis)
    reader.to_tip()
    assert (world.numbers(), reader.lost) == ([2], 1)


@pytest.mark.parametrize(("idle", "lost"), [(20, 0), (26, 1)])
def test_a_child_that_nobody_read(idle: float, lost: int) -> None:
    """What the parent had is the youngest that was read."""
    world, kinesis = one_shard()
    world.put(kinesis, 1)
    (parent,) = list_shards(kinesis, "s")
    reader = Reader(world, kinesis)
    kinesis.split_shard(StreamName="s", ShardToSplit=parent.shard_id, NewStartingHashKey=str(1 << 127))
    while reader.reader.step() is not None:
        pass
    for number in range(2, 12):
        world.put(kinesis, number)
    hours(world, idle)
    for number in range(12, 22):
        world.put(kinesis, number)
    children = [shard.shard_id for shard in list_shards(kinesis, "s") if not shard.closed]
    numbers = [shard.shard_id for shard in list_shards(kinesis, "s")]
    readers = [Reader(world, kinesis, numbers.index(child)) for child in children]
    for one in readers:
        one.to_tip()
    assert [one.lost for one in readers] == [lost, lost]
    assert (len(world.numbers()) == 21) == (not lost)


def test_a_child_that_was_made_since_has_lost_nothing() -> None:
    """The parent was quiet for days, and has just been split."""
    world, kinesis = one_shard()
    world.put(kinesis, 1)
    (parent,) = list_shards(kinesis, "s")
    reader = Reader(world, kinesis)
    for _ in range(60):
        reader.to_tip()
        hours(world, 1)
    kinesis.split_shard(StreamName="s", ShardToSplit=parent.shard_id, NewStartingHashKey=str(1 << 127))
    while reader.reader.step() is not None:
        pass
    for number in range(2, 12):
        world.put(kinesis, number)
    children = [at for at, shard in enumerate(list_shards(kinesis, "s")) if not shard.closed]
    for child in children:
        one = Reader(world, kinesis, child)
        one.to_tip()
        assert one.lost == 0
    assert len(world.numbers()) == 11


def test_a_longer_retention_is_not_taken_for_the_shortest() -> None:
    """A stream that keeps a week; and lowered to a day under a reader that lags, it is."""
    world, kinesis = one_shard()
    kinesis.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=168)
    for number in range(100):
        world.put(kinesis, number)
        hours(world, 1)
    reader = Reader(world, kinesis)
    for _ in range(50):
        reader.step()
    assert reader.lost == 0
    kinesis.decrease_stream_retention_period(StreamName="s", RetentionPeriodHours=24)
    reader.to_tip()
    assert reader.lost == 1


def test_a_loss_is_counted_although_the_worker_goes_back() -> None:
    """The count is in memory alone until a commit; read again from there, it is made again."""
    world, kinesis = one_shard()
    world.put(kinesis, 1)
    reader = Reader(world, kinesis)
    reader.to_tip()
    world.put(kinesis, 2)
    hours(world, 26)
    world.put(kinesis, 3)
    process, fails = reader.worker.engine.process, iter([True])

    def failing(records: object) -> object:
        if next(fails, False):
            raise ZeroDivisionError("planted")
        return process(records)  # type: ignore[arg-type]  # passed on as it came

    reader.worker.engine.process = failing  # type: ignore[assignment, method-assign]  # a double
    reader.to_tip()
    assert (world.numbers(), reader.lost) == ([1, 3], 1)


def test_the_kcl_is_overtaken_too() -> None:
    """It goes on at the oldest record and says nothing."""
    world, kinesis = one_shard()
    world.put(kinesis, 1, 2)
    shard_id = list_shards(kinesis, "s")[0].shard_id
    shard = KclShard.claim(world.context, StreamClient(kinesis, "s"), shard_id)
    shard.resume("TRIM_HORIZON")

    def deliver(limit: int) -> None:
        iterator = kinesis.get_shard_iterator(StreamName="s", ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")[
            "ShardIterator"
        ]
        answer = kinesis.get_records(ShardIterator=iterator, Limit=limit)
        shard.process(records_of(answer, shard_id), answer["MillisBehindLatest"], lambda _: True)

    deliver(1)
    hours(world, 26)
    world.put(kinesis, 3)
    deliver(10)
    assert shard.worker.engine.state.counts[LOST_RANGES] == 1


def test_the_embedded_runner_counts_it_and_the_shard_goes_on() -> None:
    """Whether the service refuses the number or begins with the oldest record, the audit is not exact."""
    for refuses in (True, False):
        world, kinesis = one_shard()
        world.put(kinesis, 1)
        reader = Reader(world, kinesis)
        reader.to_tip()
        world.put(kinesis, 2, 3)
        hours(world, 26)
        world.put(kinesis, 4)
        if refuses:
            kinesis.shards("s")[0].opened = kinesis.shards("s")[0].records[-1].number
        read_all(world, kinesis, lambda world=world: 4 in world.numbers())  # type: ignore[misc]  # a default binds the loop's variable
        assert world.numbers() == [1, 4]
        report = world.audited(kinesis)
        assert (report.lost, report.exact) == (1, False)


def _days(chance: random.Random) -> Iterator[tuple[str, float]]:
    """What happens, and after how many hours."""
    for _ in range(chance.randint(5, 40)):
        what = chance.choice(["put", "put", "step", "step", "tip", "restart"])
        yield what, chance.choice([0, 0.1, 1, 5, 12, 30]) * chance.random()


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_loss_is_counted_and_nothing_else_is(seed: int) -> None:
    """Whatever expires unread shows; a reader that was at the tip within the retention has lost nothing."""
    chance = random.Random(seed)
    world, kinesis = one_shard()
    reader, put, last_tip, longest = Reader(world, kinesis), 0, 0.0, 0.0
    now = 0.0
    for what, wait in [*_days(chance), ("tip", 0.0)]:
        hours(world, wait)
        now += wait
        if what == "put":
            world.put(kinesis, put)
            put += 1
        elif what == "step":
            reader.step()
        elif what == "tip":
            longest, last_tip = max(longest, now - last_tip), now
            reader.to_tip()
        else:
            if chance.random() < 0.5:
                reader.worker.commit()
            reader.start()
    missing = put - reader.worker.engine.state.counts.get("events", 0)
    assert missing >= 0
    if missing:
        assert reader.lost, f"{missing} of {put} expired unread"
    # a note that the tip was reached is made once an hour
    if longest < RETENTION_HOURS - 1:
        assert not reader.lost


def test_a_reader_at_the_tip_asks_the_stream_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch costs it no call."""
    world = World(SystemClock())
    kinesis = world.stream()
    world.put(kinesis, *range(5))
    reader = Reader(world, kinesis)
    monkeypatch.setattr(kinesis, "get_shard_iterator", lambda **_: pytest.fail("asked"))
    monkeypatch.setattr(kinesis, "list_shards", lambda **_: pytest.fail("asked"))
    reader.to_tip()
    assert world.numbers() == list(range(5))
