"""Raise alarms on what hurts, each with its runbook page, and show them on a dashboard."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_logs as logs

from infra.settings import Deployment

__all__ = ["NAMESPACE", "PATTERNS", "Alarm", "alarms", "watch"]

NAMESPACE = "headwater"
PATTERNS = {
    "Fenced": '{ $.message = "fenced*" }',
    "DeadLetters": '{ $.message = "dead letters" }',
    "PublisherSteps": '{ $.message = "step" && $.leader IS TRUE }',
    "OldestFile": '{ $.message = "step" && $.leader IS TRUE }',
    "AuditRuns": "{ $.exact IS TRUE || $.exact IS FALSE }",
    "AuditGaps": "{ $.exact IS FALSE }",
}
"""Patterns that are counted in the services' logs; tests/infra/test_watch.py holds them against lines of theirs."""
_VALUES = {"OldestFile": "$.oldest_ms", "DeadLetters": "$.letters"}
"""Value that a line adds to its metric, where that is not one."""


@dataclass(frozen=True)
class Alarm:
    """Alarm when `metric` is above (or below) `limit` in so many of so many periods of `minutes`.

    With `silent`, missing data is an alarm as well.
    """

    name: str
    metric: Any
    limit: float
    runbook: str
    minutes: int = 5
    periods: int = 1
    below: bool = False
    silent: bool = False


def watch(app: Any, deployed: Deployment, env: Any, topic: Any, balancers: dict[str, Any]) -> None:
    """Fill the stack with alarms, the metrics counted in logs, and the dashboard."""
    stack = Stack(app, f"{deployed.name}-watch", env=env)
    _count_in_logs(stack, deployed)
    found = alarms(deployed, balancers)
    made = []
    for alarm in found:
        one = cloudwatch.Alarm(
            stack,
            "".join(part.capitalize() for part in alarm.name.split("-")),
            alarm_name=f"{deployed.name}-{alarm.name}",
            alarm_description=f"What to do: {_page(deployed, alarm.runbook)}",
            metric=alarm.metric,
            threshold=alarm.limit,
            evaluation_periods=alarm.periods,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
            if alarm.below
            else cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING
            if alarm.silent
            else cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        one.add_alarm_action(actions.SnsAction(topic))
        one.add_ok_action(actions.SnsAction(topic))
        made.append(one)
    _dashboard(stack, deployed, found, made)


def _page(deployed: Deployment, runbook: str) -> str:
    page = f"docs/runbooks/{runbook}.md"
    return f"https://github.com/{deployed.repository}/blob/main/{page}" if deployed.repository else page


def _logging(deployed: Deployment) -> dict[str, str]:
    """Which service's log has which of PATTERNS."""
    if deployed.model == "serverless":
        publisher, auditor, processor = "function-publish", "function-audit", "function"
    else:
        publisher, auditor, processor = "publish", "audit", "kcl"
    return {
        "Fenced": processor,
        "DeadLetters": processor,
        "PublisherSteps": publisher,
        "OldestFile": publisher,
        "AuditRuns": auditor,
        "AuditGaps": auditor,
    }


def _count_in_logs(stack: Any, deployed: Deployment) -> None:
    for metric, service in _logging(deployed).items():
        group = logs.LogGroup.from_log_group_name(stack, f"{metric}Logs", f"/headwater/{deployed.stage}/{service}")
        logs.MetricFilter(
            stack,
            f"{metric}Filter",
            log_group=group,
            filter_pattern=logs.FilterPattern.literal(PATTERNS[metric]),
            metric_namespace=f"{NAMESPACE}/{deployed.stage}",
            metric_name=metric,
            metric_value=_VALUES.get(metric, "1"),
        )


def _metric(namespace: str, name: str, minutes: int, statistic: str = "Sum", **dimensions: str) -> Any:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        statistic=statistic,
        period=Duration.minutes(minutes),
        dimensions_map=dimensions or None,
    )


