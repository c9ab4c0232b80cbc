"""Build where news goes: the bus of alert events with a queue that keeps them, and the topic of alarms."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs

from infra.settings import Deployment

__all__ = ["Events", "events_stack", "queue"]


@dataclass(frozen=True)
class Events:
    """Hold the bus, its queue, and the topic."""

    bus: Any
    alarms: Any
    alerts: Any


def queue(scope: Any, name: str, deployed: Deployment, seconds: int) -> Any:
    """Return a queue whose messages go to a second one after ten tries; `seconds` is how long a reader may take."""
    settings: dict[str, Any] = {
        "encryption": sqs.QueueEncryption.SQS_MANAGED,
        "enforce_ssl": True,
        "retention_period": Duration.days(14),
    }
    label = "".join(part.capitalize() for part in name.split("-"))
    dead = sqs.Queue(scope, f"{label}Dead", queue_name=f"{deployed.name}-{name}-dead", **settings)
    return sqs.Queue(
        scope,
        label,
        queue_name=f"{deployed.name}-{name}",
        visibility_timeout=Duration.seconds(seconds),
        dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=10),
        **settings,
    )


def events_stack(app: Any, deployed: Deployment, env: Any, key: Any) -> Events:
    """Fill the stack."""
    stack = Stack(app, f"{deployed.name}-events", env=env)
    bus = events.EventBus(stack, "Bus", event_bus_name=deployed.name)
    alerts = queue(stack, "alerts", deployed, 60)
    events.Rule(
        stack,
        "News",
        event_bus=bus,
        event_pattern=events.EventPattern(source=["headwater"]),
        targets=[targets.SqsQueue(alerts)],
    )
    alarms = sns.Topic(stack, "Alarms", topic_name=f"{deployed.name}-alarms", master_key=key, enforce_ssl=True)
    alarming = iam.ServicePrincipal("cloudwatch.amazonaws.com")
    key.grant(alarming, "kms:Decrypt", "kms:GenerateDataKey")
    # the policy that refuses plain HTTP takes the place of the one that a topic has by itself
    alarms.add_to_resource_policy(
        iam.PolicyStatement(
            sid="Alarms",
            principals=[alarming],
            actions=["sns:Publish"],
            resources=[alarms.topic_arn],
            conditions={"StringEquals": {"aws:SourceAccount": deployed.account}},
        )
    )
    if deployed.alarm_email:
        alarms.add_subscription(subscriptions.EmailSubscription(deployed.alarm_email))
    return Events(bus, alarms, alerts)
