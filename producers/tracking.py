"""Track every event from acceptance until it is delivered or has failed: futures, flushes, memory and counts.

Pure bookkeeping. It never blocks, sends or writes; the sender calls it under its lock and completes the futures that
it returns outside of it, because a future's callbacks are the application's code.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from headwater.errors import HeadwaterError, UsageError
from headwater.producers.sealing import BatchSlice, LaneBuffer, SealedBatch
from headwater.producers.settings import ProducerStats, Receipt
from headwater.producers.writer import Delivered, Failed

__all__ = ["Completions", "DeliveryFuture", "DeliveryTracker", "OnDelivery", "PendingPut"]

log = logging.getLogger("headwater.producer")

OnDelivery = Callable[[Receipt | None, HeadwaterError | None], object]
"""Called once a record, on the sender thread: with its receipt, or with the error for which it was given up."""

_INHERITED = -1
"""The epoch of events that an earlier run left in the outbox: nobody holds a future, every flush waits for them."""


class DeliveryFuture(Future[Receipt]):
    """Wait for a delivery, in the process that put the event; a fork's copy raises UsageError, as nobody completes it.

    What was done before the fork is there in both.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()
        self._is_complete = False
        self.set_running_or_notify_cancel()  # what is on its way cannot be cancelled

    def set_result(self, result: Receipt) -> None:
        """Complete the future: Kinesis has the events."""
        super().set_result(result)
        self._is_complete = True

    def set_exception(self, exception: BaseException | None) -> None:
        """Complete the future: the events are given up."""
        super().set_exception(exception)
        self._is_complete = True

    def result(self, timeout: float | None = None) -> Receipt:
        """Return the receipt, or raise why there is none; TimeoutError after so many seconds."""
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return why the events were given up, None when they were delivered; TimeoutError after so many seconds."""
        self._check_process()
        return super().exception(timeout)

    def _check_process(self) -> None:
        # Not `done()`: the lock that it takes may have been held when the process was forked.
        if not self._is_complete and os.getpid() != self._pid:
            raise UsageError(f"the event was put in process {self._pid}, and this is a fork of it: ask there")


@dataclass(eq=False)
class PendingPut:
    """Hold the future of events that were put together, and how many of them are still open."""

    epoch: int
    future: "Future[Receipt]"
    left: int
    origin: str = ""
    first_seq: int = 0
    count: int = 0
    error: HeadwaterError | None = None


@dataclass
class Completions:
    """Collect the futures to complete and the callbacks to make once the lock is released."""

    receipts: list[tuple[Receipt | None, HeadwaterError | None]] = field(default_factory=list)
    puts: list[tuple[PendingPut, Receipt | None]] = field(default_factory=list)

    def announce(self, on_delivery: OnDelivery | None) -> None:
        """Complete futures and call back; what a callback raises is logged and changes nothing."""
        for put, receipt in self.puts:
            if receipt is not None:
                put.future.set_result(receipt)
            else:
                put.future.set_exception(put.error)
        for receipt, error in self.receipts if on_delivery else ():
            try:
                on_delivery(receipt, error)  # type: ignore[misc]  # the pair is one of the two
            except Exception:
                log.exception("the delivery callback raised")


class DeliveryTracker:
    """Count each event from acceptance until it is settled. Not thread-safe by itself."""

    def __init__(self) -> None:
        self.accepted = self.delivered = self.retried = self.dropped = self.failed = 0
        self.bytes = 0
        """Memory that events take: unsealed ones as they came, sealed ones by their record."""
        self.error: HeadwaterError | None = None
        """The first failure since it was last raised."""
        self._epoch = 0
        self._open: dict[int, int] = {}
        self._slices: dict[int, list[BatchSlice]] = {}
        self._inherited = set[int]()

    def stats(self) -> ProducerStats:
        """Return the counts as they are now."""
        return ProducerStats(self.accepted, self.delivered, self.retried, self.dropped, self.failed, self.bytes)

    @property
    def unsettled(self) -> int:
        """Return how many events are neither delivered nor failed, those of earlier runs included."""
        return sum(self._open.values())

    def new_put(self, count: int = 1) -> PendingPut:
        """Return the handle of events of the present epoch."""
        return PendingPut(self._epoch, DeliveryFuture(), count)

    def accept(self, count: int, size: int) -> None:
        """Count events that `put` takes, with the memory they need."""
        self.accepted += count
        self.bytes += size
        self._open[self._epoch] = self._open.get(self._epoch, 0) + count

    def inherit(self, count: int, size: int) -> None:
        """Count unsealed events of an earlier run."""
        self.bytes += size
        self._open[_INHERITED] = self._open.get(_INHERITED, 0) + count

    def sealed(self, pairs: Iterable[tuple[SealedBatch, list[BatchSlice]]], freed: int, in_memory: bool) -> None:
        """Note that groups of `freed` bytes became batches. `in_memory` is False when only the outbox holds them."""
        self.bytes -= freed
        for batch, slices in pairs:
            self.bytes += batch.size if in_memory else 0
            self._slices[batch.batch_id] = slices
            for one in slices:
                one.group.rows = None
                put = one.group.put
                if isinstance(put, PendingPut) and not put.origin and batch.origin is not None:
                    put.origin, put.first_seq = batch.origin, batch.first_seq + one.offset

    def load(self, batch: SealedBatch) -> None:
        """Count the memory of a batch that was read from the outbox."""
        self.bytes += batch.size
        if batch.batch_id not in self._slices and batch.batch_id not in self._inherited:
            self._inherited.add(batch.batch_id)
            self.inherit(batch.count, 0)

    def unload(self, batch: SealedBatch) -> None:
        """Free the memory of a batch that only the outbox holds from now on."""
        self.bytes -= batch.size

    def next_epoch(self) -> int:
        """Begin an epoch; return the one before, for `is_settled`: later events are not waited for."""
        self._epoch += 1
        return self._epoch - 1

    def is_settled(self, epoch: int) -> bool:
        """Tell whether every event of this epoch and those before is delivered or has failed."""
        return not any(count for one, count in self._open.items() if one <= epoch)

    def delivered_all(self, found: Sequence[Delivered]) -> Completions:
        """Settle batches that Kinesis has."""
        completions = Completions()
        for one in found:
            batch = one.batch
            self.delivered += batch.count
            receipt = Receipt(batch.origin or "", batch.first_seq, batch.count, one.shard_id, one.sequence_number)
            completions.receipts.append((receipt, None))
            self.bytes -= batch.size
            self._settle(batch, receipt, None, completions)
        return completions

    def failed_all(self, found: Sequence[Failed]) -> Completions:
        """Settle batches that are given up."""
        completions = Completions()
        for one in found:
            self.failed += one.batch.count
            self.error = self.error or one.error
            completions.receipts.append((None, one.error))
            self.bytes -= one.batch.size
            self._settle(one.batch, None, one.error, completions)
        return completions

    def abandon(self, buffers: Iterable[LaneBuffer], error: HeadwaterError) -> Completions:
        """Fail everything that is still open: unsealed events, and batches wherever they are."""
        completions = Completions()
        slices = [one for batch in self._slices.values() for one in batch]
        completions.receipts += [(None, error)] * len(self._slices)
        slices += [BatchSlice(group, 0, group.count) for buffer in buffers for group in buffer.groups]
        for one in slices:
            if isinstance(one.group.put, PendingPut):
                self.failed += one.count
                self._close_slice(one, None, error, completions)
        if slices:
            self.error = self.error or error
        self._slices.clear()
        self._inherited.clear()
        self._open.clear()
        self.bytes = 0
        return completions

    def _settle(
        self, batch: SealedBatch, receipt: Receipt | None, error: HeadwaterError | None, completions: Completions
    ) -> None:
        slices = self._slices.pop(batch.batch_id, None)
        if slices is None:
            self._inherited.discard(batch.batch_id)
            self._close(_INHERITED, batch.count)
            return
        for one in slices:
            if isinstance(one.group.put, PendingPut):
                self._close_slice(one, receipt, error, completions)
            else:
                self._close(_INHERITED, one.count)

    def _close_slice(
        self, one: BatchSlice, receipt: Receipt | None, error: HeadwaterError | None, completions: Completions
    ) -> None:
        put: PendingPut = one.group.put
        self._close(put.epoch, one.count)
        put.left -= one.count
        put.count += one.count
        put.error = put.error or error
        if put.left:
            return
        done = None
        if put.error is None and receipt is not None:
            done = Receipt(put.origin, put.first_seq, put.count, receipt.shard_id, receipt.sequence_number)
        completions.puts.append((put, done))

    def _close(self, epoch: int, count: int) -> None:
        self._open[epoch] -= count
        if not self._open[epoch]:
            del self._open[epoch]
