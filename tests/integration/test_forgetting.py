"""A key that is forgotten, whenever that is interrupted: no row of it in any object, all others as they were, exact."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO

from headwater.aggregates import count
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.contract import parse_contract
from headwater.lineage.intervals import IntervalSet
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.erasure import lake as erasing
from headwater.processors.erasure.excluded import ExcludedRows
from headwater.processors.erasure.forget import Forgotten, forget
from headwater.processors.references import ensure_initial
from headwater.processors.services import Services
from headwater.processors.shard.snapshots import StateStore
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.reading import plan
from tests.integration.test_lake_users import SETTINGS, process, produce
from tests.lake import aws, delete_rows

__all__ = ["aws"]
"""Fixtures."""

PARTS, EVENTS, FOREIGN = 3, 200, 6
OWN_IDS = parse_contract(
    """
name: metric
version: 1
key: device
time: ts
id: {origin: device, seq: n}
fields:
  - {name: device, type: string}
  - {name: n, type: long}
  - {name: ts, type: timestamp}
""",
    "here",
)


@pytest.fixture(scope="module")
def services(aws: EmbeddedAws) -> Iterator[Services]:
    """Three days of producers' events, and others' events of the same devices beside them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        made = Services(SETTINGS, load(SETTINGS.pipeline))
        ensure_initial(made.pipeline, made.ledger, made.objects, made.client)
        for part in range(PARTS):
            start = 1_790_000_000_000 + part * 86_400_000  # a day each, so that a key has a file in each
            produce(made, EVENTS, start_ms=start)
            for at in range(FOREIGN):
                event = {"device": f"dev-{at % 3 + 1:05d}", "ts": start, "metric": "m", "value": 1.0}
                made.kinesis.put_record(
                    StreamName=SETTINGS.stream, PartitionKey=str(at), Data=json.dumps(event).encode()
                )
            process(made, EVENTS + FOREIGN)
            made.publisher("test").drain()
        yield made


def devices(services: Services) -> Counter[str]:
    found: list[str] = open_table(SETTINGS, "telemetry").scan().to_arrow()["device"].to_pylist()
    return Counter(found)


def everywhere(services: Services) -> Counter[str]:
    """Return the keys in all objects of the table that there are, live or not."""
    table, found = open_table(SETTINGS, "telemetry"), Counter[str]()
    assert isinstance(table.io, PyArrowFileIO)
    store = table.io.fs_by_scheme("s3", SETTINGS.bucket)
    for key, _, _ in services.objects.dated("lake/telemetry/data/"):
        rows = pq.read_table(f"{SETTINGS.bucket}/{key}", filesystem=store)
        found.update(rows["device"].to_pylist() if "device" in rows.column_names else [])
    return found


def forgotten(services: Services, key: str) -> Forgotten:
    """Forget the key, a commit for each file."""
    return forget(services.erasure_ports, key, "test", lambda: None, step_bytes=1)


class Killed(BaseException):
    """The process is gone."""


def killing(of: Callable[..., Any], at: int, *, after: bool) -> Callable[..., Any]:
    """Return the function, whose `at`th call kills: before it does anything, or after it has."""
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            raise Killed
        found = of(*arguments)
        if calls == at:
            raise Killed
        return found

    return call


STEPS = [
    (ExcludedRows, "add", 1, True),
    (erasing, "replace_files", 1, True),
    (erasing, "replace_files", 2, False),
    (ExcludedRows, "add", 3, True),
    (erasing.LakeErasure, "_purge", 1, True),
    (ExcludedRows, "finish", 1, False),
]


def test_a_forgetting_that_is_killed_goes_on(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its steps, for one device after the other; what was done is done, and counted once."""
    assert run_audit(services.reader).exact
    for number, (of, name, at, after) in enumerate(STEPS):
        before = devices(services)
        key = f"dev-{number + 1:05d}"
        assert before[key] > 20
        files = len(plan(open_table(SETTINGS, "telemetry")))
        with monkeypatch.context() as patch:
            patch.setattr(of, name, killing(getattr(of, name), at, after=after))
            with pytest.raises(Killed):
                forgotten(services, key)
        services.maintenance().compact()
        found = forgotten(services, key)
        assert found.left == ()
        assert found.files < files or name == "add"
        left = devices(services)
        assert left == before - Counter({key: before[key]})
        assert key not in everywhere(services)
        report = run_audit(services.reader)
        assert report.exact, (name, at, report)
        assert report.foreign.excluded == PARTS * FOREIGN // 3 * min(number + 1, 3)
    assert list(services.objects.list(f"state/{services.pipeline.name}/forgetting/")) == []


def test_rows_that_others_have_deleted_go_too(services: Services) -> None:
    """They lie in the file for as long as that is there. Their deletion is another's, so they are not excluded."""
    key = "dev-00008"
    table = open_table(SETTINGS, "telemetry")
    assert isinstance(table.io, PyArrowFileIO)
    before, task = run_audit(services.reader), plan(table)[0]
    reader = table.io.fs_by_scheme("s3", SETTINGS.bucket)
    rows = pq.read_table(task.file.file_path.removeprefix("s3://"), filesystem=reader)["device"].to_pylist()
    places = [at for at, device in enumerate(rows) if device == key][:2]
    delete_rows(table, task.file.file_path, places)
    assert run_audit(services.reader).missing == 2
    found = forgotten(services, key)
    assert found.left == ()
    assert key not in everywhere(services)
    report = run_audit(services.reader)
    assert (report.missing, report.unexpected, report.in_lake) == (2, 0, before.in_lake - 2 - found.rows)


def test_a_key_that_is_its_events_own_id_is_gone_from_the_state(
    aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call leaves nothing of it, and the letters of keys that contain it, or of none, stay."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    settings = SETTINGS.model_copy(update={"stream": "own-ids"})
    provision(settings, shards=1)
    pipeline = Pipeline("own", contract=OWN_IDS).view("metrics", by=["device"], n=count()).lake("metric")
    services = Services(settings, pipeline)
    ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
    events: list[Any] = [{"device": f"d{at % 4}", "n": at, "ts": 1_790_000_000_000} for at in range(20)]
    events += [{"device": name, "n": "x", "ts": 1} for name in ("d1", "d10")] + [{"dev": "d17", "n": 1, "ts": 1}]
    records = [{"Data": json.dumps(event).encode(), "PartitionKey": "0"} for event in events]
    services.kinesis.put_records(StreamName="own-ids", Records=records)
    process(services, len(events))
    services.publisher("test").drain()
    found = forgotten(services, "d1")
    assert (found.left, found.rows, found.letters) == ((), 5, 1)
    assert [letter.payload for letter in services.letters.list("own")] == [record["Data"] for record in records[-2:]]
    assert run_audit(services.reader).exact


def test_many_rows_are_excluded_at_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """No set of an origin is built for each row of it: the work would grow with the square of the rows."""
    entry = services.ledger.shards()[0]
    rows, built = 20_000, 0
    table = pa.table({"_origin": pa.array(["o"] * rows), "_seq": pa.array(np.arange(rows) * 2)})
    first = IntervalSet.__init__

    def counted(self: IntervalSet, intervals: Any = ()) -> None:
        nonlocal built
        built += 1
        first(self, intervals)

    monkeypatch.setattr(IntervalSet, "__init__", counted)
    ExcludedRows(services.stores, "any", "test").add(table)
    ExcludedRows(services.stores, "any", "test").add(table)
    assert built < 20
    monkeypatch.undo()
    entry = services.ledger.shards()[0]
    state = StateStore(services.pipeline, services.objects).load(entry)
    assert len(state.excluded.get("o")) == rows
