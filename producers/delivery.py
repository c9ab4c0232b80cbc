"""Who waits for which events: futures, the delivery callback, counters. Not thread-safe by itself."""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from headwater.errors import HeadwaterError
from producers.sealing import Chunk, SealedBatch, Unsealed
from producers.settings import ProducerStats, Receipt
from producers.writer import Delivered, Failed

__all__ = ["Book", "OnDelivery", "Settled", "Waiting"]

log = logging.getLogger("headwater.producer")

OnDelivery = Callable[[Receipt | None, HeadwaterError | None], object]
"""Called once a record, on the sender thread: with its receipt, or with the error for which it was given up."""


@dataclass(eq=False)
class Waiting:
    """A part's token: its future, what is open of it, and the flush that has to wait for it."""

    epoch: int
    future: "Future[Receipt]"
    left: int
    origin: str = ""
    first_seq: int = 0
    count: int = 0
    error: HeadwaterError | None = None


@dataclass
class Settled:
    """What is to be told outside the lock."""

    receipts: list[tuple[Receipt | None, HeadwaterError | None]] = field(default_factory=list)
    futures: list[tuple[Waiting, Receipt | None]] = field(default_factory=list)

    def tell(self, on_delivery: OnDelivery | None) -> None:
        """Complete futures and call back; what a callback raises is logged and changes nothing."""
        for waiting, receipt in self.futures:
            if receipt is not None:
                waiting.future.set_result(receipt)
            else:
                waiting.future.set_exception(waiting.error)
        for receipt, error in self.receipts if on_delivery else ():
            try:
                on_delivery(receipt, error)  # type: ignore[misc]
            except Exception:
                log.exception("the delivery callback raised")


class Book:
    """Counts every event from acceptance until it is settled."""

    def __init__(self) -> None:
        self.accepted = self.delivered = self.retried = self.dropped = self.failed = self.bytes = 0
        self.epoch = 0
        self.error: HeadwaterError | None = None
        """The first failure since it was last raised."""
        self._open: dict[int, int] = {}
        self._chunks: dict[int, list[Chunk]] = {}

    def stats(self) -> ProducerStats:
        return ProducerStats(self.accepted, self.delivered, self.retried, self.dropped, self.failed, self.bytes)

    def accept(self, count: int, size: int) -> None:
        self.accepted += count
        self.bytes += size
        self._open[self.epoch] = self._open.get(self.epoch, 0) + count

    def waiting(self, count: int = 1) -> Waiting:
        """A token for a part of the present epoch."""
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()
        return Waiting(self.epoch, future, count)

    def recovered(self, count: int, size: int) -> None:
        """Events of an earlier run: nobody holds a future, a flush waits for them all the same."""
        self.bytes += size
        self._open[-1] = self._open.get(-1, 0) + count

    def sealed(self, pairs: Iterable[tuple[SealedBatch, list[Chunk]]], freed: int) -> None:
        """Parts became batches: from now on their sealed bytes count."""
        self.bytes -= freed
        for batch, chunks in pairs:
            self.bytes += batch.size
            self._chunks[batch.batch_id] = chunks
            for chunk in chunks:
                token = chunk.part.token
                if isinstance(token, Waiting) and not token.origin and batch.origin is not None:
                    token.origin, token.first_seq = batch.origin, batch.first_seq + chunk.offset

    def next_epoch(self) -> int:
        """Events accepted from now on are not waited for by whoever waits for the epoch returned."""
        self.epoch += 1
        return self.epoch - 1

    def is_settled(self, epoch: int) -> bool:
        return not any(count for one, count in self._open.items() if one <= epoch)

    def delivered_all(self, found: Sequence[Delivered]) -> Settled:
        settled = Settled()
        for one in found:
            self.delivered += one.batch.count
            receipt = Receipt(
                one.batch.origin or "", one.batch.first_seq, one.batch.count, one.shard_id, one.sequence_number
            )
            settled.receipts.append((receipt, None))
            self._settle(one.batch, receipt, None, settled)
        return settled

    def failed_all(self, found: Sequence[Failed]) -> Settled:
        settled = Settled()
        for one in found:
            self.failed += one.batch.count
            self.error = self.error or one.error
            settled.receipts.append((None, one.error))
            self._settle(one.batch, None, one.error, settled)
        return settled

    def _settle(
        self, batch: SealedBatch, receipt: Receipt | None, error: HeadwaterError | None, settled: Settled
    ) -> None:
        self.bytes -= batch.size
        chunks = self._chunks.pop(batch.batch_id, None)
        if chunks is None:
            self._close(-1, batch.count)
            return
        for chunk in chunks:
            token = chunk.part.token
            if not isinstance(token, Waiting):
                self._close(-1, chunk.count)
                continue
            self._close(token.epoch, chunk.count)
            token.left -= chunk.count
            token.count += chunk.count
            token.error = token.error or error
            if not token.left:
                done = None
                if token.error is None and receipt is not None:
                    done = Receipt(
                        token.origin, token.first_seq, token.count, receipt.shard_id, receipt.sequence_number
                    )
                settled.futures.append((token, done))

    def fail_sealed(self, error: HeadwaterError) -> Settled:
        """Sealed batches that the writer does not have are given up; with an outbox they stay there."""
        settled = Settled()
        for chunks in self._chunks.values():
            for chunk in chunks:
                token = chunk.part.token
                if isinstance(token, Waiting):
                    self.failed += chunk.count
                    token.error, token.left = error, token.left - chunk.count
                    if not token.left:
                        settled.futures.append((token, None))
        self._chunks.clear()
        return settled

    def fail_unsealed(self, buffers: Iterable[Unsealed], error: HeadwaterError) -> Settled:
        """Events that never came to be sealed are given up."""
        settled = Settled()
        self.error = self.error or error
        for part in (part for buffer in buffers for part in buffer.parts):
            self.failed += part.count
            self.bytes -= part.raw_bytes
            token = part.token
            self._close(token.epoch if isinstance(token, Waiting) else -1, part.count)
            if isinstance(token, Waiting):
                token.error = error
                settled.futures.append((token, None))
        return settled

    def _close(self, epoch: int, count: int) -> None:
        self._open[epoch] -= count
        if not self._open[epoch]:
            del self._open[epoch]
