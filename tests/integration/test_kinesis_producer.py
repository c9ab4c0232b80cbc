"""Amazon's KPL itself through a split and a merge: every event that it was given is in the lake once.

Skipped with the reason where Java, node or Maven is missing, or its native core does not run; a failure in CI.
"""

import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headwater.aggregates import count
from headwater.codec import is_kpl, user_records
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from tests.kcl_servers import kinesis_local_ports
from tests.kinesis_producer import AmazonProducer, amazon_producer
from tests.rebuilding import SETTINGS, START_MS, Live, reshard
from tests.waiting import until

PIPELINE = Pipeline("kpl", contract="telemetry").view("by_metric", by=["metric"], events=count()).lake("kpl")
RATE = 100
"""Events a second: an aggregate holds fifty of them, of 97 keys, so a split parts each that is on its way."""


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a Kinesis that speaks TLS; this process's AWS settings are those of the same servers."""
    lacking = [tool for tool in ("java", "node", "npm", "mvn") if shutil.which(tool) is None]
    core = (platform.system(), platform.machine()) in (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"))
    if lacking or not core:
        reason = f"the KPL needs {', '.join(lacking) or 'Linux, or macOS on x86_64'}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with kinesis_local_ports() as (plain, secure), EmbeddedAws() as aws:
        for name, value in {**aws.environment, "AWS_ENDPOINT_URL_KINESIS": f"http://127.0.0.1:{plain}"}.items():
            monkeypatch.setenv(name, value)
        provision(SETTINGS, shards=1)
        yield secure


def test_every_event_once_through_a_split_and_a_merge(tls: int, tmp_path: Path) -> None:
    """What it sends again, of aggregates that were on their way to a shard that is gone, doubles nothing."""
    services = Services(SETTINGS, PIPELINE)
    with Live(services), amazon_producer(SETTINGS.stream, tls, tmp_path, RATE, START_MS) as producer:
        for split in (True, False):
            # what is on its way when the shards change is what the test is about
            _more(services, producer)
            reshard(services, split=split)
        _more(services, producer)
        told = producer.finish()
        assert told.put == told.confirmed, producer.said()
        until(lambda: _lake(services) >= told.put, 120, lambda: f"{_lake(services)} of {told}")
    services.publisher("test").drain()
    rows = open_table(SETTINGS, "kpl").scan(selected_fields=("value",)).to_arrow()
    doubled = Counter(rows["value"].to_pylist()) - Counter(map(float, range(told.put)))
    assert not doubled, told
    assert rows.num_rows == told.put
    in_view = [row["events"] for row in services.views.rows(services.view_specs["by_metric"])]
    assert sum(in_view) == told.put  # type: ignore[arg-type]  # counts are numbers
    report = run_audit(services.reader)
    assert report.exact
    assert report.foreign.in_lake == told.put
    lost, doubled_there = _by_the_rule_of_the_kcl(services, told.put)
    print(f"{told}; under the KCL {len(lost)} would be lost and {doubled_there} doubled")


def _by_the_rule_of_the_kcl(services: Services, put: int) -> tuple[set[int], int]:
    """Return the events that the KCL would not hand on, and how many it would hand on again.

    It drops an aggregate as a whole when one user record in it is outside of the shard. What it loses so lay inside.
    """
    kept, inside = Counter[int](), set[int]()
    for shard in services.kinesis.list_shards(StreamName=SETTINGS.stream)["Shards"]:
        low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        for record in _records(services, shard["ShardId"]):
            users = user_records(record["Data"]) if is_kpl(record["Data"]) else []
            mine = {json.loads(one.payload)["value"] for one in users if one.hash_key in range(low, high + 1)}
            if len(mine) == len(users):
                kept.update(mine or {json.loads(record["Data"])["value"]})
            else:
                inside |= mine
    lost = set(range(put)) - kept.keys()
    assert lost <= inside
    return lost, sum(kept.values()) - len(kept)


def _records(services: Services, shard_id: str) -> Iterator[Mapping[str, Any]]:
    kinesis, stream = services.kinesis, SETTINGS.stream
    answer = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    at, empty = answer["ShardIterator"], 0
    while at and empty < 3:
        page = kinesis.get_records(ShardIterator=at)
        yield from page["Records"]
        at, empty = page.get("NextShardIterator"), 0 if page["Records"] else empty + 1


def _more(services: Services, producer: AmazonProducer) -> None:
    """Return when three seconds more of its events are in the lake."""
    enough = _lake(services) + 3 * RATE
    until(lambda: _lake(services) >= enough, 120, lambda: f"{_lake(services)} of {producer.put()}: {producer.said()}")


def _lake(services: Services) -> int:
    return sum(entry.counts.get("lake", 0) for entry in services.ledger.shards())
