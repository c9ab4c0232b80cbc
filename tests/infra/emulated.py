"""A synthesized deployment made on the embedded AWS: CloudFormation for what it knows, boto3 for the rest.

What boto3 makes comes from the template's own properties. Every resource type of the stacks that hold data stands in
one of the three lists; the stacks of the services are run as processes, with the environment of their templates.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import boto3

from tests.infra.synthesis import Json, Synthesis

__all__ = ["BY_CLOUDFORMATION", "BY_HAND", "NOT_EMULATED", "STACKS", "create"]

STACKS = ("data", "lake", "events")
BY_CLOUDFORMATION = {
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::S3::Bucket",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
}
NOT_EMULATED = {
    "AWS::Glue::Table": "moto knows no Iceberg input; the publisher makes it, and it is compared with the template",
    "AWS::S3::BucketPolicy": "moto applies its denials whatever their conditions say",
    "AWS::SNS::TopicPolicy": "moto enforces none",
    "AWS::SNS::Subscription": "an address for mail",
}


def _table(properties: Json) -> None:
    dynamodb, name = boto3.client("dynamodb"), properties["TableName"]
    dynamodb.create_table(
        TableName=name,
        KeySchema=properties["KeySchema"],
        AttributeDefinitions=properties["AttributeDefinitions"],
        BillingMode=properties["BillingMode"],
    )
    if "TimeToLiveSpecification" in properties:
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=properties["TimeToLiveSpecification"])


def _stream(properties: Json) -> None:
    mode = properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    count = {"ShardCount": properties["ShardCount"]} if "ShardCount" in properties else {}
    kinesis, name = boto3.client("kinesis"), properties["Name"]
    kinesis.create_stream(StreamName=name, StreamModeDetails=mode, **count)
    if (hours := properties.get("RetentionPeriodHours", 24)) > 24:
        kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)


def _database(properties: Json) -> None:
    boto3.client("glue").create_database(DatabaseInput=properties["DatabaseInput"])


def _work_group(properties: Json) -> None:
    found = properties["WorkGroupConfiguration"]
    location = found["ResultConfiguration"]["OutputLocation"]
    boto3.client("athena").create_work_group(
        Name=properties["Name"],
        Configuration={
            "EnforceWorkGroupConfiguration": found["EnforceWorkGroupConfiguration"],
            "BytesScannedCutoffPerQuery": found["BytesScannedCutoffPerQuery"],
            "ResultConfiguration": {"OutputLocation": location},
        },
    )


def _named_query(properties: Json) -> None:
    names = ("Name", "Database", "QueryString", "WorkGroup")
    boto3.client("athena").create_named_query(**{name: properties[name] for name in names})


def _queue_policy(properties: Json) -> None:
    sqs = boto3.client("sqs")
    for url in properties["Queues"]:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(properties["PolicyDocument"])})


def _bus(properties: Json) -> None:
    boto3.client("events").create_event_bus(Name=properties["Name"])


def _rule(properties: Json) -> None:
    events = boto3.client("events")
    name, bus = "alerts", properties["EventBusName"]
    events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(properties["EventPattern"]))
    events.put_targets(Rule=name, EventBusName=bus, Targets=properties["Targets"])


BY_HAND: Mapping[str, Callable[[Json], None]] = {
    "AWS::DynamoDB::Table": _table,
    "AWS::Kinesis::Stream": _stream,
    "AWS::Glue::Database": _database,
    "AWS::Athena::WorkGroup": _work_group,
    "AWS::Athena::NamedQuery": _named_query,
    "AWS::SQS::QueuePolicy": _queue_policy,
    "AWS::Events::EventBus": _bus,
    "AWS::Events::Rule": _rule,
}


def create(made: Synthesis) -> None:
    """All of it, stack by stack."""
    exports: dict[str, Any] = {}
    for stack in STACKS:
        template = made.templates[stack]
        known = {
            name: _untagged(one) for name, one in template["Resources"].items() if one["Type"] in BY_CLOUDFORMATION
        }
        known = _filled(known, partial(_imported, exports))
        body = {"Resources": known, "Outputs": _outputs(template)}
        cloud, name = boto3.client("cloudformation"), f"{made.deployed.name}-{stack}"
        cloud.create_stack(StackName=name, TemplateBody=json.dumps(body))
        found = cloud.describe_stacks(StackName=name)["Stacks"][0]
        assert found["StackStatus"] == "CREATE_COMPLETE", found
        exports |= {one["ExportName"]: one["OutputValue"] for one in found.get("Outputs", []) if "ExportName" in one}
        ids = {
            one["LogicalResourceId"]: one["PhysicalResourceId"]
            for one in cloud.describe_stack_resources(StackName=name)["StackResources"]
        }
        _rest(template, ids, exports, made)


def _outputs(template: Json) -> Json:
    return {
        name: one
        for name, one in template.get("Outputs", {}).items()
        if "Export" in one and template["Resources"][_referred(one["Value"])]["Type"] in BY_CLOUDFORMATION
    }


def _referred(value: Json) -> str:
    return str(value.get("Ref") or value["Fn::GetAtt"][0])


def _untagged(resource: Json) -> Json:
    """Without tags, over which moto's KMS stumbles, and without dependencies on what is made by hand."""
    properties = {name: value for name, value in resource["Properties"].items() if name != "Tags"}
    return {"Type": resource["Type"], "Properties": properties}


def _imported(exports: Mapping[str, Any], node: Json) -> Any:
    return exports[node["Fn::ImportValue"]] if "Fn::ImportValue" in node else None


def _filled(node: Any, fill: Callable[[Json], Any]) -> Any:
    """The template with what `fill` knows of its intrinsic functions put in."""
    if isinstance(node, dict):
        value = fill(node)
        return {name: _filled(one, fill) for name, one in node.items()} if value is None else value
    if isinstance(node, list):
        return [_filled(one, fill) for one in node]
    return node


def _rest(template: Json, ids: Mapping[str, str], exports: Mapping[str, Any], made: Synthesis) -> None:
    resources = template["Resources"]
    named = {
        name: one["Properties"]["Name"] for name, one in resources.items() if one["Type"] == "AWS::Events::EventBus"
    }
    ids = {**ids, **named}

    def fill(node: Json) -> Any:
        if "Fn::ImportValue" in node:
            return exports[node["Fn::ImportValue"]]
        if "Fn::Join" in node:
            separator, parts = node["Fn::Join"]
            return separator.join(str(_filled(part, fill)) for part in parts)
        name = node.get("Ref") or (node["Fn::GetAtt"][0] if "Fn::GetAtt" in node else None)
        if name is None:
            return None
        if "Ref" in node or resources[name]["Type"] not in ("AWS::SQS::Queue", "AWS::S3::Bucket"):
            return ids.get(name, name)
        if resources[name]["Type"] == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{ids[name]}"
        return f"arn:aws:sqs:{made.deployed.region}:123456789012:{re.split('/', ids[name])[-1]}"

    order = list(BY_HAND)
    for one in sorted(resources.values(), key=lambda one: order.index(one["Type"]) if one["Type"] in BY_HAND else 0):
        if one["Type"] in BY_HAND:
            BY_HAND[one["Type"]](_filled(one["Properties"], fill))
