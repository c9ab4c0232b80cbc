"""The shards that a Lambda function's container has in hand: each invocation moves one forward and commits.

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

from headwater import sequence
from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.ledger import ShardEntry
from processors.pipeline import Pipeline
from processors.runners.embedded import ShardInfo, list_shards
from processors.runners.lambdaevents import Delivery, batch, discarded, source
from processors.runners.lambdaworker import CarefulWorker, Stopped
from processors.runners.shardreader import PASSING, ReaderSettings, ReaderStatus, ShardReader
from processors.worker import Ports

__all__ = ["Budget", "LambdaShards"]

log = logging.getLogger("headwater.lambda")

_WARM = 4
"""Shards whose state a container keeps; Lambda sends a shard's next batch to any container that is free."""
_END = "9" * sequence.WIDTH
_EMPTY = 8
"""So many reads of nothing at the tip, a quarter of a second apart: the stream has no more."""


class Budget:
    """An invocation's time. What is kept back is for the commit."""

    def __init__(self, remaining_ms: Callable[[], int]) -> None:
        self._remaining_ms = remaining_ms
        self._reserve_ms = min(30_000, remaining_ms() // 3)

    def to_read(self) -> bool:
        return self._remaining_ms() > self._reserve_ms

    def to_commit(self) -> bool:
        return self._remaining_ms() > 1_500


class LambdaShards:
    """One a container. Not thread-safe: a container has one invocation at a time."""

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

    def invoke(self, event: Mapping[str, Any], remaining_ms: Callable[[], int]) -> dict[str, list[dict[str, str]]]:
        """The partial batch response: from where on the batch was not committed. Raises when none of it was."""
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
        """Read what the mapping has given up; messages that could not be settled are reported."""
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

    def _advance(self, delivery: Delivery, budget: Budget) -> str:
        """Commit the shard up to the delivery's end, or as far as the time goes; returns the committed position."""
        started = self._clock.now_ms()
        shard_id = delivery.shard_id
        entry = self._ports.ledger.shard(shard_id)
        if entry is not None and entry.position >= delivery.until and self._pipeline.pure:
            return entry.position  # a repetition; an impure pipeline may still owe the views
        taken = self._still_ours(shard_id, entry)
        reader, worker = taken or self._claimed(shard_id, list_shards(self._kinesis, self._settings.stream), budget)
        said = {"shard": shard_id, "warm": taken is not None, "delivered": len(delivery.records)}
        said["after"] = worker.entry.position
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
        log.info("batch", extra=said | {"epoch": worker.entry.epoch, "position": worker.entry.position, "ms": ms})
        return worker.entry.position

    def _keep(self, reader: ShardReader, worker: CarefulWorker) -> None:
        """For the shard's next batch, unless it began with doubts: the next claim looks at them anew."""
        worker.relax()
        if not worker.careful:
            self._warm[worker.shard_id] = (reader, worker)
            while len(self._warm) > _WARM:
                self._warm.pop(next(iter(self._warm)))

    def _still_ours(self, shard_id: str, now: ShardEntry | None) -> tuple[ShardReader, CarefulWorker] | None:
        """The reader in memory, if the ledger knows of no other since. Whatever goes wrong later, it is let go."""
        found = self._warm.pop(shard_id, None)
        if found is None or now is None:
            return None
        mine = found[1].entry
        if (now.epoch, now.position, now.closed) != (mine.epoch, mine.position, mine.closed):
            return None
        found[1].entry = now
        return found

    def _claimed(self, shard_id: str, shards: Sequence[ShardInfo], budget: Budget) -> tuple[ShardReader, CarefulWorker]:
        """Take the shard over, its parents finished before it."""
        info = next((one for one in shards if one.shard_id == shard_id), None)
        parents = info.parents if info else ()
        if self._ports.ledger.shard(shard_id) is None:
            for parent in parents:
                self._finish(parent, shards, budget)
        worker = CarefulWorker(self._pipeline, shard_id, self._ports, self._settings, self._clock, self._owner())
        if info:
            worker.covers(info.start, info.end)
        status = ReaderStatus(shard_id)
        reader = ShardReader(self._kinesis, self._settings.stream, worker, self._clock, ReaderSettings(), status)
        reader.start(list(parents))
        return reader, worker

    def _finish(self, shard_id: str, shards: Sequence[ShardInfo], budget: Budget) -> None:
        """Close a parent: nothing tells a function that a shard has ended, except its child's first batch."""
        entry = self._ports.ledger.shard(shard_id)
        if entry is not None and entry.closed:
            return
        reader, worker = self._claimed(shard_id, shards, budget)
        worker.expect(Delivery(shard_id, _END), budget.to_read)
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
        while True:
            try:
                worker.commit()
                return
            except Fenced:
                raise
            except (Retryable, ClientError, BotoCoreError) as error:
                final = isinstance(error, ClientError) and error.response["Error"]["Code"] not in PASSING
                if final or not budget.to_commit():
                    raise
                log.warning("commit again", extra={"shard": worker.shard_id, "reason": str(error)})
                self._clock.sleep(0.5)

    def _where(self, shard_id: str) -> str:
        return f"stream {self._settings.stream}, shard {shard_id}"
