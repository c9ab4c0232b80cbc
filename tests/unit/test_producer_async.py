"""A producer in asyncio: room is awaited, the loop goes on, and a cancelled task loses nothing that was accepted."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.clock import SystemClock
from headwater.errors import BufferFull, HeadwaterError, InvalidEvent, UsageError
from headwater.producers.admission import Admission
from headwater.producers.producer import Producer
from headwater.producers.tracking import DeliveryTracker
from headwater.testing.kinesis import MemoryKinesis
from tests.producer_stream import FakeStream
from tests.producing import QUICK, SMALL, TELEMETRY, event
from tests.streams import memory_stream

INTO = pytest.mark.parametrize("outbox", [False, True], ids=["memory", "outbox"])
"""Where an accepted event is before Kinesis has it."""


def large(name: object) -> dict[str, object]:
    """An event of which some dozens fill the buffer; `name` tells it from others."""
    return event(device=str(name), unit=random.randbytes(300).hex())


def devices(stream: FakeStream) -> Counter[str]:
    return Counter(name for one in stream.decoded(TELEMETRY) for name in one.table["device"].to_pylist())


async def beating(work: Callable[[], Awaitable[Any]]) -> float:
    """The longest time, in seconds, for which the loop was kept from anything else while the work went on."""
    longest, done = 0.0, False

    async def beat() -> None:
        nonlocal longest
        while not done:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - before)

    heart = asyncio.create_task(beat())
    await work()
    done = True
    await heart
    return longest


@INTO
def test_an_event_is_accepted_then_delivered(outbox: bool, tmp_path: Path) -> None:
    kinesis: MemoryKinesis = memory_stream(2, SystemClock())
    box = tmp_path / "events.db" if outbox else None

    async def main() -> list[int]:
        async with Producer("s", TELEMETRY, client=kinesis, settings=QUICK, outbox=box) as producer:
            with pytest.raises(InvalidEvent, match="value"):
                await producer.aput(event(value="much"))
            deliveries = [await producer.aput(event(device=str(at))) for at in range(50)]
            assert producer.stats.accepted == 50
            receipts = await asyncio.gather(*deliveries)
            await producer.aflush()
        assert producer.stats.delivered == 50
        with pytest.raises(UsageError, match="closed"):
            await producer.aput(event())
        await producer.aclose()
        return sorted(receipt.first_seq for receipt in receipts)

    assert asyncio.run(main()) == list(range(50))


@INTO
def test_room_is_awaited_and_the_loop_goes_on(outbox: bool, tmp_path: Path) -> None:
    """A thousand tasks at a stream that takes nothing for a while: memory is bounded, and all of it is delivered."""
    stream = FakeStream()
    stream.gate.clear()
    box = tmp_path / "events.db" if outbox else None
    events = 200 if outbox else 1_000

    async def main() -> None:
        async with Producer("s", TELEMETRY, client=stream, settings=SMALL, outbox=box) as producer:
            puts = [asyncio.create_task(producer.aput(large(at))) for at in range(events)]

            async def work() -> None:
                await asyncio.sleep(0.3)
                assert producer.stats.buffered_bytes <= SMALL.max_buffer_bytes
                assert sum(put.done() for put in puts) < 150
                stream.gate.set()
                await asyncio.gather(*[await put for put in puts])

            assert await beating(work) < 10  # a put that blocked would keep the loop for good: it opens the gate

    asyncio.run(main())
    assert devices(stream) == Counter(str(at) for at in range(events))


@INTO
def test_what_a_cancelled_task_has_put_is_all_or_nothing(outbox: bool, tmp_path: Path) -> None:
    """Tasks are cancelled at any time: those that returned are delivered, and what was counted as accepted is too."""
    stream = FakeStream()
    stream.gate.clear()
    box = tmp_path / "events.db" if outbox else None
    chance = random.Random(7)

    async def main() -> tuple[set[str], Producer]:
        async with Producer("s", TELEMETRY, client=stream, settings=SMALL, outbox=box) as producer:
            puts = [asyncio.create_task(producer.aput(large(at))) for at in range(300)]
            for at in range(60):
                await asyncio.sleep(chance.choice([0, 0, 0.002]))
                for put in chance.sample(puts, 4):
                    put.cancel()
                if at == 30:
                    stream.gate.set()
            done = await asyncio.gather(*puts, return_exceptions=True)
            kept = [(name, one) for name, one in enumerate(done) if not isinstance(one, BaseException)]
            assert {type(one) for one in done if isinstance(one, BaseException)} == {asyncio.CancelledError}
            for _, delivery in kept[::2]:
                delivery.cancel()  # the waiting, not the delivery
        return {str(name) for name, _ in kept}, producer

    returned, producer = asyncio.run(main())
    found = devices(stream)
    assert 50 < len(returned) < 300
    assert set(found.values()) == {1}
    assert returned <= set(found)
    assert producer.stats.accepted == producer.stats.delivered == len(found)
    if not outbox:
        assert set(found) == returned, "a task that was cancelled while it waited has put nothing"


def test_a_put_cancelled_while_the_outbox_writes_is_accepted(tmp_path: Path) -> None:
    """The task ends when the disk has answered, so that its end says what has become of the event."""
    stream = FakeStream()

    async def main() -> None:
        async with Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=tmp_path / "events.db") as producer:
            box = producer._sender.outbox
            assert box is not None
            with box.lock:  # the disk is slow
                put = asyncio.create_task(producer.aput(event(device="kept")))
                await asyncio.sleep(0.1)
                put.cancel()
                await asyncio.sleep(0.1)
                assert not put.done()
            with pytest.raises(asyncio.CancelledError):
                await put
            assert producer.stats.accepted == 1

    asyncio.run(main())
    assert devices(stream) == Counter(["kept"])


def test_when_full_is_as_for_put() -> None:
    """`raise` and `drop` answer at once, `block` after its time; a producer that closes lets nobody wait."""
    stream = FakeStream()
    stream.gate.clear()

    async def fill(producer: Producer) -> "list[asyncio.Future[Any]]":
        return [await producer.aput(large(at)) for at in range(300)]

    async def main() -> None:
        for settings in (replace(SMALL, when_full="raise"), replace(SMALL, block_seconds=0.05)):
            producer = Producer("s", TELEMETRY, client=stream, settings=settings)
            with pytest.raises(BufferFull, match="buffer of 40000 bytes is full"):
                await fill(producer)
        dropping = Producer("s", TELEMETRY, client=stream, settings=replace(SMALL, when_full="drop"))
        dropped = await fill(dropping)
        await asyncio.sleep(0.01)
        failed = await asyncio.gather(*(one for one in dropped if one.done()), return_exceptions=True)
        blocking = Producer("s", TELEMETRY, client=stream, settings=SMALL)
        waiting = asyncio.create_task(fill(blocking))
        await asyncio.sleep(0.1)
        blocking._sender.stop()
        with pytest.raises(UsageError, match="closed"):
            await waiting
        stream.gate.set()
        await asyncio.gather(producer.aclose(), dropping.aclose())
        await asyncio.sleep(0)
        assert {type(one) for one in failed} == {BufferFull}
        assert dropping.stats.dropped == len(failed) > 0

    asyncio.run(main())


def test_a_turn_that_is_not_used_goes_to_the_next() -> None:
    """Tasks are called in their order as far as there is room, without those that wait no more."""
    tracker = DeliveryTracker()
    admission = Admission("s", SMALL, tracker, threading.Condition())
    tracker.accept(1, 40_000)
    rooms = [admission.line_up(size) for size in (40_000, 20_000, 5_000, 20_000)]
    gone, first, small, last = (room for room in rooms if room is not None)
    admission.call()
    assert not first.done()
    gone.cancel()
    tracker.bytes = 10_000
    admission.call()
    assert (first.done(), small.done(), last.done()) == (True, True, False)
    assert admission.line_up(1) is not None, "behind those that wait"
    assert admission.line_up(1, small) is None, "it has its turn"
    admission.leave(first)
    assert last.done()
    admission.call(everyone=True)
    assert not admission.pressed


def test_a_task_that_asks_again_in_vain_keeps_its_turn() -> None:
    """Whatever came between: else a large event waits behind small ones that come later, for as long as they come."""
    tracker = DeliveryTracker()
    admission = Admission("s", SMALL, tracker, threading.Condition())
    tracker.accept(1, 40_000)
    large, second = admission.line_up(20_000), admission.line_up(15_000)
    assert large is not None
    assert second is not None
    tracker.bytes = 5_000
    admission.call()
    assert large.done()
    assert second.done()
    tracker.bytes = 30_000  # a thread was quicker
    newer = admission.line_up(20_000)
    again = [admission.line_up(15_000, second), admission.line_up(20_000, large)]
    tracker.bytes = 20_000
    admission.call()
    assert newer is not None
    assert [room is not None and room.done() for room in (again[1], again[0], newer)] == [True, False, False]
    assert admission.line_up(1, newer) is not None, "the second came before it"


def test_a_waiting_task_that_leaves_keeps_the_loop_from_nothing(tmp_path: Path) -> None:
    """Its lock may be held for as long as a disk takes to write."""
    stream, waited = FakeStream(), list[bool]()
    stream.gate.clear()

    async def main() -> None:
        async with Producer("s", TELEMETRY, client=stream, settings=SMALL, outbox=tmp_path / "events.db") as producer:
            sender = producer._sender
            await producer.aput(large("x"))
            await asyncio.to_thread(stream.asked.wait)
            while sender.admission.has_room(2_000):
                await producer.aput(large("x"))
            put = asyncio.create_task(producer.aput(large("y") | {"unit": random.randbytes(1_500).hex()}))
            while not sender.admission.pressed:
                await asyncio.sleep(0.01)
            held, free = threading.Event(), threading.Event()
            holder = threading.Thread(target=_hold, args=(sender._changed, held, free))
            holder.start()
            await asyncio.to_thread(held.wait, 20)
            put.cancel()
            await asyncio.wait([put])
            waited.append(free.is_set())
            free.set()
            await asyncio.to_thread(holder.join, 20)
            while sender.admission.pressed:
                await asyncio.sleep(0.01)
            stream.gate.set()

    asyncio.run(main())
    assert waited == [False], "the loop waited for the lock"


def _hold(lock: threading.Condition, held: threading.Event, free: threading.Event) -> None:
    with lock:
        held.set()
        if not free.wait(10):  # whoever waits for the lock shall see that it did
            free.set()


def test_a_task_cancelled_before_it_is_told_to_wait_is_not_waited_for(tmp_path: Path) -> None:
    """Its offer runs on another thread and is answered when the task is gone."""
    stream = FakeStream()
    stream.gate.clear()

    async def main() -> None:
        async with Producer("s", TELEMETRY, client=stream, settings=SMALL, outbox=tmp_path / "events.db") as producer:
            sender = producer._sender
            await producer.aput(large("x"))
            await asyncio.to_thread(stream.asked.wait)  # from now on the sender's thread waits for the stream
            while sender.admission.has_room(2_000):
                await producer.aput(large("x"))
            with sender._changed:
                put = asyncio.create_task(producer.aput(large("y") | {"unit": random.randbytes(1_500).hex()}))
                await asyncio.sleep(0.1)
                put.cancel()
                await asyncio.sleep(0.05)
            await asyncio.wait([put])
            await asyncio.sleep(0.01)
            found = put.cancelled(), sender.admission.pressed
            stream.gate.set()
            assert found == (True, False)

    asyncio.run(main())
    assert set(devices(stream)) == {"x"}


def test_the_error_of_a_body_is_not_hidden_by_that_of_the_end() -> None:
    stream = FakeStream()
    stream.always = ValueError("no such stream")

    async def main(fails: bool) -> None:
        settings = replace(QUICK, delivery_seconds=0.05)
        async with Producer("s", TELEMETRY, client=stream, settings=settings) as producer:
            (await producer.aput(event())).add_done_callback(asyncio.Future.exception)
            if fails:
                raise KeyError("of the body")

    with pytest.raises(KeyError, match="of the body"):
        asyncio.run(main(True))
    with pytest.raises(HeadwaterError, match="no such stream"):
        asyncio.run(main(False))
