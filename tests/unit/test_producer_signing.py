"""A producer signs its receipts with the key that its stream has in the ledger's table, and puts none without."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from headwater.codec.control import decode_control, is_signed
from headwater.contract import load_contract
from headwater.controlkeys import ensure_control_key, streams
from headwater.producers.producer import Producer
from tests.producing import QUICK, fleet


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


def receipts(kinesis: Any) -> list[bytes]:
    """What the stream's one shard has of them."""
    start = {"StreamName": "s", "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    found = kinesis.get_records(ShardIterator=kinesis.get_shard_iterator(**start)["ShardIterator"])["Records"]
    return [record["Data"] for record in found if b"$headwater" in record["Data"]]


@pytest.mark.usefixtures("aws")
def test_receipts_wait_for_the_key_and_nothing_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    kinesis, dynamodb = boto3.client("kinesis"), boto3.client("dynamodb")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    dynamodb.create_table(
        TableName="headwater-ledger",
        KeySchema=[{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pipeline", "item")],
        BillingMode="PAY_PER_REQUEST",
    )
    with Producer("s", load_contract("telemetry"), client=kinesis, settings=QUICK) as producer:
        for _ in range(3):  # events go on: receipts are not worth a failure
            producer.put_batch(fleet(100))
            producer.flush()
        assert receipts(kinesis) == []
        key = ensure_control_key("s", streams(dynamodb, "headwater-ledger"))
        producer.put_batch(fleet(100))
        producer.flush()
        (receipt,) = map(decode_control, receipts(kinesis))
        assert is_signed(receipt, key)
        assert receipt.body["intervals"] == {producer.origin: [[0, 400]]}
    assert sum("no receipts until the key" in record.message for record in caplog.records) == 1


@pytest.mark.usefixtures("aws")
def test_a_producer_that_may_not_read_the_key_still_delivers() -> None:
    kinesis = boto3.client("kinesis")
    kinesis.create_stream(StreamName="s", ShardCount=1)
    with Producer("s", load_contract("telemetry"), client=kinesis, settings=QUICK) as producer:  # there is no table
        producer.put_batch(fleet(100))
    assert producer.stats.delivered == 100
    assert receipts(kinesis) == []
