"""What maintenance would do: groups that lose and double nothing, and orphans that nobody needs or can come to need."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import UsageError
from headwater.ledger import PendingFile, ShardEntry
from headwater.sinks.lake.compaction import (
    CompactionSizes,
    StoredObject,
    TableFile,
    could_be_committed,
    find_orphans,
    plan_groups,
)
from headwater.stream import sequence

FILES = st.lists(
    st.builds(TableFile, st.uuids().map(str), st.sampled_from("abc"), st.integers(1, 150), st.integers(1, 9)),
    max_size=40,
    unique_by=lambda file: file.path,
)


@given(FILES, st.data())
def test_groups_take_each_small_file_that_is_not_pending_at_most_once(
    files: list[TableFile], data: st.DataObject
) -> None:
    """Of one partition each, no larger than the target, and worth their while."""
    pending = set(
        data.draw(st.lists(st.sampled_from([file.path for file in files]), unique=True) if files else st.just([]))
    )
    sizes = CompactionSizes(target=data.draw(st.integers(100, 300)), small=100, fewest=data.draw(st.integers(2, 6)))
    groups = plan_groups(files, pending, sizes)
    taken = [file for group in groups for file in group.files]
    assert len({file.path for file in taken}) == len(taken)
    assert not pending & {file.path for file in taken}
    for group in groups:
        assert {file.partition for file in group.files} == {group.partition}
        assert all(file.bytes < sizes.small for file in group.files)
        assert group.bytes <= sizes.target
        assert len(group.files) >= sizes.fewest or (len(group.files) > 1 and group.bytes >= sizes.small)
    left = [file for file in files if file.path not in pending and file.bytes < sizes.small and file not in taken]
    for partition in "abc":
        # what stays is too little to be worth it: nobody writes a table anew for ever
        assert sum(file.partition == partition for file in left) < sizes.fewest * (1 + sum(f.bytes for f in left) // 50)


def test_what_was_joined_is_left_alone() -> None:
    """Twenty small files become one, and that is no candidate any more."""
    files = [TableFile(str(n), "d", 10, 1) for n in range(20)]
    (group,) = plan_groups(files, set(), CompactionSizes(target=256, small=128))
    assert group.rows == 20
    joined = TableFile("joined", "d", group.bytes, group.rows)
    assert plan_groups([joined], set(), CompactionSizes(target=256, small=128)) == []
    with pytest.raises(UsageError, match="compaction"):
        CompactionSizes(target=1, small=2)


def test_small_files_of_an_earlier_partitioning_are_rewritten_however_few() -> None:
    """Nothing joins them any more. Large ones stay."""
    small, large = TableFile("a", "old d", 10, 1, earlier=True), TableFile("b", "old d", 200, 9, earlier=True)
    sizes = CompactionSizes(target=256, small=128)
    assert [group.files for group in plan_groups([small, large], set(), sizes)] == [(small,)]
    assert plan_groups([small, large], {"a"}, sizes) == []


@dataclass
class World:
    """One shard's files from writing to expiry, as processors, publisher and maintenance move them. Time is a count."""

    entry: ShardEntry = field(default_factory=lambda: ShardEntry("p", "shard-1", 1, "me"))
    now: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    older: set[str] = field(default_factory=set)
    writers: list[tuple[int, str, str, list[str]]] = field(default_factory=list)
    """Per processor that may still try to commit: epoch, from, to and files."""

    def write(self) -> None:
        """The owner of the epoch writes a file for a commit from the position it knows."""
        start = self.entry.position
        stop = sequence.pad(str(int(start) + 1 + self.now))
        uri = f"s3://b/lake/t/data/shard-1/{self.entry.epoch:08d}-{start}-{stop}-0000.parquet"
        self.objects[uri] = self.now
        self.writers.append((self.entry.epoch, start, stop, [uri]))

    def claim(self) -> None:
        self.entry = replace(self.entry, epoch=self.entry.epoch + 1)

    def commit(self, which: int) -> None:
        """Somebody, a fenced one maybe, tries to commit."""
        if not self.writers:
            return
        epoch, start, stop, uris = self.writers.pop(which % len(self.writers))
        if (epoch, start) == (self.entry.epoch, self.entry.position):
            files = tuple(PendingFile("t", uri, 1, 1) for uri in uris)
            self.entry = replace(self.entry, position=stop, pending=(*self.entry.pending, *files))

    def publish(self) -> None:
        self.current |= {file.uri for file in self.entry.pending}

    def take(self) -> None:
        self.entry = replace(self.entry, pending=tuple(f for f in self.entry.pending if f.uri not in self.current))

    def compact(self) -> None:
        """What is published and no longer pending becomes one new file."""
        old = self.current - {file.uri for file in self.entry.pending}
        if len(old) > 1:
            uri = f"s3://b/lake/t/data/compacted/{self.now}.parquet"
            self.objects[uri] = self.now
            self.current = (self.current - old) | {uri}
            self.older |= old

    def expire(self) -> None:
        self.older.clear()

    def act(self, what: int) -> None:
        self.now += 1
        known = (self.write, self.claim, self.publish, self.take, self.compact, self.expire)
        known[what]() if what < len(known) else self.commit(what)

    def check(self) -> None:
        """Every file that is live, named by a commit, or to be named by one that would get through, is there."""
        needed = self.current | self.older | {file.uri for file in self.entry.pending}
        for epoch, start, _, uris in self.writers:
            if (epoch, start) == (self.entry.epoch, self.entry.position):
                needed |= set(uris)
        assert needed <= self.objects.keys(), needed - self.objects.keys()


ACTS = st.lists(st.integers(0, 9), max_size=12)


@given(st.lists(ACTS, min_size=5, max_size=5))
def test_no_orphan_is_ever_needed(parts: list[list[int]]) -> None:
    """However writers, the publisher and compaction go on between the three readings and after them, and though the
    removal has no age to go by (but for compaction's own files, whose age is all there is)."""
    before, a, b, c, d = parts
    world = World()
    for what in before:
        world.act(what)
    found = [StoredObject(uri, 1, at) for uri, at in world.objects.items()]
    listed_at = world.now
    for what in a:
        world.act(what)
    entries = [world.entry]
    for what in b:
        world.act(what)
    gone = find_orphans(found, entries, world.current | world.older, listed_at + 1)
    for one in gone:
        for what in c[:1]:
            world.act(what)
        world.check()
        del world.objects[one.uri]
        world.check()
    for what in d:
        world.act(what)
        world.check()


def test_a_dead_processor_s_files_are_orphans_only_once_it_is_fenced() -> None:
    """However old: until then its commit may still get through."""
    world = World()
    world.write()
    (uri,) = world.objects
    found = [StoredObject(uri, 7, 0)]
    assert could_be_committed(uri, {"shard-1": [world.entry]})
    assert find_orphans(found, [world.entry], set(), 10**15) == []
    world.claim()
    assert find_orphans(found, [world.entry], set(), 10**15) == found
    other = ShardEntry("q", "shard-1", 1, "other pipeline, same table")
    assert find_orphans(found, [world.entry, other], set(), 10**15) == []
    assert find_orphans(found, [world.entry], set(), 0) == []
