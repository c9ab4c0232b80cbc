"""Run one of the two consumers that `bench.kcl` puts behind the daemon.

`plain` is a usual amazon_kclpy consumer of JSON events, and `headwater` the processor as it is. Each notes in a file
what it had done, and when.
"""

import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amazon_kclpy.kcl import KCLProcess
from amazon_kclpy.v3.processor import RecordProcessorBase


class Notes:
    """Write one line a call: when it began and ended, and the records, bytes and events in it."""

    def __init__(self, path: str) -> None:
        self._out = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 (open as long as the process)

    def add(self, began: float, records: Sequence[Any], events: int) -> None:
        """Write a line."""
        size = sum(len(record.data) * 3 // 4 for record in records)  # base64, not decoded a second time
        self._out.write(json.dumps([began, time.time(), len(records), size, events]) + "\n")
        self._out.flush()


class Plain(RecordProcessorBase):  # type: ignore[misc]  # amazon_kclpy has no types
    """Consume every record as one event, as in the examples of AWS: parsed, added up, checkpointed after each call."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._sums: dict[str, float] = {}

    def initialize(self, initialize_input: Any) -> None: ...

    def process_records(self, process_records_input: Any) -> None:
        began, records = time.time(), process_records_input.records
        if not records:
            return
        for record in records:
            event = json.loads(record.binary_data)
            self._sums[event["metric"]] = self._sums.get(event["metric"], 0.0) + event["value"]
        self._notes.add(began, records, len(records))
        process_records_input.checkpointer.checkpoint()

    def lease_lost(self, lease_lost_input: Any) -> None: ...

    def shard_ended(self, shard_ended_input: Any) -> None:
        shard_ended_input.checkpointer.checkpoint()

    def shutdown_requested(self, shutdown_requested_input: Any) -> None:
        shutdown_requested_input.checkpointer.checkpoint()


def plain(notes: Notes) -> None:
    """Run the plain consumer."""
    protocol = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n")
    KCLProcess(Plain(notes), sys.stdin, protocol, sys.stderr).run()


def headwater(notes: Notes) -> None:
    """Run the shipped main with its calls timed."""
    from headwater.processors.runners.kcl import processor as kcl

    inner = kcl.ShardProcessor.process_records

    def timed(self: Any, process_records_input: Any) -> None:
        began, records = time.time(), process_records_input.records
        before = self._shard.worker.engine.state.counts.get("events", 0)
        inner(self, process_records_input)
        if records:
            notes.add(began, records, self._shard.worker.engine.state.counts["events"] - before)

    kcl.ShardProcessor.process_records = timed  # type: ignore[method-assign]  # measured in place
    kcl.main()


if __name__ == "__main__":
    {"plain": plain, "headwater": headwater}[sys.argv[1]](Notes(sys.argv[2]))
