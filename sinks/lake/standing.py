"""Decide what became of each pending file: it is in its table, it was, or it has to be added. Pure.

"Absent now" is not "lost". A file that an ancestor of the current snapshot had and a later one removed is taken care
of: another engine has rewritten it, or somebody has deleted its rows. Only a file that no ancestor ever had is added.

Where snapshots have expired, an ancestor may have had the file without our seeing it. Iceberg numbers a table's
snapshots (`sequence_number`), and never goes back. The number before the first attempt to add a file is written down,
so a snapshot that has the file comes after it; if one of those is out of sight, the file is `undecided`, and a person
decides.
"""

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from headwater.ledger import PendingFile

__all__ = ["FilePlan", "Paths", "TableState", "digest", "plan_files"]


def digest(path: str) -> str:
    """Return 64 bits of the path's hash as text.

    >>> digest("s3://bucket/lake/t/data/a.parquet")
    '9fd2101fbcf0f324'
    """
    return hashlib.sha256(path.encode()).hexdigest()[:16]


class Paths(Protocol):
    """Say of paths whether they are in it."""

    def __contains__(self, path: str, /) -> bool:
        """Return whether the path is in it."""
        ...


@dataclass(frozen=True)
class TableState:
    """Hold one reading of a table.

    `files` are the data files of the current snapshot, `added` contains every file that a visible ancestor has added.
    `visible_from` is the sequence number from which on all ancestors are visible, and
    `sequence` the highest number that the table has given out.
    """

    files: Set[str]
    added: Paths = field(default_factory=frozenset)
    visible_from: int = 0
    sequence: int = 0

    def history(self, before: int) -> tuple[Paths, int]:  # noqa: ARG002 (a lazy state reads no more than it is asked for)
        """Return what the snapshots after sequence number `before` have added, and from which number on they are
        visible.
        """
        return self.added, self.visible_from


@dataclass(frozen=True)
class FilePlan:
    """Say what one table needs.

    `add` has paths in the ledger's order, each once; `standing` those that the table has or had; `undecided` those that
    it may have had in a snapshot that has expired.
    """

    add: tuple[str, ...]
    standing: frozenset[str]
    undecided: frozenset[str] = frozenset()


def plan_files(pending: Iterable[PendingFile], state: TableState, attempts: Mapping[str, int]) -> FilePlan:
    """Compare one table's pending files with its state.

    `attempts` has by digest the table's sequence number before the first attempt to add each file.
    """
    wanted = dict.fromkeys(file.uri for file in pending)
    # only a file that somebody has tried to add can be in the history: new ones cost no look at it
    missing = {uri: digest(uri) for uri in wanted if uri not in state.files}
    tried = {uri: attempts[one] for uri, one in missing.items() if one in attempts}
    added, visible_from = state.history(min(tried.values())) if tried else (frozenset[str](), 0)
    standing = frozenset(uri for uri in wanted if uri not in missing or (uri in tried and uri in added))
    # a snapshot that added the file has at least the next number
    undecided = frozenset(uri for uri in tried if uri not in standing and tried[uri] + 1 < visible_from)
    return FilePlan(tuple(uri for uri in wanted if uri not in standing | undecided), standing, undecided)
