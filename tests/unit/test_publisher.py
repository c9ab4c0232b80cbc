"""The publisher: each file in its table once, whatever the catalog forgets, and whenever it crashes or is overtaken."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import CommitUnknown, Fenced, HeadwaterError, Retryable
from headwater.ledger import Commit, Ledger, PendingFile, ShardEntry
from headwater.sinks.lake.publisher import Publisher, confirmed
from headwater.sinks.lake.standing import FilePlan, TableState, plan_files
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB

LEDGER: dict[str, Any] = {
    "TableName": "ledger",
    "KeySchema": [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
}


class Crash(BaseException):
    """The process dies here."""


class Catalog:
    """One table, changed only on top of its newest state. `fates` says what becomes of each commit in turn:

    kept; lost (acknowledged, never there); overtaken (there, and gone once a commit that was on its way lands);
    unknown (there, but the answer is lost); refused (somebody else was faster).
    """

    def __init__(self, fates: Iterable[str] = ()) -> None:
        self.files: list[str] = []
        self.added: set[str] = set()
        self.version = 0
        self.foreign = 0
        self._fates = deque(fates)
        self._overtaken: set[str] = set()

    def time_passes(self) -> None:
        """Commits that were on their way land."""
        self.files = [path for path in self.files if path not in self._overtaken]
        self.added -= self._overtaken
        self.version += bool(self._overtaken)
        self._overtaken.clear()

    def foreign_commit(self) -> None:
        self.foreign += 1
        self.version += 1
        self.files.append(f"s3://elsewhere/{self.foreign}.parquet")

    def commit(self, version: int, paths: Sequence[str]) -> None:
        fate = self._fates.popleft() if self._fates else "kept"
        if fate == "refused":
            self.foreign_commit()
        if version != self.version:
            raise Retryable("another writer was faster")
        self.version += 1
        if fate == "lost":
            return
        self.files += paths
        self.added |= set(paths)
        if fate == "overtaken":
            self._overtaken |= set(paths)
        if fate == "unknown":
            raise CommitUnknown("the answer was lost")


class Port:
    """A publisher's own view of the table."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._version = -1

    def read(self) -> TableState:
        self._version = self._catalog.version
        return TableState(set(self._catalog.files), set(self._catalog.added), 0, self._version)

    def add(self, paths: Sequence[str]) -> dict[str, str]:
        self._catalog.commit(self._version, paths)
        return {}


class Hooked:
    """Any object, whose every call goes through `around`."""

    def __init__(self, target: Any, around: Callable[[Callable[[], Any]], Any]) -> None:
        self._target, self._around = target, around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return lambda *args: self._around(lambda: found(*args))


def new_ledger() -> Ledger:
    memory = MemoryDynamoDB()
    memory.create_table(**LEDGER)
    return Ledger(memory, "ledger", "p")


def file(name: str, table: str = "t") -> PendingFile:
    return PendingFile(table, f"s3://b/{name}", 10, 100)


def commit(ledger: Ledger, shard: str, position: int, *names: str, table: str = "t") -> list[str]:
    """The shard's owner names more files; their URIs."""
    entry = ledger.shard(shard) or ledger.claim(shard, "owner", b"", 0)
    files = [file(name, table) for name in names]
    ledger.commit(entry, Commit(sequence.pad(str(position)), b"", None, files, {}, None, False, 0))
    return [one.uri for one in files]


def publisher(
    ledger: Any, catalog: Any, clock: ManualClock, owner: str = "me", lease_seconds: float = 60.0
) -> Publisher:
    return Publisher(ledger, lambda _: Port(catalog), clock, owner, lease_seconds)


def pending(ledger: Ledger) -> list[str]:
    return [one.uri for entry in ledger.shards() for one in entry.pending]


def settle(steps: Publisher, catalog: Catalog, clock: ManualClock) -> None:
    """Steps at their interval until nothing waits."""
    for _ in range(60):
        try:
            report = steps.step()
        except Retryable:
            report = None
        if report is not None and report.leader and not report.waiting:
            return
        catalog.time_passes()
        clock.advance(30_000)
    raise AssertionError("files wait for ever")


def check_once(catalog: Catalog, ledger: Ledger, uris: Sequence[str]) -> None:
    """Ours are there exactly once, foreign files are all there, and the ledger is free of them."""
    catalog.time_passes()
    expected = Counter(uris) + Counter(f"s3://elsewhere/{n + 1}.parquet" for n in range(catalog.foreign))
    assert Counter(catalog.files) == expected
    assert pending(ledger) == []


def test_plan_adds_what_the_table_lacks_once_each() -> None:
    """In the ledger's order; a path that two shards name is added once."""
    files = [file("b"), file("a"), file("b"), file("c")]
    assert plan_files(files, TableState({"s3://b/a", "s3://else"}), {}) == FilePlan(
        ("s3://b/b", "s3://b/c"), frozenset({"s3://b/a"})
    )


