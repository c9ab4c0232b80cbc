"""What table maintenance would do: which files to join, which objects nobody needs. Pure.

Both rest on the ledger. A file that has left its shard's pending list never comes back there, so the publisher will not
add it again: only such files may be rewritten. And a data file's name has the epoch and the position that its commit
starts from, so the ledger itself says whether that commit can still happen.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from headwater.errors import UsageError
from headwater.ledger import ShardEntry

__all__ = [
    "Found",
    "Group",
    "Sizes",
    "TableFile",
    "committed_to",
    "could_be_committed",
    "orphans",
    "plan_groups",
    "shard_of",
]

_SHARD_FILE = re.compile(r".*/data/(?P<shard>[^/]+)/(?P<epoch>\d{8})-(?P<start>[^-/]+)-(?P<stop>[^-/]+)-\d+\.parquet")


@dataclass(frozen=True)
class TableFile:
    """A data file of the current snapshot; `partition` is anything that equals itself for one partition only.

    `earlier`: of a partitioning that the table does not have any more.
    """

    path: str
    partition: str
    bytes: int
    rows: int
    earlier: bool = False


@dataclass(frozen=True)
class Sizes:
    """Bytes. A file below `small` is joined with others, up to `target` together; `fewest` files make it worth it."""

    target: int = 256 << 20
    small: int = 128 << 20
    fewest: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.small <= self.target or self.fewest < 2:
            raise UsageError("compaction: the target is at least the size called small, and two files make a group")


@dataclass(frozen=True)
class Group:
    """Files of one partition that become one file, or one for each present partition where theirs is an earlier one."""

    partition: str
    files: tuple[TableFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def plan_groups(files: Iterable[TableFile], pending: Set[str], sizes: Sizes) -> list[Group]:
    """Small files of each partition, packed first-fit by falling size.

    A group of fewer than `fewest` files is left alone unless it fills a file: what comes in slowly is not written anew
    with each newcomer. Small files of an earlier partitioning, which none comes to any more, are rewritten however few.
    """
    by_partition: dict[str, list[TableFile]] = {}
    for file in files:
        if file.path not in pending and file.bytes < sizes.small:
            by_partition.setdefault(file.partition, []).append(file)
    groups = [
        Group(partition, tuple(packed))
        for partition in sorted(by_partition)
        for packed in _packed(by_partition[partition], sizes)
    ]
    return [one for one in groups if one.files[0].earlier or _worth_it(one, sizes)]


def _worth_it(group: Group, sizes: Sizes) -> bool:
    return len(group.files) > 1 and (len(group.files) >= sizes.fewest or group.bytes >= sizes.small)


def _packed(files: Sequence[TableFile], sizes: Sizes) -> list[list[TableFile]]:
    bins: list[list[TableFile]] = []
    room: list[int] = []
    for file in sorted(files, key=lambda one: (-one.bytes, one.path)):
        at = next((at for at, left in enumerate(room) if left >= file.bytes), None)
        if at is None:
            bins.append([])
            room.append(sizes.target)
            at = len(bins) - 1
        bins[at].append(file)
        room[at] -= file.bytes
    return bins


def shard_of(uri: str) -> str | None:
    """The shard whose processor wrote the file; None for any other file."""
    found = _SHARD_FILE.fullmatch(uri)
    return found["shard"] if found else None


def committed_to(uri: str) -> str:
    """The position of the commit that was to name a processor's file; the empty text, below all, for any other."""
    found = _SHARD_FILE.fullmatch(uri)
    return found["stop"] if found else ""


@dataclass(frozen=True)
class Found:
    """An object below the table's location."""

    uri: str
    bytes: int
    modified_ms: int


def could_be_committed(uri: str, entries: Mapping[str, Sequence[ShardEntry]]) -> bool:
    """Whether a processor that wrote this data file may still name it in a commit.

    A commit is refused unless epoch and position are those in the ledger, and both only grow. `entries` are those of
    every pipeline, by shard id; a shard that they lack cannot be judged so.
    """
    found = _SHARD_FILE.fullmatch(uri)
    if found is None or found["shard"] not in entries:
        return False
    epoch, start = int(found["epoch"]), found["start"]
    return any(epoch > one.epoch or (epoch == one.epoch and start >= one.position) for one in entries[found["shard"]])


def orphans(found: Iterable[Found], entries: Sequence[ShardEntry], live: Set[str], older_than_ms: int) -> list[Found]:
    """Objects that no snapshot has, no commit names and none can name any more, and that are old.

    Read in this order, each whole before the next: the objects, the ledger, the table. Then a file committed in
    between is still one that could be committed, and one published in between is live.
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
