"""The publisher beside engines that rewrite, delete, expire and roll back: nothing doubled, nothing brought back."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import Retryable
from headwater.ledger import Ledger
from headwater.sinks.lake.publisher import Publisher, PublishReport
from headwater.sinks.lake.quarantine import quarantined_files
from headwater.sinks.lake.standing import TableState
from tests.unit.test_publisher import commit, new_ledger, pending


@dataclass(frozen=True)
class Version:
    """A snapshot: its data files, each with the files of ours whose rows are in it."""

    number: int
    sequence: int
    parent: "int | None"
    files: Mapping[str, frozenset[str]]
    added: frozenset[str]


class Table:
    """Snapshots with a lineage, as Iceberg keeps them: some may expire, and the current one may be set back."""

    def __init__(self) -> None:
        self.versions = {0: Version(0, 0, None, {}, frozenset())}
        self.current = self.last = 0
        self.deleted: set[str] = set()
        self.bad: set[str] = set()

    @property
    def head(self) -> Version:
        return self.versions[self.current]

    def commit(self, on: int, files: Mapping[str, frozenset[str]], added: Sequence[str] = ()) -> None:
        if on != self.current:
            raise Retryable("another writer was faster")
        self.last += 1
        self.versions[self.last] = Version(self.last, self.last, self.current, files, frozenset(added))
        self.current = self.last

    def rewrite(self, number: int) -> None:
        """Every file into one, as `rewrite_data_files` does."""
        rows = frozenset().union(*self.head.files.values())
        self.commit(self.current, {f"rewritten-{number}": rows}, [f"rewritten-{number}"])

    def delete(self, uri: str, number: int) -> None:
        """The rows of one file of ours, copy on write: every file that has some is written anew."""
        kept = {
            (f"cow-{number}-{path}" if uri in rows else path): rows - {uri} for path, rows in self.head.files.items()
        }
        self.deleted |= {uri} & frozenset().union(*self.head.files.values())
        self.commit(self.current, {path: rows for path, rows in kept.items() if rows})

    def expire(self) -> None:
        """All snapshots but the current one."""
        self.versions = {self.current: self.head}

    def lineage(self) -> list[Version]:
        found, at = [], self.head
        while True:
            found.append(at)
            if at.parent is None or at.parent not in self.versions:
                return found
            at = self.versions[at.parent]

    def rows(self) -> Counter[str]:
        """How often the rows of each of our files are in the table."""
        return Counter(uri for rows in self.head.files.values() for uri in rows)


class Port:
    """A publisher's view of such a table."""

    def __init__(self, table: Table) -> None:
        self.table, self.read_at, self.asked = table, 0, list[str]()

    def read(self) -> TableState:
        lineage = self.table.lineage()
        self.read_at = self.table.current
        added = frozenset().union(*(one.added for one in lineage))
        return TableState(set(self.table.head.files), added, lineage[-1].sequence, self.table.last)

    def add(self, paths: Sequence[str]) -> dict[str, str]:
        self.asked += paths
        good = [path for path in paths if path not in self.table.bad]
        if good:
            files = {**self.table.head.files, **{path: frozenset({path}) for path in good}}
            self.table.commit(self.read_at, files, good)
        return {path: "no such object" for path in paths if path in self.table.bad}


@pytest.fixture
def ledger() -> Ledger:
    return new_ledger()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def steps_of(ledger: Ledger, table: Table, clock: ManualClock) -> Publisher:
    return Publisher(ledger, lambda _: Port(table), clock, "me")


def run(publisher: Publisher, clock: ManualClock, times: int = 3) -> list[PublishReport]:
    """So many steps, half a minute apart."""
    reports = []
    for _ in range(times):
        reports.append(publisher.step())
        clock.advance(30_000)
    return reports


def test_a_file_that_another_engine_has_rewritten_is_not_added_again(ledger: Ledger, clock: ManualClock) -> None:
    """Between the commit and the second sighting, which used to double its rows."""
    table, (uri,) = Table(), commit(ledger, "s1", 1, "a")
    publisher = steps_of(ledger, table, clock)
    publisher.step()
    table.rewrite(1)
    clock.advance(30_000)
    reports = run(publisher, clock)
    assert table.rows() == Counter({uri: 1})
    assert sum(report.readded for report in reports) == 0
    assert pending(ledger) == []


def test_a_deletion_is_not_undone(ledger: Ledger, clock: ManualClock) -> None:
    """Rows that somebody deletes before the second sighting stay deleted, for a new publisher as well."""
    table, uris = Table(), commit(ledger, "s1", 1, "a", "b")
    steps_of(ledger, table, clock).step()
    table.delete(uris[0], 1)
    clock.advance(90_000)
    run(steps_of(ledger, table, clock), clock)
    assert table.rows() == Counter(uris[1:])
    assert pending(ledger) == []


def test_a_commit_that_was_rolled_back_is_made_again(ledger: Ledger, clock: ManualClock) -> None:
    """The rolled back snapshot is no ancestor any more: files that are pending still come back by themselves."""
    table, (first,) = Table(), commit(ledger, "s1", 1, "a")
    publisher = steps_of(ledger, table, clock)
    run(publisher, clock)
    before = table.current
    (second,) = commit(ledger, "s1", 2, "b")
    publisher.step()
    table.current = before
    clock.advance(30_000)
    run(publisher, clock)
    assert table.rows() == Counter([first, second])
    assert pending(ledger) == []


