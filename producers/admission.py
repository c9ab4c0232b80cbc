"""Admit events while the buffer has room, and line up what waits for it: threads, and tasks of event loops.

The sender calls all of it under its lock, and tasks call `leave`. A task waits for a `Room`, which is done when there
seems to be some; it then asks again. Tasks are called in the order in which they came.
"""

from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from threading import Condition

from headwater.errors import BufferFull
from headwater.producers.settings import ProducerSettings
from headwater.producers.tracking import DeliveryTracker

__all__ = ["Admission", "Room"]


class Room(Future[None]):
    """Call a task that waits for room: done when it may ask again. Whoever waits no more must `leave`.

    `turn` is its place among all tasks that have waited, which it keeps when it asks again in vain.
    """

    def __init__(self, turn: int) -> None:
        super().__init__()
        self.turn = turn


class Admission:
    """Hold the buffer of one sender to its bound. `changed` is the sender's lock, notified when there is room."""

    def __init__(self, stream: str, settings: ProducerSettings, tracker: DeliveryTracker, changed: Condition) -> None:
        self._limit, self._seconds = settings.max_buffer_bytes, settings.block_seconds
        self._tracker, self._changed = tracker, changed
        self._full = f"stream {stream}: the producer's buffer of {self._limit} bytes is full"
        self._threads = 0
        self._tasks: dict[Room, int] = {}
        """Bytes that each task waits for, in the order of their turns."""
        self._turns = count()

    @property
    def pressed(self) -> bool:
        """Tell whether anybody waits for room."""
        return self._threads > 0 or bool(self._tasks)

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes fit; a first event is always taken, however large: else it would wait for ever."""
        return self._tracker.bytes + size <= self._limit or not self._tracker.bytes

    def full(self, *, waited: bool = False) -> BufferFull:
        """Return what a caller is told that is not admitted."""
        return BufferFull(f"{self._full}, for {self._seconds:g} s" if waited else self._full)

    def wait(self, size: int, ended: Callable[[], object]) -> bool:
        """Wait for room on the caller's thread, until `ended` says so; return False after `block_seconds`."""
        self._threads += 1
        try:
            return bool(self._changed.wait_for(lambda: self.has_room(size) or ended(), self._seconds))
        finally:
            self._threads -= 1

    def line_up(self, size: int, called: Room | None = None) -> Room | None:
        """Return what a task is to wait for, None where there is room and nobody waits who came before it.

        `called` is what a task has waited for that asks again.
        """
        turn = next(self._turns) if called is None else called.turn
        first = next(iter(self._tasks), None)
        if self.has_room(size) and (first is None or first.turn > turn):
            return None
        room = Room(turn)
        self._tasks[room] = size
        if called is not None:
            self._tasks = dict(sorted(self._tasks.items(), key=lambda one: one[0].turn))
        return room

    def leave(self, room: Room) -> None:
        """Forget a task that waits no more; one that was called already gives its turn to the next."""
        with self._changed:
            self._tasks.pop(room, None)
            self.call()

    def call(self, *, everyone: bool = False) -> None:
        """Call the tasks that have room now, the first before the others; or all, since nothing is taken any more."""
        free = self._limit - self._tracker.bytes
        for room, size in list(self._tasks.items()):
            if not everyone and size > free and self._tracker.bytes and not room.cancelled():
                return
            del self._tasks[room]
            if room.set_running_or_notify_cancel():
                free -= size
                room.set_result(None)
