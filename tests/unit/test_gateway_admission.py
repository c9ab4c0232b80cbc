"""The gateway's memory budget: whatever requests ask for, and in whatever order they run, some request goes on."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.producers.gateway.admission import MINIMUM_BYTES, MemoryBudget, NeedsMore, Reservation
from headwater.web.problems import Problem

UNIT = MINIMUM_BYTES
LIMIT = 10 * UNIT
EVER = 1e9


@dataclass
class Requests:
    """Requests that stop before each step until they are told to go on."""

    budget: MemoryBudget
    pauses: list[asyncio.Future[None]] = field(default_factory=list)

    async def pause(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses.append(gate)
        await gate

    async def run(self, needs: Sequence[int], settled: int) -> None:
        """Need more and more bytes, as a body does that is decompressed and then parsed, and some until it is answered.

        What is in memory at a time is never more than what is reserved.
        """

        async def work(held: Reservation) -> None:
            for need in sorted(needs):
                await self.pause()
                held.grow(need * UNIT)
                assert held.covers(need * UNIT)

        _, held = await self.budget.reserved(min(needs) * UNIT, work)
        try:
            held.settle(settled * UNIT)
            await self.pause()
        finally:
            held.close()


async def settle() -> None:
    """Let all tasks run as far as they come."""
    for _ in range(20):
        await asyncio.sleep(0)


def simulated(
    scenario: Callable[[Requests], Sequence[Coroutine[Any, Any, None]]], choose: Callable[[int], int], kill: bool
) -> None:
    async def run() -> None:
        requests = Requests(MemoryBudget(LIMIT, EVER))
        tasks = [asyncio.create_task(one) for one in scenario(requests)]
        await settle()
        while any(not task.done() for task in tasks):
            open_gates = [gate for gate in requests.pauses if not gate.done()]
            assert open_gates, "all requests wait for each other"
            gate = open_gates[choose(len(open_gates))]
            if kill and choose(8) == 0:
                tasks[choose(len(tasks))].cancel()  # its client has gone
            elif not gate.done():
                gate.set_result(None)
            await settle()
        for task in tasks:
            assert task.cancelled() or task.exception() is None
        assert requests.budget.used == 0

    asyncio.run(run())


NEEDS = st.tuples(st.lists(st.integers(1, 14), min_size=1, max_size=3), st.integers(1, 4))


@given(st.lists(NEEDS, min_size=1, max_size=6), st.data(), st.booleans())
def test_whatever_requests_need_one_of_them_goes_on(
    bodies: list[tuple[list[int], int]], data: st.DataObject, kill: bool
) -> None:
    """Hold-and-wait would end it: each with a part of the budget, and all waiting for more."""
    simulated(
        lambda requests: [requests.run(needs, settled) for needs, settled in bodies],
        lambda count: data.draw(st.integers(0, count - 1)),
        kill,
    )


@given(st.lists(st.integers(1, 14), min_size=1, max_size=8), st.data())
def test_no_more_is_reserved_than_there_is(sizes: list[int], data: st.DataObject) -> None:
    async def run() -> None:
        budget = MemoryBudget(LIMIT, EVER)
        held = list[Reservation]()

        async def hold(size: int) -> None:
            held.append(await budget.reserve(size * UNIT))

        tasks = [asyncio.create_task(hold(size)) for size in sizes]
        taken = 0
        while taken < len(sizes):
            await settle()
            assert budget.used == sum(one.size for one in held) <= LIMIT
            assert held, "nobody has anything, and all wait"
            held.pop(data.draw(st.integers(0, len(held) - 1))).close()
            taken += 1
        await asyncio.gather(*tasks)
        assert budget.used == 0

    asyncio.run(run())


def test_what_holds_bytes_is_told_at_once_that_there_are_no_more() -> None:
    async def run() -> None:
        budget = MemoryBudget(LIMIT, EVER)
        one, two = await budget.reserve(6 * UNIT), await budget.reserve(4 * UNIT)
        with pytest.raises(NeedsMore) as found:
            one.grow(7 * UNIT)
        assert found.value.size == 7 * UNIT
        assert one.size == 6 * UNIT
        two.close()
        one.grow(20 * UNIT)
        assert budget.used == LIMIT

    asyncio.run(run())


def test_who_waits_too_long_is_refused_and_the_next_one_is_let_in() -> None:
    async def run() -> None:
        budget = MemoryBudget(LIMIT, 0.01)
        held = await budget.reserve(6 * UNIT)
        with pytest.raises(Problem) as refused:
            await budget.reserve(5 * UNIT)
        assert refused.value.status == 503
        (await budget.reserve(4 * UNIT)).close()
        held.close()
        assert budget.used == 0

    asyncio.run(run())


@pytest.mark.parametrize("late", [False, True])
def test_bytes_that_are_granted_when_the_wait_ends_are_not_lost(late: bool) -> None:
    """The grant and the end of the wait may fall into one step of the loop."""

    async def run() -> None:
        budget = MemoryBudget(LIMIT, EVER)
        held = await budget.reserve(LIMIT)
        waiting = asyncio.create_task(budget.reserve(UNIT))
        await settle()
        if late:
            waiting.cancel()
            held.close()
        else:
            held.close()
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.used == 0

    asyncio.run(run())