def test_only_what_was_found_twice_is_confirmed() -> None:
    """The first sighting lies a second back; a file that was not found keeps none that stands behind it."""
    entry = ShardEntry("p", "s", 1, "o", pending=(file("a"), file("b"), file("c")))
    since = {"s3://b/a": 0, "s3://b/b": 4_001, "s3://b/c": 0}
    assert confirmed(entry, since, 5_000) == [0, 2]
    assert confirmed(entry, since, 5_001) == [0, 1, 2]
    assert confirmed(entry, {}, 5_000) == []


def test_a_file_leaves_the_ledger_when_found_again_in_the_next_step() -> None:
    """Not in the step that added it; and a step too soon after counts as the same sighting."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    uris = commit(ledger, "s1", 1, "a", "b")
    steps = publisher(ledger, catalog, clock)
    first = steps.step()
    assert (first.leader, first.published, first.taken, first.waiting) == (True, 2, 0, 2)
    clock.advance(999)
    assert steps.step().taken == 0
    clock.advance(1)
    assert (steps.step().taken, pending(ledger)) == (2, [])
    assert (steps.rows_published, catalog.version) == (20, 1)
    check_once(catalog, ledger, uris)


def test_one_commit_a_step_whatever_the_number_of_shards_and_files() -> None:
    """Each commit costs a table metadata file; a state is read once before and once after it."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    uris = [uri for s in range(5) for uri in commit(ledger, f"s{s}", 1, *(f"{s}-{n}" for n in range(60)))]
    calls = [0]

    def counted(call: Callable[[], Any]) -> Any:
        calls[0] += 1
        return call()

    steps = Publisher(ledger, lambda _: Hooked(Port(catalog), counted), clock, "me")
    steps.step()
    assert (catalog.version, calls) == (1, [3])
    settle(steps, catalog, clock)
    check_once(catalog, ledger, uris)


def test_many_files_are_taken_in_writes_that_dynamodb_accepts() -> None:
    """An update expression has at most 4 KB."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    uris = commit(ledger, "s1", 1, *(str(n) for n in range(1234)))
    sizes: list[int] = []

    class Measured(Ledger):
        def take(self, entry: ShardEntry, places: Sequence[int]) -> None:
            sizes.append(len(places))
            super().take(entry, places)

    settle(publisher(Measured(ledger._client, "ledger", "p"), catalog, clock), catalog, clock)
    check_once(catalog, ledger, uris)
    assert sum(sizes) == 1234
    assert all(len(", ".join(f"pending[{n}]" for n in range(size))) < 4_000 for size in sizes)
    entry = ledger.shard("s1")
    assert entry is not None
    assert entry.taken == 1234


@pytest.mark.parametrize("fate", ["lost", "overtaken"])
def test_what_the_catalog_acknowledged_and_lost_is_added_again(fate: str) -> None:
    """At once or by a commit that was on its way; the report says so."""
    ledger, catalog, clock = new_ledger(), Catalog([fate]), ManualClock()
    uris = commit(ledger, "s1", 1, "a")
    steps = publisher(ledger, catalog, clock)
    reports = []
    for _ in range(3):
        reports.append(steps.step())
        catalog.time_passes()
        clock.advance(30_000)
    assert [report.readded for report in reports] == [0, 1, 0]
    assert sum(report.published for report in reports) == 1
    assert steps.rows_published == 10
    check_once(catalog, ledger, uris)


def test_a_commit_with_a_lost_answer_is_not_repeated() -> None:
    """The table says that it got through."""
    ledger, catalog, clock = new_ledger(), Catalog(["unknown"]), ManualClock()
    uris = commit(ledger, "s1", 1, "a")
    steps = publisher(ledger, catalog, clock)
    with pytest.raises(CommitUnknown):
        steps.step()
    settle(steps, catalog, clock)
    check_once(catalog, ledger, uris)
    assert (steps.rows_published, catalog.version) == (10, 1)


def test_drain_ends_with_an_empty_ledger_or_says_why_not() -> None:
    """It waits out what can pass, and gives up on what does not."""
    ledger, catalog, clock = new_ledger(), Catalog(["refused", "lost", "unknown"]), ManualClock()
    uris = commit(ledger, "s1", 1, "a", "b")
    publisher(ledger, catalog, clock).drain()
    check_once(catalog, ledger, uris)
    commit(ledger, "s1", 2, "c")
    with pytest.raises(HeadwaterError, match="did not take all files in 5 steps"):
        publisher(ledger, Catalog(["lost"] * 9), clock).drain(max_steps=5)


def test_a_zombie_does_not_bring_back_a_file_that_maintenance_has_rewritten() -> None:
    """It read the ledger, slept past its lease; its successor published, confirmed; compaction replaced the file."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    commit(ledger, "s1", 1, "a")
    successor = publisher(ledger, catalog, clock, "successor")

    def asleep(call: Callable[[], Any]) -> Any:
        clock.advance(120_000)
        settle(successor, catalog, clock)
        catalog.files, catalog.version = ["s3://b/compacted"], catalog.version + 1
        return call()

    zombie = Publisher(ledger, lambda _: Hooked(Port(catalog), asleep), clock, "zombie")
    zombie.step()
    assert catalog.files == ["s3://b/compacted"]


