"""The adapter between amazon_kclpy's loop over text streams and one shard."""

import io
import json

import pytest

from headwater.processors.runners.kcl.shard import KclShard
from tests.unit.test_kcl_shard import SHARD, Machine, delivered_record


def test_adapter_speaks_the_protocol() -> None:
    """amazon_kclpy's loop over text streams: aggregates come back together, checkpoints are asked for."""
    kcl = pytest.importorskip("amazon_kclpy.kcl")
    from headwater.processors.runners.kcl.processor import LogContext, ShardProcessor

    m = Machine()
    rows = [json.dumps({"device": "d", "metric": "m", "ts": 1_762_160_400_000, "value": float(i)}) for i in range(3)]
    delivered = [delivered_record("11", i, row.encode()) for i, row in enumerate(rows)]
    delivered.append(delivered_record("12", 0, m.stream.add(12).data))
    lines = [
        {"action": "initialize", "shardId": SHARD, "sequenceNumber": "TRIM_HORIZON", "subSequenceNumber": 0},
        {"action": "processRecords", "records": delivered, "millisBehindLatest": 3},
        {"action": "shutdownRequested"},
        {"action": "checkpoint", "sequenceNumber": "12", "subSequenceNumber": None, "error": None},
    ]
    out = io.StringIO()
    processor = ShardProcessor(m.shard, LogContext("w", "t"))
    source = io.StringIO("".join(json.dumps(line) + "\n" for line in lines))
    kcl.KCLProcess(processor, source, out, io.StringIO()).run()
    said = [json.loads(line) for line in out.getvalue().splitlines() if line]
    assert [one["action"] for one in said] == ["status", "status", "checkpoint", "status"]
    assert said[2]["sequenceNumber"] == "12"
    assert m.counts == m.counts | {"foreign": 3, "events": 13, "lake": 13, "records": 2}


def test_adapter_ends_the_process_on_an_error() -> None:
    """amazon_kclpy alone would report the records as processed."""
    kcl = pytest.importorskip("amazon_kclpy.kcl")
    from headwater.processors.runners.kcl.processor import LogContext, ShardProcessor

    def broken(_shard_id: str) -> KclShard:
        raise ValueError("no")

    line = {"action": "initialize", "shardId": SHARD, "sequenceNumber": None, "subSequenceNumber": 0}
    source = io.StringIO(json.dumps(line) + "\n")
    out = io.StringIO()
    with pytest.raises(SystemExit):
        kcl.KCLProcess(ShardProcessor(broken, LogContext("w", "t")), source, out, io.StringIO()).run()
    assert out.getvalue() == ""
