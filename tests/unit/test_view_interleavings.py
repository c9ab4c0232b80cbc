"""Writers of one row and a remover of its key, request by request in any order: the row ends right, whole and listed.

Each runs in a greenlet that gives way before every request, and before every use of the cache that threads share.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from greenlet import getcurrent, greenlet

from headwater.aggregates.merging import merge, values
from headwater.clock import ManualClock
from headwater.errors import Retryable
from headwater.sinks.views.cache import RowCache
from headwater.sinks.views.items import Item, part_key
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.store import ViewStore
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.typed import a_key
from tests.views import AGGREGATES, VIEW, memory, rows_of, store, upsert

SHARDS = [f"shardId-{number:012d}/0" for number in range(4)]
NEWEST = 50
"""What every writer writes at last, undisturbed."""


@dataclass(frozen=True)
class Case:
    """`spreads` and `bounds` are drawn from; of the writers, each process has some."""

    processes: int
    removers: int
    spreads: tuple[int, ...] = (1, 2, 3)
    bounds: tuple[int, ...] = (10, 60, 350_000)
    caches: tuple[int, ...] = (600, 32_000_000)
    faults: float = 0.1
    """Of requests, so many are throttled, and of writes as many answers are lost."""


def give_way() -> None:
    """To whoever is next; nothing outside of a run."""
    parent = getcurrent().parent
    if parent is not None:
        parent.switch()


class Client:
    """A pause before each request, and faults. Pages have one item, so that a read is not of one moment."""

    def __init__(self, client: MemoryDynamoDB, random: Random, faults: float) -> None:
        self._client, self._random, self.faults = client, random, faults

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            give_way()
            chance = self._random.random()
            if chance < self.faults:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "-"}}, name)
            answer = getattr(self._client, name)(**request)
            if name in ("put_item", "batch_execute_statement", "delete_item") and chance > 1 - self.faults:
                raise ReadTimeoutError(endpoint_url="lost")
            return answer

        return call

    def get_paginator(self, operation: str) -> Any:
        def pages(*, PaginationConfig: Any = None, **request: Any) -> Any:  # noqa: N803 (boto3's name)
            for item in getattr(self, operation)(**request)["Items"]:
                yield {"Items": [item]}

        return type("Paginator", (), {"paginate": staticmethod(pages)})


class SharedCache(RowCache):
    """Another thread may come before each use."""

    def get(self, at: tuple[str, str]) -> Item | None:
        give_way()
        return super().get(at)

    def put(self, at: tuple[str, str], item: Item) -> None:
        give_way()
        super().put(at, item)

    def mark_listed(self, at: tuple[str, str], birth: int) -> None:
        give_way()
        super().mark_listed(at, birth)


class Run:
    """One seed: what everybody does, and in what order."""

    def __init__(self, case: Case, seed: int) -> None:
        self.random, self.dynamodb, self.case = Random(seed), memory(), case
        self.client = Client(self.dynamodb, self.random, self.random.choice((0.0, case.faults)))
        bound, spread = self.random.choice(case.bounds), self.random.choice(case.spreads)
        self._settings = ViewSettings(
            bound, self.random.choice(case.caches), attempts=3, races=60, few_slots=self.random.choice((1, 16))
        )
        self.stores = [self._store() for _ in range(case.processes)]
        odd = self.random.choice(case.spreads)
        self.views = [replace(VIEW, spread=self.random.choice((spread, spread, odd))) for _ in self.stores]

    def _store(self) -> ViewStore:
        made = ViewStore(self.client, "views", self._settings, clock=ManualClock(), chance=self.random.random)
        made._cache = SharedCache(self._settings.cache_bytes)
        made._turns.write = made._write  # type: ignore[method-assign]  # one thread cannot wait for itself
        return made

    def write(self, shard: int, number: int) -> None:
        """As a flush that is tried again until it succeeds."""
        at = shard % self.case.processes
        for _ in range(100):
            try:
                self.stores[at].write(self.views[at], [upsert("a", SHARDS[shard], number)])
                return
            except Retryable:
                continue
        raise AssertionError("a writer never succeeds")

    def remove(self) -> None:
        for _ in range(100):
            try:
                self._store().remove(VIEW, a_key("device", "a"))
                return
            except Retryable:
                continue
        raise AssertionError("the remover never succeeds")

    def play(self) -> None:
        """Everybody, in any order; some are faster for a while."""

        def writer(shard: int) -> Callable[[], None]:
            flushes = self.random.randint(1, 3)

            def write() -> None:
                for number in range(1, flushes + 1):
                    self.write(shard, number)

            return write

        going = [greenlet(writer(shard)) for shard in range(len(SHARDS))]
        going += [greenlet(self.remove) for _ in range(self.case.removers)]
        speeds = {one: self.random.random() + 0.05 for one in going}
        while going:
            (one,) = self.random.choices(going, [speeds[each] for each in going])
            for _ in range(self.random.choice((1, 1, 3, 10))):
                one.switch()
                if one.dead:
                    going.remove(one)
                    break
            if self.random.random() < 0.05:
                speeds = {one: self.random.random() ** 2 + 0.02 for one in going}

    def check(self) -> None:
        """Each row is listed, each slot that a row or a part names is there, and no slot lies where no reader looks."""
        items = self.dynamodb.scan(TableName="views", ConsistentRead=True)["Items"]
        places = {(item["pk"]["S"], item["sk"]["S"]) for item in items}
        stored = {item["pk"]["S"]: Item.read(item) for item in rows_of(self.dynamodb) if "slots" in item}
        found = store(self.dynamodb)
        assert not found.windows(VIEW, ("a",)) or list(found.keys(VIEW)) == ["a"], "the row is not listed"
        row = stored.get("v#a", Item())
        led_to = [row, *(stored.get(part_key("v#a", part + 1), Item()) for part in range(row.spread))]
        for pk, item in stored.items():
            for name in (*item.slots, *item.more):
                assert item.version(name) <= max(one.version(name) for one in led_to), f"{name} of {pk} is not read"
                beside = (pk, f"1970-01-01T00:01:00.000Z#{name}")
                assert name in item.slots or beside in places, f"{name} of {pk} is gone"


@pytest.mark.parametrize(
    "case",
    [
        Case(processes=1, removers=2),
        Case(processes=2, removers=1),
        Case(processes=3, removers=1, faults=0.0),
        Case(processes=2, removers=1, bounds=(10,), spreads=(1,)),
        Case(processes=2, removers=0),
    ],
    ids=lambda case: f"{case.processes} processes, {case.removers} removers, {case.bounds}, faults {case.faults}",
)
def test_whatever_the_order_the_row_ends_right(case: Case) -> None:
    for seed in range(400):
        run = Run(case, seed)
        run.play()
        run.check()
        run.client.faults = 0.0
        for shard in range(len(SHARDS)):
            run.write(shard, NEWEST)
        run.check()
        (row,) = store(run.dynamodb).windows(VIEW, ("a",))
        newest = values(AGGREGATES, merge(AGGREGATES, [upsert("a", "any", NEWEST).partial] * len(SHARDS)))
        assert {name: row[name] for name in newest} == newest, f"seed {seed}"


@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_a_key_is_forgotten_at_any_moment_of_two_threads(spread: int, known: bool) -> None:
    """They know its row, or meet it. One of them is stopped somewhere, the key removed, the other goes on up to
    somewhere, then both end, the first before the other: every pair of places."""
    for first, second in product(range(16), range(16)):
        run = Run(Case(1, 1, spreads=(spread,), bounds=(350_000,), caches=(32_000_000,), faults=0.0), 7)
        for shard in range(2):
            run.write(shard, 1)
        if not known:
            run.stores[0]._cache.clear()
        one, other = greenlet(lambda run=run: run.write(0, 2)), greenlet(lambda run=run: run.write(1, 2))
        for _ in range(first):
            one.switch()
        remover = greenlet(run.remove)
        while not remover.dead:
            remover.switch()
        for going, steps in ((other, second), (one, 100), (other, 100)):
            for _ in range(steps):
                if not going.dead:
                    going.switch()
        assert one.dead
        assert other.dead
        run.check()