def test_a_file_in_snapshots_that_have_expired_is_undecided(ledger: Ledger, clock: ManualClock) -> None:
    """It was to be added before them: it may have been rewritten or deleted. It is named, kept, and not added."""
    table, uris = Table(), commit(ledger, "s1", 1, "a")
    steps_of(ledger, table, clock).step()
    table.rewrite(1)
    table.expire()
    clock.advance(90_000)
    uris += commit(ledger, "s2", 1, "b")
    publisher = steps_of(ledger, table, clock)
    report = run(publisher, clock)[-1]
    assert table.rows() == Counter(uris)
    assert pending(ledger) == uris[:1]
    assert (report.waiting, report.quarantined, report.idle) == (1, 1, True)
    (named,) = quarantined_files(ledger)
    assert (named.uri, named.rows) == (uris[0], 10)
    assert "expired" in named.reason


def test_a_file_never_tried_is_added_whatever_has_expired(ledger: Ledger, clock: ManualClock) -> None:
    """A publisher that was down for longer than snapshots are kept goes on."""
    table = Table()
    table.commit(0, {"theirs": frozenset()}, ["theirs"])
    table.expire()
    uris = commit(ledger, "s1", 1, "a")
    run(steps_of(ledger, table, clock), clock)
    assert table.rows() == Counter(uris)


def test_one_bad_file_stops_no_other(ledger: Ledger, clock: ManualClock) -> None:
    """It is named with its age, stays in the ledger, and is added once it can be."""
    table, uris = Table(), commit(ledger, "s1", 1, "a", "b", "c")
    table.bad = {uris[0]}
    publisher = steps_of(ledger, table, clock)
    report = run(publisher, clock)[-1]
    assert table.rows() == Counter(uris[1:])
    assert pending(ledger) == uris[:1]
    assert (report.waiting, report.quarantined, report.oldest_ms) == (1, 1, 60_000)
    (named,) = quarantined_files(ledger)
    assert (named.uri, named.table, named.reason) == (uris[0], "t", "no such object")
    table.bad = set()
    clock.advance(600_000)
    run(publisher, clock)
    assert (table.rows(), pending(ledger)) == (Counter(uris), [])
    assert quarantined_files(ledger) == []


def test_a_bad_file_is_tried_at_intervals(ledger: Ledger, clock: ManualClock) -> None:
    """Not at each step, as a try costs requests; but soon at first, as the answer of S3 may have been cut."""
    table, (uri,) = Table(), commit(ledger, "s1", 1, "a")
    table.bad = {uri}
    port = Port(table)
    publisher = Publisher(ledger, lambda _: port, clock, "me")
    run(publisher, clock, times=3)
    assert len(port.asked) == 3
    run(publisher, clock, times=102)  # most of an hour: after two and five minutes, then each ten
    assert len(port.asked) == 9
    table.bad = set()
    run(publisher, clock, times=22)
    assert pending(ledger) == []


def test_a_file_whose_first_read_failed_is_in_the_table_seconds_later(ledger: Ledger, clock: ManualClock) -> None:
    table, (uri,) = Table(), commit(ledger, "s1", 1, "a")
    table.bad = {uri}
    publisher = steps_of(ledger, table, clock)
    publisher.step()
    table.bad = set()
    clock.advance(10_000)
    publisher.step()
    assert table.rows() == Counter([uri])


def test_the_age_of_a_file_outlasts_its_publisher(ledger: Ledger, clock: ManualClock) -> None:
    """A publisher that begins anew, as a function does each time, does not call an old file new."""
    table, (uri,) = Table(), commit(ledger, "s1", 1, "a")
    table.bad = {uri}
    assert steps_of(ledger, table, clock).step().oldest_ms == 0
    clock.advance(120_000)
    assert steps_of(ledger, table, clock).step().oldest_ms == 120_000


def test_a_commit_adds_a_thousand_files_at_most(ledger: Ledger, clock: ManualClock) -> None:
    """A backlog makes no step that cannot end; the rest follows."""
    table = Table()
    uris = [uri for shard in range(3) for uri in commit(ledger, f"s{shard}", 1, *(f"{shard}-{n}" for n in range(500)))]
    publisher = steps_of(ledger, table, clock)
    assert publisher.step().published == 1_000
    clock.advance(30_000)
    run(publisher, clock)
    assert (table.rows(), pending(ledger)) == (Counter(uris), [])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32))
def test_every_row_is_there_once_or_was_deleted_or_is_named(seed: int) -> None:
    """Whatever strangers do between two steps, and however often a new publisher takes over."""
    random, ledger, clock, table = Random(seed), new_ledger(), ManualClock(), Table()
    publisher, uris = steps_of(ledger, table, clock), list[str]()
    for number in range(1, 25):
        match random.choice(["commit", "step", "step", "rewrite", "delete", "expire", "anew"]):
            case "commit":
                uris += commit(ledger, random.choice("xy"), number, f"{number}-a", f"{number}-b")
            case "step":
                publisher.step()
            case "rewrite" if table.head.files:
                table.rewrite(number)
            case "delete" if uris:
                table.delete(random.choice(uris), number)
            case "expire":
                table.expire()
            case "anew":
                publisher = steps_of(ledger, table, clock)
        clock.advance(random.choice([10, 30_000]))
    run(publisher, clock, 4)
    named = {one.uri for one in quarantined_files(ledger)}
    assert set(pending(ledger)) == named
    rows = table.rows()
    assert all(count == 1 for count in rows.values())
    assert not rows.keys() & table.deleted
    assert set(uris) - rows.keys() - table.deleted <= named