def alarms(deployed: Deployment, balancers: dict[str, Any]) -> list[Alarm]:
    """Return all alarms of a deployment."""
    own = f"{NAMESPACE}/{deployed.stage}"

    def stream(name: str, statistic: str = "Sum") -> Any:
        return _metric("AWS/Kinesis", name, 5, statistic, StreamName=deployed.stream)

    found = [
        Alarm("iterator-age", stream("GetRecords.IteratorAgeMilliseconds", "Maximum"), 300_000, "iterator-age"),
        Alarm(
            "iterator-age-critical",
            stream("GetRecords.IteratorAgeMilliseconds", "Maximum"),
            deployed.retention_hours * 3_600_000 / 4,
            "iterator-age",
        ),
        Alarm("write-throttles", stream("WriteProvisionedThroughputExceeded"), 10, "throttles", periods=3),
        Alarm("read-throttles", stream("ReadProvisionedThroughputExceeded"), 100, "throttles", periods=3),
        Alarm("audit-gaps", _metric(own, "AuditGaps", 15), 0, "audit-gaps", 15),
        Alarm("audit-silent", _metric(own, "AuditRuns", 60), 1, "audit-gaps", 60, below=True, silent=True),
        Alarm("fenced", _metric(own, "Fenced", 5), 10, "fenced", periods=3),
        Alarm("file-waits", _metric(own, "OldestFile", 15, "Maximum"), 1_800_000, "publisher-age", 15),
        Alarm("publisher-age", _metric(own, "PublisherSteps", 15), 1, "publisher-age", 15, below=True, silent=True),
        Alarm("dead-letters", _metric(own, "DeadLetters", 1), 0, "dead-letters", 1),
    ]
    for table in ("ledger", "views", "keys"):
        throttled = _metric("AWS/DynamoDB", "WriteThrottleEvents", 5, TableName=deployed.table(table))
        found.append(Alarm(f"{table}-throttles", throttled, 10, "throttles", periods=3))
    for name, balancer in balancers.items():
        full = balancer.load_balancer_full_name
        errors = _metric("AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", 5, LoadBalancer=full)
        found.append(Alarm(f"{name}-errors", errors, 20, "web-errors"))
    return found + (_of_functions(deployed) if deployed.model == "serverless" else [])


def _of_functions(deployed: Deployment) -> list[Alarm]:
    errors = _metric("AWS/Lambda", "Errors", 5, FunctionName=f"{deployed.name}-function")
    dead = f"{deployed.name}-given-up-dead"
    waiting = _metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", 5, "Maximum", QueueName=dead)
    return [
        Alarm("function-errors", errors, 5, "function-errors", periods=3),
        Alarm("given-up", waiting, 0, "function-errors"),
    ]


def _dashboard(stack: Any, deployed: Deployment, found: list[Alarm], made: list[Any]) -> None:
    def graph(title: str, *metrics: Any) -> Any:
        return cloudwatch.GraphWidget(title=title, left=list(metrics), width=12)

    stream = {"StreamName": deployed.stream}
    rates = [_metric("AWS/Kinesis", name, 1, **stream) for name in ("IncomingRecords", "IncomingBytes")]
    by_name = {alarm.name: alarm.metric for alarm in found}
    board = cloudwatch.Dashboard(stack, "Dashboard", dashboard_name=deployed.name)
    board.add_widgets(cloudwatch.AlarmStatusWidget(alarms=made, width=24, title="Alarms"))
    board.add_widgets(graph("Into the stream", *rates), graph("Lag", by_name["iterator-age"]))
    board.add_widgets(
        graph("Throttles", *(metric for name, metric in by_name.items() if name.endswith("throttles"))),
        graph("Publisher's steps, audits", by_name["publisher-age"], by_name["audit-silent"]),
    )
    board.add_widgets(graph("Dead letters", by_name["dead-letters"]), graph("Fenced", by_name["fenced"]))
