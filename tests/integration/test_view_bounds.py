"""What DynamoDB does not take, in moto, which refuses it as DynamoDB does: the bounds of an item, and of a hot row."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater.aggregates import count, distinct, last
from headwater.aggregates.columns import Columns
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.services import Services
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from tests.views import version

AGGREGATES = (count("n"), last("note", "newest"), distinct("device", "devices"))
VIEW = ViewSpec("v", ("device",), AGGREGATES)


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(Settings(), shards=1)
        yield Services(Settings(), Pipeline("p", "telemetry")).client("dynamodb")


def upsert(device: str, slot: str, number: int, note: str = "-", devices: int = 1) -> Upsert:
    """A slot of a view with as many rows as devices."""
    columns = Columns(AGGREGATES)
    columns.grow(1)
    names = [f"{slot} {at}" for at in range(devices)]
    table = pa.table({"note": [note] * devices, "device": names})
    columns.fold(np.zeros(devices, np.int64), table, np.arange(devices))
    return Upsert((device,), 60_000, 120_000, slot, version(number), columns.partial(0))


def sizes(dynamodb: Any, pk: str) -> list[int]:
    """Bytes of the binary values of each item of a partition."""
    query = {"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": pk}}}
    pages = dynamodb.get_paginator("query").paginate(TableName=Settings().views_table, **query)
    items = [item for page in pages for item in page["Items"]]
    return [
        sum(len(slot["M"]["p"]["B"]) for slot in item["slots"]["M"].values())
        if "slots" in item
        else len(item["p"]["B"])
        for item in items
    ]


def test_a_row_that_grows_beyond_an_item_goes_on_in_further_ones(dynamodb: Any) -> None:
    """A fleet-wide sketch fed by 160 shards: each slot about 2.8 KB, together well above 400 KB, and still one row."""
    store = ViewStore(dynamodb, Settings().views_table)
    for shard in range(160):
        report = store.write(VIEW, [upsert("fleet", f"shardId-{shard:012d}/0", 1, devices=400)])
        assert (report.written, report.refused) == (1, 0)
    found = sizes(dynamodb, "v#fleet")
    assert sum(found) > 420_000
    assert max(found) < 360_000
    (row,) = store.windows(VIEW, ("fleet",))
    assert row["n"] == 64_000
    assert row["devices"] == pytest.approx(64_000, rel=0.08)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (upsert("a", "s/0", 2, note="x" * 410_000), "Item size"),
        (upsert("k" * 3_000, "s/0", 2), "a key is at most"),
    ],
    ids=["value", "key"],
)
def test_a_row_that_no_item_can_hold_is_named_and_the_others_go_on(
    dynamodb: Any, caplog: pytest.LogCaptureFixture, bad: Upsert, said: str
) -> None:
    """One hostile event must not stop a shard: its row stays as it was, with a warning that names it."""
    store = ViewStore(dynamodb, Settings().views_table)
    store.write(VIEW, [upsert("a", "s/0", 1, note="fits")])
    with caplog.at_level(logging.WARNING, "headwater.views"):
        report = store.write(VIEW, [bad, upsert(f"b {said}", "s/0", 2)])
    assert (report.written, report.refused) == (1, 1)
    assert [row["newest"] for row in store.windows(VIEW, ("a",))] == ["fits"]
    assert [row["n"] for row in store.windows(VIEW, (f"b {said}",))] == [1]
    (record,) = caplog.records
    assert (record.__dict__["view"], record.__dict__["key"][:3]) == ("v", f"v#{bad.key[0]}"[:3])
    assert said in record.__dict__["reason"]
