"""A key of any type is forgotten, however it is written; its neighbours stay, in every place that has keys."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from headwater.aggregates import count, first
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.contract import Contract, parse_contract
from headwater.processors.alerts import above
from headwater.processors.alerts.machine import State
from headwater.processors.alerts.store import Entry
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.erasure.forget import forget
from headwater.processors.services import Services
from headwater.processors.viewtables.following import follow
from headwater.sinks.lake.compaction import CompactionSizes
from tests.integration.test_lake_users import process
from tests.lake import aws
from tests.unit.test_key_values import KEYS

__all__ = ["aws"]
"""Fixtures."""

KINDS = ("timestamp", "time", "uuid", "decimal(38, 10)")
"""Types of keys whose texts differ from place to place; all are in `tests/unit/test_key_values.py`."""


def contract(kind: str) -> Contract:
    fields = f"{{name: k, type: '{kind}'}}, {{name: ts, type: timestamp}}, {{name: label, type: string}}"
    return parse_contract(f"{{name: keyed, version: 1, key: k, time: ts, fields: [{fields}]}}", "here")


@pytest.fixture(scope="module")
def environment(aws: EmbeddedAws) -> Iterator[Mapping[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        yield aws.environment


@pytest.fixture(params=KINDS)
def services(request: pytest.FixtureRequest, environment: Mapping[str, str]) -> Services:
    """Two hours of events and of broken ones, in live and in compacted files, views, their tables and alerts.

    What has the key that is forgotten has the label 0.
    """
    keys, _ = KEYS[request.param]
    name = f"keyed_{request.param.partition('(')[0]}"
    settings = Settings(commit_seconds=0.3, view_flush_seconds=0.3, stream=name, database=name)
    provision(settings, shards=1)
    pipeline = Pipeline(name, contract=contract(request.param)).view(f"{name}_ever", by=["k"], label=first("label"))
    hours, hour = f"{name}_hours", tumbling("1h")
    pipeline = pipeline.view(hours, by=["k"], window=hour, table=hours, label=first("label"), n=count())
    pipeline = pipeline.alert("hot", on=hours, when=above("n", 9)).lake(name)
    made = Services(settings, pipeline)
    made.prepare()
    for part in range(2):
        start = 1_790_000_000_000 + part * 3_600_000
        times = [start, start + 1, start + 2, start + 3, "never"]
        events = [{"k": key, "ts": ts, "label": str(label)} for ts in times for label, key in enumerate(keys)]
        records = [{"Data": json.dumps(event).encode(), "PartitionKey": "0"} for event in events]
        made.kinesis.put_records(StreamName=name, Records=records)
        process(made, len(events))
        made.publisher("test").drain()
    assert made.maintenance(CompactionSizes(1 << 20, 1 << 20, 2)).compact()
    assert sum(one.rows for one in follow(made.view_tables(lambda: None))) == len(keys)
    for row in made.views.every(made.pipeline.views[0].spec):
        label = str(row["label"])
        made.alerts.save(Entry("hot", label, {"k": row["k"]}, State("firing", 1, 1)))
    return made


def labels(services: Services) -> dict[str, Counter[str]]:
    """Return how often each label is in each place."""
    table, name, found = services.open_lake_table(), services.pipeline.name, dict[str, Counter[str]]()
    assert isinstance(table.io, PyArrowFileIO)
    files, bucket = table.io.fs_by_scheme("s3", services.settings.bucket), services.settings.bucket
    found["live files"] = Counter(table.scan().to_arrow()["label"].to_pylist())
    for place in (name, f"{name}_hours"):
        paths = [one for one in services.objects.list(f"lake/{place}/data/") if one.endswith(".parquet")]
        rows = [pq.read_table(f"{bucket}/{one}", filesystem=files)["label"].to_pylist() for one in paths]
        found[f"objects of {place}"] = Counter([label for one in rows for label in one])
    for view in services.pipeline.views:
        found[f"view {view.name}"] = Counter([str(row["label"]) for row in services.views.every(view.spec)])
    letters = services.letters.list(name)
    found["letters"] = Counter([json.loads(letter.payload)["label"] for letter in letters])
    found["alerts"] = Counter(list(services.alerts.entries("hot")))
    return found


def test_a_key_is_gone_from_every_place_and_its_neighbours_are_not(
    services: Services, request: pytest.FixtureRequest
) -> None:
    """From live files, those that a compaction has left, views, their tables, alerts and dead letters."""
    kind = request.node.callspec.params["services"]
    before = labels(services)
    assert all(before[place]["0"] and before[place]["1"] for place in before)
    assert before[f"objects of {services.pipeline.name}"]["0"] > before["live files"]["0"] == 8
    found = forget(services.erasure_ports, KEYS[kind][1], "test", lambda: None)
    assert found.left == ()
    assert (found.rows, found.letters, found.view_rows) == (8, 2, 3)
    after = labels(services)
    for place, had in before.items():
        left = Counter({label: n for label, n in had.items() if label != "0"})
        if place.startswith("objects of "):  # what nothing needs has gone, too
            left = Counter() if place.endswith("_hours") else after["live files"]
        assert after[place] == left, place
    assert run_audit(services.reader).exact
    assert sum(one.rows for one in follow(services.view_tables(lambda: None))) == len(KEYS[kind][0]) - 1
