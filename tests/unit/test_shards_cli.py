"""The commands, through the program."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from headwater.clock import ManualClock
from headwater.commands.shards import register
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.scaling.heat import sample_of
from headwater.processors.scaling.readings import heat_document
from headwater.processors.scaling.tracker import HeatTracker
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.streams import memory_stream

app = typer.Typer()
register(app)
CSV = "at,bytes_s,records_s,events_s\n" + "".join(
    f"{60 * i},{(1 + i % 9) * 1e6},{(1 + i % 9) * 10},1\n" for i in range(90)
)


def call(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "day.csv"
    path.write_text(CSV)
    return str(path)


def test_a_plan_from_a_trace(trace: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    doc = json.loads(call("shards", "plan", "--trace", trace, "--shards", "4", "--out", str(out), "--json"))
    assert json.loads(out.read_text()) == doc
    assert len(doc["new"]) == 16
    assert {row["name"] for row in doc["alternatives"]} >= {"as it is", "this plan", "on-demand standard"}
    shown = call("shards", "plan", "--trace", trace, "--shards", "4")
    assert "4 to 16 shards" in shown


def test_a_simulation_of_a_trace(trace: str) -> None:
    doc = json.loads(call("shards", "simulate", "--trace", trace, "--json"))
    assert len(doc["outcomes"]) == 5
    assert "autoscale" in call("shards", "simulate", "--trace", trace)


def test_wrong_input_is_one_line(trace: str, tmp_path: Path) -> None:
    for words, said in (
        (("plan", "--shards", "4"), "--shards needs --trace"),
        (("plan", "--trace", trace, "--shards", "4", "--method", "x"), "one of auto, exact, local"),
        (("plan", "--trace", trace, "--shards", "4", "--prices", str(tmp_path / "no")), "No such file"),
        (("plan", "--trace", trace, "--shards", "4", "--prices", trace), "not a price table"),
        (("apply", trace), "not JSON"),
    ):
        with pytest.raises(UsageError, match=said):
            call("shards", *words)


class Stub:
    """What `open_services` gives: a stream, a ledger with measurements, CloudWatch with one number a metric."""

    def __init__(self) -> None:
        self.settings, self.clock = Settings(), ManualClock()
        self.kinesis = memory_stream(2, self.clock, name=self.settings.stream)
        memory = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        memory.create_table(TableName="ledger", KeySchema=keys)
        self.ledger = Ledger(memory, "ledger", "p")
        tracker = HeatTracker()
        for second in range(60):
            tracker.records([second * 1_000], [800_000], [9_000])
            tracker.keys(pa.array(["pump-3"] * 10))
        for shard in self.kinesis.shards(self.settings.stream):
            sample = sample_of(shard.shard_id, tracker, {"lake": 2_500})
            sample = replace(sample, at_ms=self.clock.now_ms())
            self.ledger.put_document(heat_document(shard.shard_id), {"sample": sample.to_json()}, 0)

    def client(self, _name: str) -> "Stub":
        return self

    def get_paginator(self, _name: str) -> "Stub":
        return self

    def paginate(self, **request: Any) -> list[dict[str, Any]]:
        return [{"MetricDataResults": [{"Id": q["Id"], "Values": [30e6]} for q in request["MetricDataQueries"]]}]


def test_see_plan_apply(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub, out = Stub(), str(tmp_path / "plan.json")
    monkeypatch.setattr("headwater.commands.shards.open_services", lambda: stub)
    monkeypatch.setattr("headwater.commands.shards.SystemClock", lambda: stub.clock)
    assert len(json.loads(call("shards", "map", "--json"))["shards"]) == 2
    assert "2 open of 2 shards" in call("shards", "map")
    heat = json.loads(call("shards", "heat", "--json"))["shards"]
    assert [round(row["hottest"], 2) for row in heat] == [0.8, 0.8]
    assert heat[0]["sample"]["heavy"][0]["key"] == "pump-3"
    assert "pump-3" in call("shards", "heat")
    plan = json.loads(call("shards", "plan", "--method", "exact", "--out", out, "--json"))
    assert len(plan["new"]) == 3
    assert json.loads(call("shards", "apply", out, "--json"))["left"] == len(plan["steps"])
    assert stub.kinesis.reshards == []
    call("shards", "apply", out, "--go")
    assert [str(at) for at in stub.kinesis.layout(stub.settings.stream)] == plan["new"]


def test_cloudwatch_gives_samples_without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.commands.shards.open_services", Stub)
    (row, _) = json.loads(call("shards", "heat", "--cloudwatch", "--json"))["shards"]
    assert row["sample"]["bytes_s"] == 30e6 / 300
    assert row["sample"]["events_s"] == 0
