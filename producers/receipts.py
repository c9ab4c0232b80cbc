"""Say on the stream which events it has: receipts, from which the audit knows what every later hop must have.

A receipt names only events that Kinesis has confirmed, and is put after them on every shard. So whoever has read it on
a shard has read that shard's events of it before, and what is missing then is lost; a batch that failed, or is still
on its way, is in no receipt.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from headwater.arrays import coded
from headwater.codec import Decoded, decode_record
from headwater.contract import Contract
from headwater.errors import HeadwaterError
from headwater.lineage.origins import OriginSets
from headwater.producers.kinesis import KinesisStream
from headwater.producers.outbox import Outbox
from headwater.producers.sealing import SealedBatch
from headwater.producers.settings import ProducerSettings

__all__ = ["PendingReceipts", "ReceiptWriter"]

log = logging.getLogger("headwater.producer")

MAX_BODY_BYTES = 500_000


class PendingReceipts:
    """Collect the identities of delivered events that no receipt names yet.

    Numbered events only: a session's own, and those of a contract whose own id has a sequence. Ids that are one text
    would need a receipt as large as the events. Not thread-safe.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self._sets = OriginSets()

    def add_batch(self, batch: SealedBatch) -> None:
        """Add the events of a delivered batch."""
        if batch.origin is not None:
            self.add_session(batch.origin, batch.first_seq, batch.count)
        elif self.contract.id is None or self.contract.id.seq is None:
            return
        elif batch.ids is not None:
            self.add_own_ids(batch.ids)
        else:  # it comes from the outbox of an earlier run
            found = decode_record(batch.payload, self.contract)
            if isinstance(found, Decoded):
                self.add_own_ids(found.table)

    def add_session(self, origin: str, first_seq: int, count: int) -> None:
        """Add `count` events of an origin from `first_seq` on."""
        self._sets.add_intervals(origin, [(first_seq, first_seq + count)], 0)

    def add_own_ids(self, table: pa.Table) -> None:
        """Add the events whose own ids are in the table's columns, where they have a number."""
        own = self.contract.id
        if own is None or own.seq is None:
            return
        origins = coded(table.column(own.origin))
        codes = self._sets.codes(origins.dictionary)[origins.indices.to_numpy()]
        seqs = table.column(own.seq).to_numpy().astype(np.int64)
        self._sets.add(codes, seqs, np.zeros(len(codes), np.int64))

    def intervals(self) -> Iterator[tuple[str, int, int]]:
        """Yield origin, first number and number of events of each run without a gap."""
        for origin in self._sets.origins():
            yield from ((origin, start, stop - start) for start, stop in self._sets.get(origin))

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to put."""
        return not len(self._sets)

    def take(self) -> "PendingReceipts":
        """Return what is there; from now on a new set is collected."""
        taken = PendingReceipts(self.contract)
        taken._sets, self._sets = self._sets, taken._sets
        return taken

    def put_back(self, taken: "PendingReceipts") -> None:
        """Take back what could not be put."""
        self._sets.update(taken._sets)

    def bodies(self) -> Iterator[dict[str, object]]:
        """Yield the receipts' bodies, each below 500 KB."""
        intervals: dict[str, list[list[int]]] = {}
        size = 0
        for origin in self._sets.origins():
            name_bytes = len(json.dumps(origin))
            for start, stop in self._sets.get(origin):
                intervals.setdefault(origin, []).append([start, stop])
                size += 48 + name_bytes
                if size > MAX_BODY_BYTES:
                    yield {"contract": self.contract.name, "intervals": intervals}
                    intervals, size = {}, 0
        if intervals:
            yield {"contract": self.contract.name, "intervals": intervals}


class ReceiptWriter:
    """Put receipts on the stream every `receipt_seconds`. Only the sender thread uses it.

    With an outbox it is durable up to which number of each session the receipts are on the stream, and which other
    identities none names yet, so that a death between delivery and receipt leaves none out.
    """

    def __init__(
        self, stream: KinesisStream, contract: Contract, settings: ProducerSettings, outbox: Outbox | None
    ) -> None:
        self._stream = stream
        self._every_ms = round(settings.receipt_seconds * 1000)
        self._enabled = settings.receipts and settings.format == "columnar"
        self._outbox = outbox
        self._pending = PendingReceipts(contract)
        self._last_ms = stream.clock.now_ms()
        for origin, first_seq, count in outbox.unannounced() if outbox and self._enabled else ():
            self._pending.add_session(origin, first_seq, count)

    def add(self, batch: SealedBatch) -> None:
        """Remember a delivered batch for the next receipt."""
        if self._enabled:
            self._pending.add_batch(batch)

    def identities(self, batches: Iterable[SealedBatch]) -> list[tuple[str, int, int]]:
        """Return what receipts are to name of delivered batches: (origin, first number, count)."""
        found = PendingReceipts(self._pending.contract)
        for batch in batches if self._enabled else ():
            found.add_batch(batch)
        return list(found.intervals())

    def due_ms(self) -> int | None:
        """Return when the next receipt is to be put, None when there is nothing to say."""
        return None if self._pending.empty else self._last_ms + self._every_ms

    def postpone(self) -> None:
        """Leave what is pending for the next time that receipts are put."""
        self._last_ms = self._stream.clock.now_ms()

    def put(self, refused: Counter[str]) -> HeadwaterError | None:
        """Put what is pending; return the failure, if any: then the same is put next time, as without a key to sign it.

        `refused` counts the records that each shard has refused since the last receipt, and is emptied by this one.
        """
        self.postpone()
        if not self._stream.can_sign():
            return None
        # The outbox's view comes first: what is delivered after it may or may not be in this receipt, and is put again.
        delivered = self._outbox.delivered_up_to() if self._outbox is not None else {}
        told = self._outbox.untold() if self._outbox is not None else []
        taken = self._pending.take()
        try:
            for body in taken.bodies():
                self._stream.put_control("receipt", body | ({"refused": dict(refused)} if refused else {}))
                refused.clear()
        except HeadwaterError as error:
            log.warning("receipts are put later: %s", error)
            self._pending.put_back(taken)
            return error
        if self._outbox is not None:
            self._outbox.announce(delivered, told)
        return None
