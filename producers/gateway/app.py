"""Take a request through the gateway's steps, whatever its protocol.

Authenticate, admit (memory), receive, read, write, confirm: each step either goes on or raises Problem. Routes, status
codes of one protocol and the formats of bodies do not belong here; they are in `events`, `otlp`, `otlpgrpc` and
`bodies`. Whatever computes or blocks runs in a few threads; the event loop only moves bytes and waits.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from headwater.clock import Clock
from headwater.codec.bounds import TooLarge
from headwater.config import GatewaySettings
from headwater.contract import Contract
from headwater.errors import BufferFull, HeadwaterError
from headwater.memory import return_memory
from headwater.producers.gateway.admission import MINIMUM_BYTES, MemoryBudget, NeedsMore, Reservation
from headwater.producers.gateway.bodies import EXPANSION, ParsedBody, inflate
from headwater.producers.gateway.confirmation import Confirmation, wait_for_confirmation, when_all_are_done
from headwater.producers.gateway.metrics import Metrics
from headwater.producers.gateway.writer import ContractWriter
from headwater.producers.settings import Receipt
from headwater.web.auth import ANONYMOUS, Authenticator, Principal, credential
from headwater.web.limits import Limits
from headwater.web.problems import Problem

__all__ = ["Gateway", "PendingWrite", "ReceivedBody", "Submission"]

log = logging.getLogger("headwater.gateway")

_SYNC_SECONDS = 5.0
_DRAIN_SECONDS = 60.0
_PAUSE_SECONDS = 0.02
_USUAL_RATIO = 16
"""Factor by which a compressed body usually grows at most: telemetry as JSON shrinks to about a tenth."""
_LARGE_BYTES = 8 << 20
"""Bytes reserved from which on a request's memory is given back to the operating system behind it."""

T = TypeVar("T")


@dataclass
class ReceivedBody:
    """Hold a body as it came, its Content-Encoding, and the memory that is reserved for what it becomes."""

    content: bytes
    encoding: str
    held: Reservation | None = None


@dataclass(frozen=True)
class Submission:
    """Hold the rows of a request, the writer of their contract, and the identity of the first row if it has one."""

    writer: ContractWriter
    parsed: ParsedBody
    identity: tuple[str, int] | None


@dataclass(frozen=True)
class PendingWrite:
    """Hold a submission that its writer has accepted, and the futures of its confirmation."""

    submission: Submission
    futures: "list[Future[Receipt]]"


