"""Move a shard forward and commit, one invocation of a Lambda function at a time.

A batch says which shard has records and up to where. It cannot say what is *not* in it: records that the mapping gave
up before it, or (with a parallelization factor or a filter) left out of its middle, and sequence numbers have no
visible gaps. So the function reads the shard itself, from the ledger's position to the end of the batch, and takes
from the batch only what the stream no longer has. Retries, bisected, repeated and lost batches are all the same to it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.ledger import ShardEntry
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.ports import StreamClient
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.runners.passing import repeat
from headwater.processors.runners.serverless.events import ShardBatch, batch, discarded, source
from headwater.processors.runners.serverless.worker import CarefulWorker, Stopped
from headwater.processors.runners.shardreader import ReaderStatus, ShardReader
from headwater.processors.runners.upstream import check_stream, claim_worker
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.stream import sequence
from headwater.stream.shards import Shard, list_shards

__all__ = ["Budget", "LambdaShards"]

log = logging.getLogger("headwater.lambda")

_WARM = 4
"""Shards whose state a container keeps; Lambda sends a shard's next batch to any container that is free."""
_END = "9" * sequence.WIDTH
_CHECK_MS = 300_000
"""Time for which a container believes that the ledger is of this stream."""
_EMPTY = 8
"""So many reads of nothing at the tip, a quarter of a second apart: the stream has no more."""


