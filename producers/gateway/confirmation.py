"""Wait for Kinesis' confirmation without a thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from headwater.producers.settings import Receipt

__all__ = ["Confirmation", "wait_for_confirmation", "when_all_are_done"]


@dataclass(frozen=True)
class Confirmation:
    """Say how many events of a request are confirmed, how many of its futures are still open, and the first error."""

    confirmed: int
    open: int
    error: str = ""

    @property
    def is_complete(self) -> bool:
        """Say whether every event is confirmed."""
        return not self.open and not self.error


async def wait_for_confirmation(futures: "Sequence[Future[Receipt]]", seconds: float) -> Confirmation:
    """Wait until all futures are done, at most so long. The futures go on even if the waiting task is cancelled."""
    all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    when_all_are_done(futures, lambda: None if all_done.done() else all_done.set_result(None))
    if futures:
        await asyncio.wait([all_done], timeout=seconds)
    done = [one for one in futures if one.done()]
    failed = [error for one in done if (error := one.exception())]
    confirmed = sum(one.result().count for one in done if not one.exception())
    return Confirmation(confirmed, len(futures) - len(done), str(failed[0]) if failed else "")


def when_all_are_done(futures: "Sequence[Future[Receipt]]", call: Callable[[], None]) -> None:
    """Call on this event loop once all futures are done."""
    loop = asyncio.get_running_loop()
    left = len(futures)

    def count_down() -> None:
        nonlocal left
        left -= 1
        if not left:
            call()

    def on_done(_: "Future[Receipt]") -> None:
        # called in the producer's thread, which may outlive the loop by a moment
        if not loop.is_closed():
            loop.call_soon_threadsafe(count_down)

    for future in futures:
        future.add_done_callback(on_done)
