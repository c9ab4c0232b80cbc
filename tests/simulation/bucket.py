"""The bucket of a run: objects with the times of their writing, and Iceberg's way to them."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from pyiceberg.io import FileIO

from headwater.testing.objects import MemoryObjects
from tests.simulation.world import World

__all__ = ["MEMORY", "BucketIO", "SimulatedObjects"]

MEMORY = "s3://memory/"


class SimulatedObjects(MemoryObjects):
    """Objects in memory, each with the time of its writing."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.times: dict[str, int] = {}

    def put(self, key: str, body: bytes) -> str:
        self.times[key] = self._world.now
        return super().put(key, body)

    def put_file(self, key: str, path: Path) -> str:
        return self.put(key, path.read_bytes())

    def dated(self, prefix: str) -> Iterator[tuple[str, int, int]]:
        return iter([(key, len(self.bodies[key]), self.times[key]) for key in self.list(prefix)])


class _Output(BytesIO):
    def __init__(self, place: "_Place") -> None:
        super().__init__()
        self._place = place

    def close(self) -> None:
        if not self.closed:
            self._place.objects.put(self._place.key, self.getvalue())
        super().close()


class _Place:
    """One object, to be read or written."""

    def __init__(self, objects: SimulatedObjects, location: str) -> None:
        self.location, self.objects, self.key = location, objects, location.removeprefix(MEMORY)

    def __len__(self) -> int:
        return len(self._body)

    @property
    def _body(self) -> bytes:
        try:
            return self.objects.bodies[self.key]
        except KeyError:
            raise FileNotFoundError(self.location) from None

    def exists(self) -> bool:
        return self.key in self.objects.bodies

    def open(self, seekable: bool = True) -> BytesIO:
        return BytesIO(self._body)

    def create(self, overwrite: bool = False) -> _Output:
        return _Output(self)

    def to_input_file(self) -> "_Place":
        return self


class BucketIO(FileIO):  # type: ignore[misc]  # pyiceberg is not looked into
    """Read and write Iceberg's files. Nothing goes wrong here: its threads may not be paused."""

    def __init__(self, objects: SimulatedObjects) -> None:
        super().__init__({})
        self._objects = objects

    def new_input(self, location: str) -> Any:
        return _Place(self._objects, location)

    def new_output(self, location: str) -> Any:
        return _Place(self._objects, location)

    def delete(self, location: Any) -> None:
        self._objects.delete(str(getattr(location, "location", location)).removeprefix(MEMORY))
