"""Waiting for Kinesis without a thread."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from producers.settings import Receipt

__all__ = ["Settled", "settled"]


@dataclass(frozen=True)
class Settled:
    """How far the events of a request have come: so many are confirmed, and why others are not."""

    confirmed: int
    open: int
    error: str = ""

    @property
    def done(self) -> bool:
        return not self.open and not self.error


async def settled(futures: "Sequence[Future[Receipt]]", seconds: float) -> Settled:
    """Wait for all futures, at most so long. The futures go on whatever happens to the waiter."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    left = len(futures)

    def one_less() -> None:
        nonlocal left
        left -= 1
        if not left and not over.done():
            over.set_result(None)

    def tell(_: "Future[Receipt]") -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(one_less)

    for future in futures:
        future.add_done_callback(tell)
    if futures:
        await asyncio.wait([over], timeout=seconds)
    done = [one for one in futures if one.done()]
    failed = [error for one in done if (error := one.exception())]
    confirmed = sum(one.result().count for one in done if not one.exception())
    return Settled(confirmed, len(futures) - len(done), str(failed[0]) if failed else "")
