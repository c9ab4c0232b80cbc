"""A table catalog that lies as real ones were seen to: commits acknowledged and lost, foreign writers in between."""

from collections.abc import Sequence

from tests.simulation.world import World

__all__ = ["MemoryTable"]


class MemoryTable:
    """The data files of one table. A commit may be acknowledged and not be there, at once or after the next one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.files: list[str] = []
        self.foreign = 0
        self._doomed: set[str] = set()

    def paths(self) -> set[str]:
        return set(self.files)

    def add(self, paths: Sequence[str]) -> None:
        """Acknowledges in any case. Adding a path that is there would double it: nothing here prevents that."""
        kept = [path for path in self.files if path not in self._doomed]
        self._doomed.clear()
        self.files = kept
        if self._world.chance("catalog loses"):
            return
        self.files += list(paths)
        if self._world.chance("catalog drops foreign"):
            # somebody else's commit, begun before ours, lands on top of it: ours is seen, and then gone
            self._doomed.update(paths)

    def foreign_commit(self) -> None:
        """Another writer adds a file of its own, and whatever was overtaken disappears."""
        self.files = [path for path in self.files if path not in self._doomed]
        self._doomed.clear()
        self.foreign += 1
        self.files.append(f"s3://elsewhere/foreign-{self.foreign}.parquet")
