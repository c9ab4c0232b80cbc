"""Make what the pipeline needs to be there: stream, tables, bucket, database. Making it again changes nothing."""

from collections.abc import Sequence
from typing import Any

from botocore.exceptions import ClientError

from headwater.aws import client
from headwater.config import Settings
from headwater.controlkeys import ensure_control_key, streams
from headwater.sinks.views.table import create_table as create_views_table
from headwater.sinks.views.table import enable_expiry
from headwater.web.keys import KeyStore

__all__ = ["provision"]

_THERE = frozenset(
    {"ResourceInUseException", "BucketAlreadyOwnedByYou", "BucketAlreadyExists", "AlreadyExistsException"}
)


def provision(settings: Settings, *, shards: int, others: Sequence[str] = ()) -> None:
    """Make the stream, tables (ledger, views, API keys), bucket and Glue database that the settings name.

    `others` are the streams that the pipeline's events go on to.
    """
    kinesis, dynamodb = client("kinesis", settings), client("dynamodb", settings)
    for stream in (settings.stream, *others):
        _unless_there(kinesis.create_stream, StreamName=stream, ShardCount=shards)
    _unless_there(
        dynamodb.create_table,
        TableName=settings.ledger_table,
        KeySchema=[{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pipeline", "item")],
        BillingMode="PAY_PER_REQUEST",
    )
    _unless_there(create_views_table, client=dynamodb, table=settings.views_table)
    enable_expiry(dynamodb, settings.views_table)
    KeyStore(dynamodb, settings.gateway.keys_table).ensure_table()
    _unless_there(client("s3", settings).create_bucket, Bucket=settings.bucket)
    _unless_there(client("glue", settings).create_database, DatabaseInput={"Name": settings.database})
    for stream in (settings.stream, *others):
        kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    dynamodb.get_waiter("table_exists").wait(TableName=settings.ledger_table)
    ensure_control_key(settings.stream, streams(dynamodb, settings.ledger_table))  # producers may be first


def _unless_there(call: Any, **request: Any) -> None:
    try:
        call(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _THERE:
            raise
