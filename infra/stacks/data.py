"""Build what holds data: the key, the stream, the tables. A deploy of a service never replaces any of it."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kms as kms

from infra.settings import Deployment
from infra.stacks.checks import explain

__all__ = ["TABLES", "Data", "data", "removal"]

TABLES = {
    "ledger": ("pipeline", "item", None),
    "views": ("pk", "sk", "expires"),
    "keys": ("id", None, "expires"),
}
"""Tables by purpose: hash key, range key, the attribute whose time removes an item. All keys are strings."""


@dataclass(frozen=True)
class Data:
    """Hold the key, the stream and the tables."""

    key: Any
    stream: Any
    tables: dict[str, Any]


def removal(deployed: Deployment) -> Any:
    """Return what becomes of a resource when its stack goes."""
    return RemovalPolicy.RETAIN if deployed.keep else RemovalPolicy.DESTROY


def data(app: Any, deployed: Deployment, env: Any) -> Data:
    """Fill the stack."""
    stack = Stack(app, f"{deployed.name}-data", env=env, termination_protection=deployed.keep)
    key = kms.Key(
        stack,
        "Key",
        alias=f"alias/{deployed.name}",
        enable_key_rotation=True,
        removal_policy=removal(deployed),
        description="Everything that headwater keeps",
    )
    on_demand = deployed.shards == 0
    stream = kinesis.Stream(
        stack,
        "Stream",
        stream_name=deployed.stream,
        stream_mode=kinesis.StreamMode.ON_DEMAND if on_demand else kinesis.StreamMode.PROVISIONED,
        shard_count=None if on_demand else deployed.shards,
        retention_period=Duration.hours(deployed.retention_hours),
        encryption=kinesis.StreamEncryption.KMS,
        encryption_key=key,
        removal_policy=removal(deployed),
    )
    explain(
        stream,
        KDS3="A key of our own: who may use it is in its policy, its use is in CloudTrail, and it can be shut off.",
    )
    tables = {purpose: _table(stack, deployed, purpose, key) for purpose in TABLES}
    return Data(key, stream, tables)


def _table(stack: Any, deployed: Deployment, purpose: str, key: Any) -> Any:
    hash_key, range_key, expires = TABLES[purpose]
    text = dynamodb.AttributeType.STRING
    return dynamodb.Table(
        stack,
        f"{purpose.capitalize()}Table",
        table_name=deployed.table(purpose),
        partition_key=dynamodb.Attribute(name=hash_key, type=text),
        sort_key=dynamodb.Attribute(name=range_key, type=text) if range_key else None,
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
        encryption_key=key,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        time_to_live_attribute=expires,
        deletion_protection=deployed.keep,
        removal_policy=removal(deployed),
    )
