"""Make the KCL's tables before its first start: with the settings' billing mode, and a lease for each root shard.

The daemon has no property for the lease table's billing mode (it is always PAY_PER_REQUEST), and with an empty lease
table every worker waits a random time of up to 30 s for another one to fill it.
"""

from typing import Any

from botocore.exceptions import ClientError

from headwater.config import KclSettings
from headwater.processors.runners.kcl.properties import FleetNames
from headwater.stream.shards import list_shards

__all__ = ["ensure_tables", "seed_leases"]


def ensure_tables(dynamodb: Any, fleet: FleetNames, kcl: KclSettings) -> None:
    """Make the three tables that are not there yet; those that are stay as they are."""
    index = {
        "IndexName": "LeaseOwnerToLeaseKeyIndex",
        "KeySchema": [
            {"AttributeName": "leaseOwner", "KeyType": "HASH"},
            {"AttributeName": "leaseKey", "KeyType": "RANGE"},
        ],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    capacity = {"ReadCapacityUnits": kcl.capacity, "WriteCapacityUnits": kcl.capacity}
    provisioned = kcl.billing == "PROVISIONED"
    for table, key, indexes in (
        (fleet.table, "leaseKey", [index | ({"ProvisionedThroughput": capacity} if provisioned else {})]),
        (fleet.worker_metrics, "wid", []),
        (fleet.coordinator, "key", []),
    ):
        attributes = [key, "leaseOwner"] if indexes else [key]
        _create(
            dynamodb,
            TableName=table,
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in attributes],
            BillingMode=kcl.billing,
            **({"ProvisionedThroughput": capacity} if provisioned else {}),
            **({"GlobalSecondaryIndexes": indexes} if indexes else {}),
        )


def _create(dynamodb: Any, **request: Any) -> None:
    try:
        dynamodb.create_table(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":
            raise
        return
    dynamodb.get_waiter("table_exists").wait(
        TableName=request["TableName"], WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )


def seed_leases(kinesis: Any, dynamodb: Any, stream: str, table: str) -> int:
    """Write a lease, from its beginning, for every shard without parents in the stream, if the table has none at all.

    For TRIM_HORIZON only. Children are left to the KCL, which adds them when their parents have ended. Returns how many
    were written; workers that start at the same time write the same.
    """
    if dynamodb.scan(TableName=table, Limit=1, ConsistentRead=True)["Items"]:
        return 0
    roots = [shard for shard in list_shards(kinesis, stream) if not shard.parents]
    for shard in roots:
        item = {
            "leaseKey": {"S": shard.shard_id},
            "checkpoint": {"S": "TRIM_HORIZON"},
            "checkpointSubSequenceNumber": {"N": "0"},
            "leaseCounter": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
            "startingHashKey": {"S": str(shard.start)},
            "endingHashKey": {"S": str(shard.end)},
        }
        try:
            dynamodb.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(leaseKey)")
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
    return len(roots)