class Gateway:
    """Take events for the contracts in `writers`, by contract name. Belongs to one event loop.

    `start` it when the server accepts connections; `refuse_requests` and then `drain` it when the server ends.
    """

    def __init__(
        self,
        writers: Mapping[str, ContractWriter],
        settings: GatewaySettings,
        authenticator: Authenticator,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.writers, self.settings, self.clock = writers, settings, clock
        self._authenticator, self._limits = authenticator, limits
        # apart, so that bodies that wait to be read never hold what those need that are read
        bodies = settings.max_inflight_bytes // 3
        self._body_memory = MemoryBudget(bodies, settings.wait_seconds)
        self._memory = MemoryBudget(settings.max_inflight_bytes - bodies, settings.wait_seconds)
        # two pools: a slow DynamoDB or token issuer must not keep the bodies of known callers from being read
        self._compute_threads = ThreadPoolExecutor(max(1, settings.decoders), "gateway")
        self._blocking_threads = ThreadPoolExecutor(4, "gateway-ask")
        self.metrics = Metrics(
            lambda: {name: one.stats for name, one in writers.items()},
            lambda: self._body_memory.used + self._memory.used,
        )
        self._accepts = False
        self._failure = ""
        self._usage_task: asyncio.Task[None] | None = None

    @property
    def contracts(self) -> list[Contract]:
        """Return the contracts that are served."""
        return [one.contract for one in self.writers.values()]

    @property
    def needs_credentials(self) -> bool:
        """Say whether callers need a key or a token."""
        return not self._authenticator.is_open

    @property
    def unready_reason(self) -> str:
        """Return why events are not taken now; empty when they are."""
        full = [name for name, writer in self.writers.items() if writer.is_full]
        return (
            self._failure or ("" if self._accepts else "shutting down") or (f"full: {', '.join(full)}" if full else "")
        )

    def start(self) -> None:
        """Accept requests from now on."""
        self._usage_task = asyncio.create_task(self._give_quotas_back_often())
        self._accepts = True

    def refuse_requests(self) -> None:
        """Answer new requests 503 from now on; those under way go on."""
        self._accepts = False
        if self._usage_task is not None:
            self._usage_task.cancel()

    async def drain(self) -> None:
        """Deliver what was accepted, waiting up to a minute, and log what could not be delivered."""
        loop = asyncio.get_running_loop()
        closing = [loop.run_in_executor(None, writer.close) for writer in self.writers.values()]
        done, left = await asyncio.wait(closing, timeout=_DRAIN_SECONDS) if closing else (set(), set())
        for one in done:
            if one.exception() is not None:
                log.error("not everything was delivered: %s", one.exception())
        if left:
            log.error("not everything was delivered within %g s", _DRAIN_SECONDS)
        await self._give_quotas_back(all_of_it=True)

    async def _give_quotas_back_often(self) -> None:
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            await self._give_quotas_back()

    async def _give_quotas_back(self, *, all_of_it: bool = False) -> None:
        try:
            await self.run_blocking(partial(self._limits.sync, all_of_it=all_of_it))
        except Exception as error:
            log.warning("quotas that are not used cannot be given back: %s: %s", type(error).__name__, error)

    async def compute(self, call: Callable[..., T], *values: Any) -> T:
        """Run what computes in one of the `decoders` threads."""
        return await asyncio.get_running_loop().run_in_executor(self._compute_threads, call, *values)

    async def run_blocking(self, call: Callable[..., T], *values: Any) -> T:
        """Run what waits for another service in a thread of its own pool."""
        return await asyncio.get_running_loop().run_in_executor(self._blocking_threads, call, *values)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """Return the caller if it may write now; Problem 401, 429 or 503."""
        if not self._accepts:
            raise Problem.retryable(503, "not-ready", "the gateway is shutting down", 1)
        if self._authenticator.is_open:
            return ANONYMOUS
        text = credential(headers)
        caller = self._authenticator.cached(text)
        now = self.clock.now_ms()
        try:
            if caller is None:
                caller = await self.run_blocking(self._authenticator.authenticate, text)
            self._limits.take_token(caller, now)
            if not self._limits.has_quota(caller, 1, now):
                await self.run_blocking(self._limits.reserve_quota, caller, 1, now)
        except (Problem, asyncio.CancelledError):
            raise
        except Exception as error:
            log.warning("credentials cannot be checked: %s: %s", type(error).__name__, error)
            raise Problem.retryable(503, "not-ready", "credentials cannot be checked now", 2) from None
        return caller

    async def _charge(self, caller: Principal, events: int) -> None:
        """Take the caller's tokens and quota for events that are about to be written; Problem 429 or 503."""
        now = self.clock.now_ms()
        self._limits.take_tokens(caller, events, now)
        try:
            if not self._limits.take_reserved_quota(caller, events, now):
                await self.run_blocking(self._limits.take_quota, caller, events, now)
        except (Problem, asyncio.CancelledError):
            self._limits.give_back_tokens(caller, events, now)
            raise
        except Exception as error:
            self._limits.give_back_tokens(caller, events, now)
            log.warning("the quota cannot be checked: %s: %s", type(error).__name__, error)
            raise Problem.retryable(503, "not-ready", "the quota cannot be checked now", 2) from None

    def writer_for(self, caller: Principal, contract: str) -> ContractWriter:
        """Return the writer of a contract; Problem 404 when there is none, 403 when the caller has no right to it."""
        writer = self.writers.get(contract)
        if writer is None:
            raise Problem(404, "not-found", "there is no such contract here; see /openapi.json")
        if not caller.allows(contract):
            raise Problem(403, "forbidden", f"these credentials may not write to {contract}")
        return writer

    @asynccontextmanager
    async def admit(self, receive: Callable[[], Awaitable[bytes]]) -> AsyncIterator[ReceivedBody]:
        """Yield a body of which nothing is known until all of it is here; its memory is reserved until the block ends.

        While it comes that is the memory of the largest there may be. Problem 408 or 503.
        """
        reservation = await self._body_memory.reserve(self.settings.max_body_bytes)
        try:
            body = await self._in_time(receive())
            reservation.settle(len(body))
            async with _holding(ReceivedBody(body, "")) as received:
                yield received
        finally:
            reservation.close()

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[ReceivedBody]:
        """Yield the body as it came; its memory is reserved until the block ends. Problem 408, 413 or 503."""
        limit = self.settings.max_body_bytes
        length = request.headers.get("content-length", "")
        expected = int(length[:19]) if length.isdecimal() else 0  # one of more digits is too large by its first ones
        if expected > limit:
            raise _too_large(limit)
        reservation = await self._body_memory.reserve(expected)
        try:
            try:
                body = await self._in_time(_read_body(request, reservation, limit))
            except NeedsMore:
                raise self._body_memory.exhausted() from None
            async with _holding(ReceivedBody(body, request.headers.get("content-encoding", ""))) as received:
                yield received
        finally:
            reservation.close()

    async def _in_time(self, receiving: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                return await receiving
        except TimeoutError:
            raise Problem(408, "timeout", f"the body took more than {self.settings.body_seconds:g} s") from None

    async def parse(
        self, body: ReceivedBody, needs: Callable[[bytes], int], parse: Callable[[bytes, int], Submission]
    ) -> Submission:
        """Decompress a body and parse it in a thread, each once its memory is reserved; Problem 503 when it is not.

        `needs` returns how many bytes parsing takes at its peak. What a body becomes is counted,
        not what came: a gzip bomb of 200 KB takes the place of many requests, and waits until there is one. `parse` has
        the body and how many bytes of text its rows may come to; where it raises TooLarge it is called again with all.
        """
        sent, limit = len(body.content), self.settings.max_decoded_bytes
        is_plain = body.encoding.strip().lower() in ("", "identity")
        # usual bodies come to less than this; those that do not are decompressed twice, and the second time reserve all
        guess = sent if is_plain else min(limit, max(MINIMUM_BYTES, _USUAL_RATIO * sent))
        whole = limit if is_plain else 2 * limit  # what comes out is moved as it grows

        async def read(held: Reservation) -> Submission:
            try:
                bound = limit if is_plain or held.covers(whole) else guess
                text = await self.compute(inflate, body.content, body.encoding, bound)
            except Problem as problem:
                if problem.status != 413 or bound == limit:
                    raise
                raise NeedsMore(whole) from None
            try:
                held.grow(await self.compute(needs, text))
                every = EXPANSION * limit
                usual = limit if held.covers(every) else min(limit, held.size // EXPANSION)
                try:
                    return await self.compute(parse, text, usual)
                except TooLarge:
                    held.grow(every)
                return await self.compute(parse, text, limit)
            finally:
                del text
                if held.size >= _LARGE_BYTES:
                    await self.compute(return_memory)

        submission, body.held = await self._memory.reserved(guess, read)
        body.content = b""
        body.held.settle(submission.parsed.table.nbytes)
        return submission

    async def write(self, caller: Principal, submission: Submission, traceparent: str | None) -> PendingWrite:
        """Charge the caller and hand the rows to their writer; Problem 429, or 503 when its buffer stays full."""
        events = submission.parsed.total
        await self._charge(caller, events)
        try:
            return await self._put(submission, traceparent)
        except Problem:
            # nothing was accepted, so nothing is charged
            self._limits.give_back_tokens(caller, events, self.clock.now_ms())
            self._limits.give_back_quota(caller, events, self.clock.now_ms())
            raise

    async def _put(self, submission: Submission, traceparent: str | None) -> PendingWrite:
        waited = 0.0
        while True:
            try:
                futures = await self.compute(submission.writer.put, submission.parsed, submission.identity, traceparent)
                self._failure = ""
                return PendingWrite(submission, futures)
            except BufferFull:
                if waited >= self.settings.wait_seconds:
                    raise self._memory.exhausted() from None
                await asyncio.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS
            except (HeadwaterError, sqlite3.Error) as error:  # the outbox's disk may be full
                self._failure = str(error)
                log.error("events cannot be taken: %s", error)
                raise Problem.retryable(503, "not-ready", f"nothing was accepted: {error}", 5) from None

    async def confirm(self, body: ReceivedBody, pending: PendingWrite) -> None:
        """Wait until Kinesis, or the outbox, has the events; Problem 503 when that is not known in time.

        Their memory is held until Kinesis has them or they are given up, even where the answer does not wait for that.
        """
        parsed = pending.submission.parsed
        name, events = pending.submission.writer.contract.name, parsed.table.num_rows
        self.metrics.count_events(name, "rejected", len(parsed.invalid))
        found = Confirmation(events, 0)
        if not self.settings.outbox:
            found = await wait_for_confirmation(pending.futures, self.settings.answer_seconds)
        self.metrics.count_events(name, "acknowledged", events if found.is_complete else found.confirmed)
        if found.is_complete:
            return
        self.metrics.count_events(name, "unconfirmed", events - found.confirmed)
        if body.held is not None and found.open:
            when_all_are_done(pending.futures, body.held.close)
            body.held = None
        has_identity = pending.submission.identity is not None
        retry = "a retry under the same identity makes no duplicate" if has_identity else "a retry may make duplicates"
        kind, why = ("undelivered", found.error) if found.error else ("unconfirmed", "Kinesis has not answered in time")
        detail = f"{found.confirmed} of {events} events are confirmed, the others may be in the stream or not: {why}"
        raise Problem.retryable(503, kind, f"{detail}; {retry}", 2, confirmed=found.confirmed)


@asynccontextmanager
async def _holding(body: ReceivedBody) -> AsyncIterator[ReceivedBody]:
    try:
        yield body
    finally:
        if body.held is not None:
            body.held.close()


async def _read_body(request: Request, reservation: Reservation, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        # in steps, so that a body of many small pieces does not go through the budget for each of them
        reservation.grow(-(-size // MINIMUM_BYTES) * MINIMUM_BYTES)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", f"the body has more than {limit} bytes; send it in parts")
