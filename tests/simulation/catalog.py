"""A table catalog that lies as real ones were seen to: commits acknowledged and lost, foreign writers in between."""

from collections.abc import Mapping, Sequence

from headwater.errors import Retryable
from headwater.sinks.lake.standing import TableState
from tests.simulation.world import World

__all__ = ["SimulatedTable", "TableSession"]

OVERTAKES_MS = 900
"""How long after a commit another writer's, begun before it, may still land on top and undo it."""


class SimulatedTable:
    """The data files of one table. A commit may be acknowledged and not be there, at once or for so long after."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.files: list[str] = []
        self.added: set[str] = set()
        self.revision = 0
        self._doomed: dict[str, int] = {}

    def _settle(self) -> None:
        gone = {path for path, at in self._doomed.items() if self._world.now >= at}
        if gone:
            self.files = [path for path in self.files if path not in gone]
            self.added -= gone
            self.revision += 1
            self._doomed = {path: at for path, at in self._doomed.items() if path not in gone}

    def load(self) -> TableState:
        """The files that are there, and those that were: what is undone is in no history."""
        self._settle()
        return TableState(set(self.files), frozenset(self.added), 0, self.revision)

    def commit(self, revision: int, paths: Sequence[str]) -> None:
        """On top of the revision that was read. Adding a path that is there would double it: nothing prevents that."""
        self._settle()
        if revision != self.revision:
            raise Retryable("table: another writer was faster")
        self.revision += 1
        if self._world.chance("catalog loses"):
            return
        self.files += list(paths)
        self.added |= set(paths)
        if self._world.chance("catalog drops foreign"):
            at = self._world.now + self._world.random.randint(1, OVERTAKES_MS)
            self._doomed.update(dict.fromkeys(paths, at))

    def replace(self, gone: Sequence[str], path: str) -> None:
        """Put one file in place of some, as another engine does: on top of everything, and never undone."""
        self._settle()
        assert set(gone) <= set(self.files), "an engine's commit fails when a file that it replaces is gone"
        self.revision += 1
        self.files = [one for one in self.files if one not in gone] + [path]
        self.added.add(path)
        # what a commit stands on is not undone by one that was begun before
        self._doomed = {one: at for one, at in self._doomed.items() if one not in gone}


class TableSession:
    """What one publisher has of the table: the port of `headwater.sinks.lake.publisher`."""

    def __init__(self, table: SimulatedTable) -> None:
        self._table = table
        self._revision = 0

    def read(self) -> TableState:
        found = self._table.load()
        self._revision = found.sequence
        return found

    def add(self, paths: Sequence[str]) -> Mapping[str, str]:
        self._table.commit(self._revision, paths)
        return {}
