"""Damaged rows made anew while events come and shards are split and merged, on kinesis-local's stream."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from headwater.aggregates import count, distinct, mean
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.generations import DOCUMENT, generations
from headwater.processors.rebuild.from_lake import LakePast
from headwater.processors.rebuild.from_stream import StreamPast
from headwater.processors.rebuild.rebuild import Past, Rebuild
from headwater.processors.rebuild.recompute import batch_view, differences
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from tests.kcl_servers import kinesis_local
from tests.rebuilding import SETTINGS, Live, committed, no_progress, produce, reshard

PIPELINE = (
    Pipeline("reshards", contract="telemetry")
    .view("minute", by=["device"], window=tumbling("1m"), events=count(), average=mean("value"))
    .view("total", by=[], spread=3, events=count(), devices=distinct("device"))
    .lake("reshards")
)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with kinesis_local() as kinesis, EmbeddedAws() as aws, pytest.MonkeyPatch.context() as patch:
        for name, value in {**aws.environment, "AWS_ENDPOINT_URL_KINESIS": kinesis}.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield Services(SETTINGS, PIPELINE)


def damage(services: Services) -> None:
    """Every other item goes."""
    dynamodb, seen = services.client("dynamodb"), 0
    for page in dynamodb.get_paginator("scan").paginate(TableName=SETTINGS.views_table):
        for item in page["Items"]:
            key, seen = {"pk": item["pk"], "sk": item["sk"]}, seen + 1
            if seen % 2:
                dynamodb.delete_item(TableName=SETTINGS.views_table, Key=key)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        yield
        working.result()


def test_rows_are_right_after_a_rebuild_under_splits_and_merges(services: Services) -> None:
    """From the lake and from the stream."""
    publisher, sent = services.publisher("test"), 600

    def chaos() -> None:
        nonlocal sent
        for split in (True, False, True):
            reshard(services, split=split)
            produce(services, 150, sent // 100)
            sent += 150

    pasts: dict[str, Past] = {
        "minute": LakePast(services.reader, services.views, publisher.drain, most_slots=20),
        "total": StreamPast(services.reader, services.views),
    }
    with Live(services):
        produce(services, 600, 0)
        committed(services, 600)
        damage(services)
        for name, past in pasts.items():
            with meanwhile(chaos):
                assert Rebuild(services.rebuild_ports, name, past, no_progress).run().generation == 2
        committed(services, sent)
    publisher.drain()
    frame = open_table(SETTINGS, "reshards").scan().to_arrow().to_pandas()
    assert len(frame) == sent
    found = generations(services.ledger.document(DOCUMENT)[0], PIPELINE)
    assert {one.serving.number for one in found.values()} == {2}
    for view in PIPELINE.views:
        expected = batch_view(PIPELINE, view, frame)
        assert differences(view, expected, services.views.rows(services.view_specs[view.name])) == []
