"""Put events from an event loop: what a thread would wait for is awaited.

Without an outbox a sender takes an event in microseconds, and it is taken on the loop's own thread; with one it is
written to disk first, on another thread. A task that is cancelled while it waits for room has put nothing.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from headwater.producers.admission import Room
from headwater.producers.sender import Sender
from headwater.producers.settings import Receipt

__all__ = ["put_row"]

Offered = Future[Receipt] | Room


async def put_row(sender: Sender, row: dict[str, object], size: int, seconds: float) -> "asyncio.Future[Receipt]":
    """Put one validated event, as `Sender.put_row` does; BufferFull when there was no room for so many seconds."""
    until = asyncio.get_running_loop().time() + seconds
    called: Room | None = None
    while True:

        def offer(called: Room | None = called) -> Offered:
            return sender.offer_row(row, size, called)

        found = offer() if sender.outbox is None else await _finished(offer, sender)
        if not isinstance(found, Room):
            delivery = asyncio.wrap_future(found)
            delivery.add_done_callback(_asked)
            return delivery
        try:
            async with asyncio.timeout_at(until):
                await asyncio.wrap_future(found)
        except BaseException as error:
            _leave(sender, found)
            if isinstance(error, TimeoutError):
                raise sender.admission.full(waited=True) from None
            raise
        called = found


def _asked(delivery: "asyncio.Future[Receipt]") -> None:
    """Keep asyncio from logging each failure that no task awaited: `flush`, `close` and the counts tell them."""
    if not delivery.cancelled():
        delivery.exception()


async def on_thread(call: Callable[[], None]) -> None:
    """Run what waits on another thread; a cancelled task leaves it running."""
    await asyncio.to_thread(call)


async def _finished(offer: Callable[[], Offered], sender: Sender) -> Offered:
    """Offer on another thread. A task that is cancelled meanwhile waits for the answer: what is on disk is accepted."""
    running = asyncio.ensure_future(asyncio.to_thread(offer))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(lambda done: _let_go(done, sender))
        if not running.done():
            await asyncio.wait([running])
        raise


def _let_go(done: "asyncio.Task[Offered]", sender: Sender) -> None:
    """Leave the line in which a cancelled task stands since its offer."""
    if not done.cancelled() and done.exception() is None:
        found = done.result()
        if isinstance(found, Room):
            _leave(sender, found)


def _leave(sender: Sender, room: Room) -> None:
    """Leave the line; with an outbox on another thread, as its lock is held while something is written to disk."""
    if sender.outbox is None:
        sender.admission.leave(room)
    else:
        asyncio.get_running_loop().run_in_executor(None, sender.admission.leave, room)
