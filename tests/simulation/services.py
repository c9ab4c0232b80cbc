"""What a simulated process stands on: its end, and a stream with faults of its own."""

from typing import Any

from headwater.testing.faults import client_error
from headwater.testing.kinesis import MemoryKinesis
from tests.simulation.world import World

__all__ = ["FaultyKinesis", "NeverStopped"]


class NeverStopped:
    """An event that only the runner itself sets, waited for in simulated time."""

    def __init__(self, world: World) -> None:
        self._world, self._set = world, False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        self._world.sleep(seconds * 1000)
        return self._set


class FaultyKinesis:
    """The stream, with the faults that only a stream has."""

    def __init__(self, world: World, inner: MemoryKinesis) -> None:
        self._world, self._inner = world, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_records(self, **request: Any) -> Any:
        if self._world.chance("denied"):
            raise client_error("put_records", "KMSDisabledException", "simulated")
        if self._world.chance("expired token"):
            raise client_error("put_records", "ExpiredTokenException", "simulated")
        if self._world.chance("partial put"):
            count = len(request["Records"])
            self._inner.faults.partial(at for at in range(count) if self._world.random.random() < 0.5)
        return self._inner.put_records(**request)

    def get_records(self, **request: Any) -> Any:
        if self._world.chance("expired iterator"):
            raise client_error("get_records", "ExpiredIteratorException", "simulated")
        return self._inner.get_records(**request)
