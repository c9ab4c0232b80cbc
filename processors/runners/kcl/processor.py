"""Run the record processor that the KCL's MultiLangDaemon starts, one process a shard.

Started as `python -m headwater.processors.runners.kcl.processor`.

stdin and stdout carry the MultiLang protocol. stdout is therefore taken away from everybody else first (a `print` in a
user's function would break the protocol): what is printed becomes lines of the log, JSON on stderr.

An error ends the process with status 1, which ends the daemon as well; the supervisor starts it again. `amazon_kclpy`
itself would swallow the error and report the records as processed.
"""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, TextIO

from amazon_kclpy.checkpoint_error import CheckpointError
from amazon_kclpy.kcl import KCLProcess
from amazon_kclpy.v3.processor import RecordProcessorBase

from headwater.clock import SystemClock
from headwater.codec import encode_kpl
from headwater.config import read_settings
from headwater.processors.definition.loading import load
from headwater.processors.runners.kcl.shard import Checkpoint, KclShard
from headwater.processors.services import Services, new_owner
from headwater.processors.shard.context import WorkerContext
from headwater.stream.record import StreamRecord
from headwater.telemetry.logs import to_stdout

__all__ = ["ShardProcessor", "main", "stream_records"]

log = logging.getLogger("headwater.kcl")


class ShardProcessor(RecordProcessorBase):  # type: ignore[misc]  # amazon_kclpy has no types
    """Pass the five calls of the KCL on to a KclShard."""

    def __init__(self, claim: Callable[[str], KclShard], context: "LogContext") -> None:
        self._claim = claim
        self._context = context

    def initialize(self, initialize_input: Any) -> None:
        """Claim the shard and resume at the ledger's position."""
        self._context.shard = initialize_input.shard_id
        with _fatal():
            self._shard = self._claim(initialize_input.shard_id)
            self._context.of = self._shard
            self._shard.resume(initialize_input.sequence_number)

    def process_records(self, process_records_input: Any) -> None:
        """Process the delivered records, of which there may be none."""
        with _fatal():
            records = stream_records(self._shard.shard_id, process_records_input.records, self._shard.first_hash_key)
            take = _checkpoint(process_records_input.checkpointer)
            self._shard.process(records, process_records_input.millis_behind_latest, take)

    def lease_lost(self, lease_lost_input: Any) -> None:  # noqa: ARG002 (the KCL's signature)
        """Drop what is in memory."""
        with _fatal():
            self._shard.lost()

    def shard_ended(self, shard_ended_input: Any) -> None:
        """Commit the end of the shard, then checkpoint it."""
        with _fatal():
            self._shard.ended(_checkpoint(shard_ended_input.checkpointer))

    def shutdown_requested(self, shutdown_requested_input: Any) -> None:
        """Commit, then checkpoint."""
        with _fatal():
            self._shard.requested(_checkpoint(shutdown_requested_input.checkpointer))


def stream_records(shard_id: str, delivered: Sequence[Any], hash_key: int | None = None) -> list[StreamRecord]:
    """Return the records as the stream holds them.

    The KCL takes aggregates of the KPL apart, and an event is known by its place in the whole record, so user records
    of one sequence number are put together again. `hash_key` is one of the shard's own: the daemon does not pass on
    explicit hash keys, and it has dropped what is not the shard's.
    """
    out = []
    for number, group in groupby(delivered, key=lambda record: record.sequence_number):
        parts = list(group)
        first = parts[0]
        data = first.binary_data
        if len(parts) > 1 or first.sub_sequence_number:
            key = None if hash_key is None else str(hash_key)
            data = encode_kpl([part.binary_data for part in parts], first.partition_key, key)
        arrived_ms = first._timestamp_millis  # the public property is naive local time, ambiguous twice a year
        out.append(StreamRecord(shard_id, number, arrived_ms, first.partition_key, data))
    return out


class LogContext(logging.Filter):
    """Add shard, worker, lease and epoch to every line of the log."""

    def __init__(self, worker: str, table: str) -> None:
        super().__init__()
        self._worker = worker
        self._table = table
        self.shard = ""
        self.of: KclShard | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; let every line through."""
        record.shard = self.shard
        record.worker = self._worker
        record.lease = f"{self._table}/{self.shard}"
        record.epoch = self.of.epoch if self.of else 0
        return True


@contextmanager
def _fatal() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.exception("the shard's process ends: %s: %s", type(error).__name__, error)
        raise SystemExit(1) from error


def _checkpoint(checkpointer: Any) -> Checkpoint:
    def take(sequence_number: str | None) -> bool:
        try:
            checkpointer.checkpoint(sequence_number)
        except CheckpointError as error:
            if error.value == "InvalidStateException":
                raise  # the protocol is out of step; amazon_kclpy says not to go on
            log.info("checkpoint not taken", extra={"reason": error.value, "sequence_number": sequence_number})
            return False
        return True

    return take


class _Printed(io.TextIOBase):
    """Turn what is printed into lines of the log, so that shard and worker are known of it too."""

    def __init__(self) -> None:
        super().__init__()
        self._rest = ""
        self._log = logging.getLogger("headwater.stdout")

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self._log.info(line)
        return len(text)


def _own_stdout() -> TextIO:
    """Return the protocol's own output, and put stderr in place of stdout for everybody else."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = _Printed()
    return protocol


def main() -> None:
    """Serve the protocol until the KCL closes stdin."""
    protocol = _own_stdout()
    settings = read_settings()
    to_stdout(settings.log_level, sys.stderr)
    pipeline = load(settings.pipeline)
    application = settings.kcl.application or f"{settings.stream}-{pipeline.name}"
    context = LogContext(settings.kcl.worker, settings.kcl.table or application)
    for handler in logging.getLogger().handlers:
        handler.addFilter(context)
    services = Services(settings, pipeline, SystemClock())

    def claim(shard_id: str) -> KclShard:
        shared = WorkerContext(pipeline, services.ports, settings, services.clock, new_owner())
        return KclShard.claim(shared, services.stream_client, shard_id)

    KCLProcess(ShardProcessor(claim, context), sys.stdin, protocol, sys.stderr).run()


if __name__ == "__main__":
    main()
