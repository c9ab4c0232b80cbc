"""Of many who ask the same, one asks the table, and nobody is given what is too old."""

import asyncio
from collections.abc import Callable

import pytest

from headwater.serving.api.cache import Cache


class Table:
    """Answers with how often it was asked; `fails` as long as it says."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    def __call__(self) -> int:
        self.asked += 1
        if self.fails:
            raise OSError("no table")
        return self.asked


class World:
    """A cache of ten seconds, and its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.table = Table()
        self.cache: Cache[int] = Cache(10.0, lambda: self.now)

    async def at(self, now: float, name: str = "a", table: Callable[[], int] | None = None) -> int:
        self.now = now
        return await self.cache.get(name, table or self.table)

    async def renewed(self) -> None:
        """Until what was asked for meanwhile is there."""
        for task in list(self.cache._renewing.values()):
            await asyncio.wait([task])
        await asyncio.sleep(0)


def test_many_ask_and_one_is_asked() -> None:
    async def run() -> None:
        world = World()
        assert await asyncio.gather(*(world.at(0) for _ in range(50))) == [1] * 50
        assert await world.at(7) == 1
        assert await world.at(7, "b") == 2
        assert await world.at(17) == 3, "too old by now"

    asyncio.run(run())


def test_who_polls_is_given_the_old_answer_while_a_new_one_comes() -> None:
    async def run() -> None:
        world = World()
        assert await world.at(0) == 1
        assert [await world.at(8), await world.at(8)] == [1, 1]
        await world.renewed()
        assert world.table.asked == 2
        assert await world.at(15) == 2, "asked at 8, so young enough"
        assert await world.at(18.5) == 3

    asyncio.run(run())


def test_a_failure_is_told_and_not_kept() -> None:
    async def run() -> None:
        world = World()
        assert await world.at(0) == 1
        world.table.fails = True
        assert await world.at(8) == 1, "the renewal fails behind it"
        await world.renewed()
        assert await world.at(9) == 1, "and behind it again"
        await world.renewed()
        with pytest.raises(OSError, match="no table"):
            await world.at(10)
        world.table.fails = False
        assert await world.at(10) == world.table.asked

    asyncio.run(run())


def test_an_answer_that_took_long_is_as_old_as_its_question() -> None:
    """One renewed is kept from when it was asked for."""

    async def run() -> None:
        world = World()
        await world.at(0)
        await world.at(9)
        world.now = 12
        await world.renewed()
        assert await world.at(19.5) == 3

    asyncio.run(run())


def test_what_is_too_old_is_dropped_when_something_is_asked() -> None:
    async def run() -> None:
        world = World()
        for n in range(100):
            await world.at(n / 100, f"{n}")
        assert len(world.cache) == 100
        await world.at(11, "another")
        assert len(world.cache) == 1

    asyncio.run(run())


def test_all_answers_together_have_a_bound() -> None:
    """The oldest go first, and one that is larger than the bound is given and not kept."""

    async def run() -> None:
        cache: Cache[str] = Cache(10.0, lambda: 0.0, size=len, most_bytes=1_000)
        for n in range(30):
            await cache.get(f"{n}", lambda: "x" * 100)
            assert cache.bytes == 100 * len(cache) <= 1_000
        assert await cache.get("29", lambda: "anew") == "x" * 100
        assert await cache.get("0", lambda: "anew") == "anew"
        assert await cache.get("large", lambda: "y" * 2_000) == "y" * 2_000
        assert (cache.bytes, len(cache)) == (0, 0)

    asyncio.run(run())
