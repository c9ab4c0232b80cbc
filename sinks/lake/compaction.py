"""Decide what table maintenance does: which files to join, which objects nobody needs any more. Pure.

Both decisions rest on the ledger. A file that has left its shard's pending list never comes back there, so the
publisher will not add it again: only such files may be rewritten. And a data file's name holds the epoch and the
position that its commit starts from, so the ledger alone says whether that commit can still happen. No I/O belongs
here: `maintenance` reads the table, the objects and the ledger.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from headwater.errors import UsageError
from headwater.ledger import ShardEntry

__all__ = [
    "CompactionSizes",
    "FileGroup",
    "StoredObject",
    "TableFile",
    "commit_position",
    "could_be_committed",
    "find_orphans",
    "plan_groups",
    "shard_of",
]

_SHARD_FILE = re.compile(r".*/data/(?P<shard>[^/]+)/(?P<epoch>\d{8})-(?P<start>[^-/]+)-(?P<stop>[^-/]+)-\d+\.parquet")


@dataclass(frozen=True)
class TableFile:
    """Describe a data file of the current snapshot.

    `partition` is any text that is equal for files of one partition only. `earlier` marks a file of a partitioning that
    the table no longer has.
    """

    path: str
    partition: str
    bytes: int
    rows: int
    earlier: bool = False


@dataclass(frozen=True)
class CompactionSizes:
    """Set what compaction aims at, in bytes.

    A file below `small` is joined with others, up to `target` together; a group of fewer than `fewest` files waits.
    Raise UsageError when `small` is above `target` or `fewest` is below 2.
    """

    target: int = 256 << 20
    small: int = 128 << 20
    fewest: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.small <= self.target or self.fewest < 2:
            raise UsageError("compaction: the target is at least the size called small, and two files make a group")


@dataclass(frozen=True)
class FileGroup:
    """Hold files of one partition that become one file, or one for each present partition when theirs is an earlier
    one.
    """

    partition: str
    files: tuple[TableFile, ...]

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def rows(self) -> int:
        """Return the number of rows in all files."""
        return sum(file.rows for file in self.files)


def plan_groups(files: Iterable[TableFile], pending: Set[str], sizes: CompactionSizes) -> list[FileGroup]:
    """Return the groups of small files to join, packed first-fit by falling size within each partition.

    A group of fewer than `fewest` files is left alone unless it fills a file, so that slow arrivals are not rewritten
    with each newcomer. Small files of an earlier partitioning, which gets no more files, are rewritten however few they
    are. Files in `pending` are never touched: the publisher may still have to add them.
    """
    by_partition: dict[str, list[TableFile]] = {}
    for file in files:
        if file.path not in pending and file.bytes < sizes.small:
            by_partition.setdefault(file.partition, []).append(file)
    groups = [
        FileGroup(partition, tuple(packed))
        for partition in sorted(by_partition)
        for packed in _packed(by_partition[partition], sizes)
    ]
    return [one for one in groups if one.files[0].earlier or _worth_it(one, sizes)]


def _worth_it(group: FileGroup, sizes: CompactionSizes) -> bool:
    return len(group.files) > 1 and (len(group.files) >= sizes.fewest or group.bytes >= sizes.small)


def _packed(files: Sequence[TableFile], sizes: CompactionSizes) -> list[list[TableFile]]:
    bins: list[list[TableFile]] = []
    space: list[int] = []
    for file in sorted(files, key=lambda one: (-one.bytes, one.path)):
        at = next((at for at, left in enumerate(space) if left >= file.bytes), None)
        if at is None:
            bins.append([])
            space.append(sizes.target)
            at = len(bins) - 1
        bins[at].append(file)
        space[at] -= file.bytes
    return bins


def shard_of(uri: str) -> str | None:
    """Return the shard whose processor wrote the file; None for any other file."""
    found = _SHARD_FILE.fullmatch(uri)
    return found["shard"] if found else None


def commit_position(uri: str) -> str:
    """Return the position of the commit that names a processor's file; for any other file the empty text, below all
    positions.
    """
    found = _SHARD_FILE.fullmatch(uri)
    return found["stop"] if found else ""


@dataclass(frozen=True)
class StoredObject:
    """Describe an object below the table's location: URI, size in bytes, time of its last change in epoch ms."""

    uri: str
    bytes: int
    modified_ms: int


def could_be_committed(uri: str, entries: Mapping[str, Sequence[ShardEntry]]) -> bool:
    """Return whether the processor that wrote this data file may still name it in a commit.

    A commit is refused unless epoch and position are those in the ledger, and both only grow. `entries` are the ledger
    items of every pipeline, by shard id; a file of a shard that they lack cannot be committed.
    """
    found = _SHARD_FILE.fullmatch(uri)
    if found is None or found["shard"] not in entries:
        return False
    epoch, start = int(found["epoch"]), found["start"]
    return any(epoch > one.epoch or (epoch == one.epoch and start >= one.position) for one in entries[found["shard"]])


def find_orphans(
    found: Iterable[StoredObject], entries: Sequence[ShardEntry], live: Set[str], older_than_ms: int
) -> list[StoredObject]:
    """Return the old objects that no snapshot has, no commit names and no commit can name any more.

    Read the objects first, then the ledger, then the table, each whole before the next: then a file committed in
    between still counts as one that could be committed, and one published in between is live.
    """
    by_shard: dict[str, list[ShardEntry]] = {}
    for entry in entries:
        by_shard.setdefault(entry.shard_id, []).append(entry)
    pending = {file.uri for entry in entries for file in entry.pending}
    return [
        one
        for one in found
        if one.modified_ms < older_than_ms
        and one.uri not in live
        and one.uri not in pending
        and not could_be_committed(one.uri, by_shard)
    ]