FATES = st.lists(st.sampled_from(["kept", "lost", "overtaken", "unknown", "refused"]), max_size=12)
SHARDS = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@given(FATES, SHARDS, st.lists(st.booleans(), max_size=30))
def test_every_file_is_there_once_in_the_end(fates: list[str], shards: list[int], foreign: list[bool]) -> None:
    """Whatever becomes of the commits, with shards that go on committing and foreign writers in between."""
    ledger, catalog, clock = new_ledger(), Catalog(fates), ManualClock()
    steps = publisher(ledger, catalog, clock)
    uris: list[str] = []
    for round_, other in enumerate(foreign or [False]):
        for number, files in enumerate(shards):
            if files and round_ < 5:
                uris += commit(ledger, f"s{number}", round_ + 1, *(f"{number}-{round_}-{n}" for n in range(files)))
        if other:
            catalog.foreign_commit()
        with suppress(Retryable):
            steps.step()
        catalog.time_passes()
        clock.advance(30_000)
    settle(steps, catalog, clock)
    check_once(catalog, ledger, uris)


@given(FATES, st.lists(st.tuples(st.integers(0, 14), st.booleans()), max_size=8))
def test_a_crash_before_or_after_any_call_doubles_and_loses_nothing(
    fates: list[str], crashes: list[tuple[int, bool]]
) -> None:
    """Each publisher dies at some call to the ledger or the table; the next one starts from nothing."""
    ledger, catalog, clock = new_ledger(), Catalog(fates), ManualClock()
    uris = commit(ledger, "s1", 1, "a", "b", "c") + commit(ledger, "s2", 1, "d")
    for number, (at, after) in enumerate(crashes):
        left = [at]

        def dying(call: Callable[[], Any], left: list[int] = left, after: bool = after) -> Any:
            left[0] -= 1
            if left[0] < 0 and not after:
                raise Crash
            answer = call()
            if left[0] < 0:
                raise Crash
            return answer

        mortal = Publisher(Hooked(ledger, dying), lambda _: Hooked(Port(catalog), dying), clock, f"{number}")
        try:
            for _ in range(10):
                with suppress(Retryable):
                    mortal.step()
                catalog.time_passes()
                clock.advance(1_500)
        except Crash:
            catalog.time_passes()
            clock.advance(61_000)
    clock.advance(61_000)
    settle(publisher(ledger, catalog, clock, "last"), catalog, clock)
    check_once(catalog, ledger, uris)


@given(FATES, st.lists(st.integers(0, 2), min_size=10, max_size=120))
def test_two_publishers_who_both_think_they_lead_do_no_harm(fates: list[str], turns: list[int]) -> None:
    """Leases that run out at once, a switch before every call: who goes on is drawn. Shards commit meanwhile."""
    ledger, catalog, clock = new_ledger(), Catalog(fates), ManualClock()
    uris = commit(ledger, "s0", 1, "a", "b")
    hub = getcurrent()

    def switching(call: Callable[[], Any]) -> Any:
        hub.switch()
        return call()

    def job(owner: str) -> None:
        steps = Publisher(
            Hooked(ledger, switching), lambda _: Hooked(Port(catalog), switching), clock, owner, lease_seconds=0
        )
        while True:
            with suppress(Retryable, Fenced):
                steps.step()

    rivals = [greenlet(lambda: job("left"), hub), greenlet(lambda: job("right"), hub)]
    for number, turn in enumerate(turns):
        if turn < 2:
            rivals[turn].switch()
        else:
            uris += commit(ledger, f"s{number % 2}", number + 2, f"late-{number}")
        catalog.time_passes()
        clock.advance(400)
    for rival in rivals:
        rival.throw()
    settle(publisher(ledger, catalog, clock, "last", lease_seconds=0), catalog, clock)
    check_once(catalog, ledger, uris)


def test_files_go_to_their_own_tables() -> None:
    """One pipeline may write several."""
    ledger, clock, catalogs = new_ledger(), ManualClock(), {"t": Catalog(), "u": Catalog()}
    commit(ledger, "s1", 1, "a")
    commit(ledger, "s1", 2, "b", table="u")
    steps = Publisher(ledger, lambda name: Port(catalogs[name]), clock, "me")
    steps.drain()
    assert {name: catalog.files for name, catalog in catalogs.items()} == {"t": ["s3://b/a"], "u": ["s3://b/b"]}
