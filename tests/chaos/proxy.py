"""A TCP proxy before a service: it loses requests, loses, cuts and delays answers, and is down at times.

It knows nothing of what it carries: bytes of a client after bytes of the service begin a request, and the other way
round an answer.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from threading import Event, Thread
from urllib.parse import urlsplit

__all__ = ["Faults", "Proxy"]

_CHUNK = 1 << 16
Drain = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Faults:
    """What happens to how many requests; shared by the proxies, changed while they run. `calm` is no fault at all."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.request_lost = 0.004
        """The service never sees it."""
        self.answer_lost = 0.006
        """It was carried out, and the client does not learn of it."""
        self.answer_cut = 0.004
        self.delayed = 0.02
        self.most_delay_seconds = 1.5
        self.down: set[str] = set()
        """Services that refuse connections at the moment."""
        self.counts: Counter[tuple[str, str]] = Counter()

    def calm(self) -> None:
        """From now on everything gets through."""
        self.request_lost = self.answer_lost = self.answer_cut = self.delayed = 0.0
        self.down.clear()

    def of(self, service: str, fault: str, share: float) -> bool:
        """Whether the fault happens now, counted."""
        if self.random.random() >= share:
            return False
        self.counts[service, fault] += 1
        return True


class _Connection:
    """One client's connection with the service's."""

    def __init__(self, service: str, faults: Faults, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._service, self._faults, self._ends = service, faults, ends
        self._asking = False

    async def requests(self, client: asyncio.StreamReader) -> None:
        while data := await client.read(_CHUNK):
            if not self._asking and self._faults.of(self._service, "requests lost", self._faults.request_lost):
                return
            self._asking = True
            await self._send(self._ends[1], data)

    async def answers(self, server: asyncio.StreamReader) -> None:
        faults, service = self._faults, self._service
        while data := await server.read(_CHUNK):
            if self._asking:
                self._asking = False
                faults.counts[service, "answers"] += 1
                if faults.of(service, "delayed", faults.delayed):
                    await asyncio.sleep(faults.random.uniform(0.05, faults.most_delay_seconds))
                if faults.of(service, "answers lost", faults.answer_lost):
                    return
                if faults.of(service, "answers cut", faults.answer_cut):
                    await self._send(self._ends[0], data[: len(data) // 2])
                    return
            await self._send(self._ends[0], data)

    async def _send(self, to: asyncio.StreamWriter, data: bytes) -> None:
        to.write(data)
        await to.drain()


class Proxy:
    """`with Proxy("kinesis", "http://127.0.0.1:4567", faults) as proxy:`; `proxy.url` is where clients go."""

    def __init__(self, service: str, target: str, faults: Faults) -> None:
        self.service, self.url = service, ""
        self._faults = faults
        parts = urlsplit(target)
        assert parts.port is not None
        self._target = (parts.hostname or "127.0.0.1", parts.port)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = Event()
        self._thread = Thread(target=self._serve, name=f"proxy {service}", daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Every connection there is."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        self._loop.run_forever()
        self._abort_all()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.service in self._faults.down:
            self._faults.counts[self.service, "refused"] += 1
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, forth}
        connection = _Connection(self.service, self._faults, (writer, forth))
        both = [asyncio.create_task(connection.requests(reader)), asyncio.create_task(connection.answers(back))]
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for end in (writer, forth):
            end.transport.abort()
        self._open -= {writer, forth}