class Budget:
    """Divide an invocation's time. What is kept back is for the commit."""

    def __init__(self, remaining_ms: Callable[[], int]) -> None:
        self._remaining_ms = remaining_ms
        self._reserve_ms = min(30_000, remaining_ms() // 3)

    def to_read(self) -> bool:
        """Tell whether there is time to read more."""
        return self._remaining_ms() > self._reserve_ms

    def to_commit(self) -> bool:
        """Tell whether there is time for another attempt at the commit."""
        return self._remaining_ms() > 1_500


class LambdaShards:
    """Process the shards of a container, of which each has one. Not thread-safe: it has one invocation at a time."""

    def __init__(
        self, pipeline: Pipeline, kinesis: Any, ports: Ports, settings: Settings, clock: Clock, owner: Callable[[], str]
    ) -> None:
        self._pipeline = pipeline
        self._kinesis = kinesis
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._owner = owner
        """A new name for each claim: containers restored from one snapshot must not share one."""
        self._warm: dict[str, tuple[ShardReader, CarefulWorker]] = {}
        self._retention_ms: int | None = None
        self._check_ms = 0

    def invoke(self, event: Mapping[str, Any], remaining_ms: Callable[[], int]) -> dict[str, list[dict[str, str]]]:
        """Process an event; return the partial batch response, which names the first record that is not committed.

        Raises Retryable when none of the batch is.
        """
        budget = Budget(remaining_ms)
        if source(event) == "aws:sqs":
            return self._messages(event["Records"], budget)
        delivery = batch(event, self._settings.stream)
        position = self._advance(delivery, budget)
        left = [record for record in delivery.records if sequence.pad(record.sequence_number) > position]
        if len(left) == len(delivery.records):
            raise Retryable(
                f"{self._where(delivery.shard_id)}: committed up to {position}, the batch is not reached yet"
            )
        return {"batchItemFailures": [{"itemIdentifier": record.sequence_number} for record in left[:1]]}

    def _messages(self, messages: Sequence[Mapping[str, Any]], budget: Budget) -> dict[str, list[dict[str, str]]]:
        """Read what the mapping has given up; report the messages whose records could not be read."""
        failed = []
        for message in messages:
            try:
                delivery = discarded(message["body"], self._settings.stream)
                done = budget.to_read() and self._advance(delivery, budget) >= delivery.until
            except (HeadwaterError, ClientError, BotoCoreError) as error:
                log.error("a batch given up is still to be read", extra={"reason": f"{type(error).__name__}: {error}"})
                done = False
            if not done:
                failed.append({"itemIdentifier": str(message["messageId"])})
        return {"batchItemFailures": failed}

    def _advance(self, delivery: ShardBatch, budget: Budget) -> str:
        """Commit the shard up to the delivery's end, or as far as the time goes; return the committed position."""
        started = self._clock.now_ms()
        shard_id = delivery.shard_id
        entry = self._ports.ledger.shard(shard_id)
        if entry is not None and entry.position >= delivery.until and self._pipeline.pure:
            return entry.position  # a repetition; an impure pipeline may still owe the views
        taken = self._still_ours(shard_id, entry)
        reader, worker = taken or self._claimed(shard_id, self._shards(), budget)
        summary = {"shard": shard_id, "warm": taken is not None, "delivered": len(delivery.records)}
        summary["after"] = worker.entry.position
        worker.expect(delivery, budget.to_read)
        try:
            self._read(reader, worker, delivery.until, budget)
            self._commit(worker, budget)
        except Stopped:
            worker.relax()  # committed part by part; the reader is ahead of the worker, so it is not kept
        except Fenced as error:
            log.warning("fenced", extra={"shard": shard_id, "reason": str(error)})
            raise Fenced(
                f"{self._where(shard_id)}: taken over in mid-batch, its end was not committed here. If this goes on: "
                f"set ParallelizationFactor to 1, and let no second mapping or fleet run this pipeline ({error})"
            ) from error
        else:
            self._keep(reader, worker)
        ms = self._clock.now_ms() - started
        log.info("batch", extra=summary | {"epoch": worker.entry.epoch, "position": worker.entry.position, "ms": ms})
        return worker.entry.position

    def _keep(self, reader: ShardReader, worker: CarefulWorker) -> None:
        """Keep the reader for the shard's next batch, unless it began with doubts: the next claim looks at them."""
        worker.relax()
        if not worker.careful:
            self._warm[worker.shard_id] = (reader, worker)
            while len(self._warm) > _WARM:
                self._warm.pop(next(iter(self._warm)))

    def _still_ours(self, shard_id: str, now: ShardEntry | None) -> tuple[ShardReader, CarefulWorker] | None:
        """Return the reader in memory, if the ledger knows of no other since; None when a claim is needed.

        It is kept again only after an invocation that ends well.
        """
        found = self._warm.pop(shard_id, None)
        if found is None or now is None:
            return None
        mine = found[1].entry
        if (now.epoch, now.position, now.closed) != (mine.epoch, mine.position, mine.closed):
            return None
        found[1].entry = now
        return found

    def _shards(self) -> Sequence[Shard]:
        """List the shards, once it is certain that the ledger is of this stream."""
        source, now = StreamClient(self._kinesis, self._settings.stream), self._clock.now_ms()
        if now >= self._check_ms:
            self._retention_ms = check_stream(source, self._ports.ledger, self._clock).retention_ms
            self._check_ms = now + _CHECK_MS
        return list_shards(source.kinesis, source.stream)

    def _claimed(self, shard_id: str, shards: Sequence[Shard], budget: Budget) -> tuple[ShardReader, CarefulWorker]:
        """Claim the shard, after its parents are read to their end."""
        info = next((one for one in shards if one.shard_id == shard_id), None)
        if self._ports.ledger.shard(shard_id) is None:
            for parent in info.parents if info else ():
                self._finish(parent, shards, budget)
        context = WorkerContext(self._pipeline, self._ports, self._settings, self._clock, self._owner())
        worker = claim_worker(CarefulWorker, context, shard_id, shards)
        status = ReaderStatus(shard_id)
        reader = ShardReader(
            self._kinesis,
            self._settings.stream,
            worker,
            self._clock,
            ReaderSettings(),
            status,
            retention=lambda: self._retention_ms,
        )
        reader.start()
        return reader, worker

    def _finish(self, shard_id: str, shards: Sequence[Shard], budget: Budget) -> None:
        """Read a parent to its end: nothing but its child's first batch tells a function that a shard has ended."""
        entry = self._ports.ledger.shard(shard_id)
        if entry is not None and entry.closed:
            return
        reader, worker = self._claimed(shard_id, shards, budget)
        worker.expect(ShardBatch(shard_id, _END), budget.to_read)
        with suppress(Stopped):
            while (found := reader.step()) is not None and budget.to_read():
                if not found and reader.status.lag_ms == 0:  # nothing comes into a shard that has children
                    worker.commit(closed=True)
                    break
        if not worker.entry.closed:
            self._commit(worker, budget)
            raise Retryable(f"{self._where(shard_id)}: a parent, to be read to its end before its children")
        log.info("parent closed", extra={"shard": shard_id, "position": worker.entry.position})

    def _read(self, reader: ShardReader, worker: CarefulWorker, until: str, budget: Budget) -> None:
        empty = 0
        while worker.position < until and budget.to_read():
            if worker.entry.closed:
                raise HeadwaterError(f"{self._where(worker.shard_id)}: its end is committed at {worker.position}")
            if reader.step():
                empty = 0
                continue
            empty += reader.status.lag_ms == 0
            if empty == _EMPTY:
                worker.take_delivered()
                return
            self._clock.sleep(0.25)

    def _commit(self, worker: CarefulWorker, budget: Budget) -> None:
        waits = iter(lambda: 0.5 if budget.to_commit() else None, None)
        repeat(worker.commit, waits, self._clock, f"{self._where(worker.shard_id)}, not committed: no time left")

    def _where(self, shard_id: str) -> str:
        return f"stream {self._settings.stream}, shard {shard_id}"
