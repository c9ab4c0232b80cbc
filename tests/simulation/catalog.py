"""A table catalog that lies as real ones were seen to: commits acknowledged and lost, foreign writers in between."""

from collections.abc import Sequence

from headwater.errors import Retryable
from tests.simulation.world import World

__all__ = ["MemoryTable", "TableSession"]

OVERTAKES_MS = 900
"""How long after a commit another writer's, begun before it, may still land on top and undo it."""


class MemoryTable:
    """The data files of one table. A commit may be acknowledged and not be there, at once or for so long after."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.files: list[str] = []
        self.revision = 0
        self._doomed: dict[str, int] = {}

    def _settle(self) -> None:
        gone = {path for path, at in self._doomed.items() if self._world.now >= at}
        if gone:
            self.files = [path for path in self.files if path not in gone]
            self.revision += 1
            self._doomed = {path: at for path, at in self._doomed.items() if path not in gone}

    def load(self) -> tuple[int, set[str]]:
        self._settle()
        return self.revision, set(self.files)

    def commit(self, revision: int, paths: Sequence[str]) -> None:
        """On top of the revision that was read. Adding a path that is there would double it: nothing prevents that."""
        self._settle()
        if revision != self.revision:
            raise Retryable("table: another writer was faster")
        self.revision += 1
        if self._world.chance("catalog loses"):
            return
        self.files += list(paths)
        if self._world.chance("catalog drops foreign"):
            at = self._world.now + self._world.random.randint(1, OVERTAKES_MS)
            self._doomed.update(dict.fromkeys(paths, at))


class TableSession:
    """What one publisher has of the table: the port of `sinks.publisher`."""

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self._revision = 0

    def paths(self) -> set[str]:
        self._revision, paths = self._table.load()
        return paths

    def add(self, paths: Sequence[str]) -> None:
        self._table.commit(self._revision, paths)
