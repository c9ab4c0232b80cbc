"""A producer with an outbox, killed with SIGKILL: what it confirmed is sent, once, as what it was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headwater.codec import Decoded, decode_record
from headwater.contract import load_contract
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from tests.producer_stream import FakeStream

TELEMETRY = load_contract("telemetry")
SETTINGS = ProducerSettings(max_events=50, linger_ms=5)

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
from headwater.contract import load_contract
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.testing.fleet import Fleet
from tests.producer_stream import FakeStream

outbox, log, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

class Logged(FakeStream):
    # The stream outlives the process: what it took is on disk before it answers.
    def put_records(self, **request):
        if how == "down":
            raise ConnectionResetError("down")
        answer = super().put_records(**request)
        with log.open("a") as file:
            for record in request["Records"]:
                file.write(json.dumps([record["Data"].hex(), record["ExplicitHashKey"]]) + "\\n")
        return answer

if how == "unmarked":
    Outbox.delivered = lambda self, *_: os.kill(os.getpid(), signal.SIGKILL)
producer = Producer("s", load_contract("telemetry"), client=Logged(), outbox=outbox,
                    settings=ProducerSettings(max_events=50, linger_ms=5))
tables = Fleet(devices=20).batches(10**9, 30)
for n in range(10**9):
    if n % 2:
        producer.put({"device": f"single-{n}", "metric": "m", "ts": 1_762_160_400_000 + n, "value": 1.0})
        print(1, flush=True)
    else:
        producer.put_batch(next(tables))
        print(30, flush=True)
"""


def killed_child(outbox: Path, log: Path, how: str) -> int:
    """Run the child, kill it in full flow; how many events it had confirmed by returning from put."""
    command = [sys.executable, "-c", CHILD, str(outbox), str(log), how]
    repository = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository) as child:
        assert child.stdout is not None
        confirmed = 0
        for line in child.stdout:
            confirmed += int(line)
            if confirmed > 1_000 and how != "unmarked":
                os.kill(child.pid, signal.SIGKILL)
                confirmed += sum(map(int, child.stdout))
                break
        assert child.wait(60) == -signal.SIGKILL
    return confirmed


def on_stream(log: Path) -> list[tuple[bytes, str]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [(bytes.fromhex(data), key) for data, key in map(json.loads, lines)]


@pytest.mark.parametrize("how", ["down", "up", "unmarked"])
def test_confirmed_events_survive_kill_9(tmp_path: Path, how: str) -> None:
    """The stream down, up, and killed between delivery and its note: resent byte for byte under the same identities."""
    outbox, log = tmp_path / "outbox.db", tmp_path / "stream.log"
    confirmed = killed_child(outbox, log, how)
    assert confirmed > 0
    before = on_stream(log)
    assert bool(before) == (how != "down")
    stream = FakeStream()
    with Producer("s", TELEMETRY, client=stream, settings=SETTINGS, outbox=outbox):
        pass
    after = [(record["Data"], record["ExplicitHashKey"]) for record in stream.records]
    identities: dict[tuple[str, int], Any] = {}
    batches: dict[tuple[str, int], tuple[bytes, str]] = {}
    for data, key in [*before, *after]:
        found = decode_record(data, TELEMETRY)
        if isinstance(found, Decoded):
            assert batches.setdefault((found.origin or "", found.first_seq), (data, key)) == (data, key)
            for row, event in zip(found.rows.tolist(), found.table.to_pylist(), strict=True):
                identity = (found.origin or "", found.first_seq + row)
                assert identities.setdefault(identity, event) == event
    if how == "unmarked":
        assert set(before) & set(after), "the batch that was delivered and not noted comes again"
    # The killed run's session and the next, which seals what was left; each is numbered without a gap.
    sessions = {origin: sum(one == origin for one, _ in identities) for origin, _ in identities}
    assert len(sessions) <= 2
    assert set(identities) == {(origin, seq) for origin, count in sessions.items() for seq in range(count)}
    # One put may have been durable without its return having been printed.
    assert confirmed <= len(identities) <= confirmed + 31
    singles = [event["device"] for event in identities.values() if event["device"].startswith("single-")]
    assert len(singles) == len(set(singles))
    assert len(singles) >= confirmed // 31
    (receipt,) = stream.controls(TELEMETRY)
    assert receipt.body["intervals"] == {origin: [[0, count]] for origin, count in sessions.items()}
