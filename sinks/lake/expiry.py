"""Bound a table's history: forget its oldest snapshots, and delete the manifests that only these had.

Every commit writes all snapshots into a new metadata.json, so each would cost more than the one before.
Data files are left alone: `maintenance` finds those that nothing needs.
"""

from collections.abc import Collection

from pyiceberg.table import Table
from pyiceberg.table.snapshots import ancestors_of

__all__ = ["MAX_SNAPSHOTS", "expire_oldest", "oldest_beyond"]

MAX_SNAPSHOTS = 3_000
"""A day of commits, one every 30 s. Forgetting begins when there are a tenth more, so that it is one commit of many."""

MOST_AT_ONCE = 300
"""Snapshots that one step forgets: some seconds' work, well within a publisher's lease."""


def oldest_beyond(table: Table, keep: int, pinned: Collection[int] = ()) -> list[int]:
    """Return the snapshots to forget, oldest first, so that `keep` stay; none until there are a tenth more.

    Of many only the first, for the list of manifests of each is read: the others are for the next steps.

    What a branch or tag names stays, as does `pinned` (0: one before the first) and all that came after it.
    """
    snapshots = sorted(table.snapshots(), key=lambda one: (one.sequence_number or 0, one.timestamp_ms))
    if len(snapshots) <= keep + keep // 10:
        return []
    named = {ref.snapshot_id for ref in table.refs().values()}
    found = []
    for one in snapshots[: len(snapshots) - keep]:
        if one.snapshot_id in pinned or 0 in pinned:
            break
        if one.snapshot_id not in named:
            found.append(one.snapshot_id)
    return found[:MOST_AT_ONCE]


def expire_oldest(table: Table, gone: Collection[int]) -> set[str]:
    """Forget these snapshots in one commit; return the manifests and lists of manifests that no other snapshot has.

    Nothing is returned where history has branched: there it would take the lists of all snapshots to tell. Raise
    CommitFailedException when another writer was faster.
    """
    chain = list(ancestors_of(table.current_snapshot(), table.metadata))
    straight = {one.snapshot_id for one in chain} == {one.snapshot_id for one in table.snapshots()}
    kept = [one for one in chain if one.snapshot_id not in gone]
    objects: set[str] = set()
    if straight and kept and [one.snapshot_id for one in chain[: len(kept)]] == [one.snapshot_id for one in kept]:
        for one in chain[len(kept) :]:
            objects |= {one.manifest_list, *(file.manifest_path for file in one.manifests(table.io))}
        # a manifest that a commit has left out does not come back: what is needed later, the oldest kept one has
        objects -= {file.manifest_path for file in kept[-1].manifests(table.io)}
    table.maintenance.expire_snapshots().by_ids(list(gone)).commit()
    return objects
