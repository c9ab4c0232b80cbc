"""Raise alarms on what hurts, each with its runbook page, and show them on a dashboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_logs as logs

from infra.settings import Deployment
from infra.stacks.serverless import HANDLERS
from infra.stacks.web import Balanced

__all__ = ["NAMESPACE", "PATTERNS", "Alarm", "alarms", "watch"]

NAMESPACE = "headwater"
PATTERNS = {
    "Fenced": '{ $.message = "fenced*" }',
    "DeadLetters": '{ $.message = "dead letters" }',
    "PublisherSteps": '{ $.message = "step" && $.leader IS TRUE }',
    "OldestFile": '{ $.message = "step" && $.leader IS TRUE }',
    "AuditRuns": "{ $.exact IS TRUE || $.exact IS FALSE }",
    "AuditGaps": "{ $.exact IS FALSE }",
    "AlertTurns": '{ $.message = "alerts judged" }',
    "MaintenanceRounds": '{ $.message = "maintained" }',
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


def watch(app: Any, deployed: Deployment, env: Any, topic: Any, balancers: dict[str, Balanced]) -> None:
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
        "AlertTurns": "alerts",
        "MaintenanceRounds": "maintain",
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


def alarms(deployed: Deployment, balancers: dict[str, Balanced]) -> list[Alarm]:
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
        Alarm("unread", _unread(deployed), 0, "unread", periods=3),
        Alarm("alerts-silent", _metric(own, "AlertTurns", 15), 1, "service-down", 15, below=True, silent=True),
        Alarm("maintain-silent", _metric(own, "MaintenanceRounds", 60), 1, "service-down", 60, below=True, silent=True),
        Alarm("alerts-undelivered", _waiting(f"{deployed.name}-alerts-dead"), 0, "undelivered"),
    ]
    for table in ("ledger", "views", "keys"):
        throttled = _metric("AWS/DynamoDB", "WriteThrottleEvents", 5, TableName=deployed.table(table))
        found.append(Alarm(f"{table}-throttles", throttled, 10, "throttles", periods=3))
    for name, web in balancers.items():
        found += _of_web(name, web)
    running = ["maintain", "alerts", *balancers]
    if deployed.model == "serverless":
        return [*found, *_of_tasks(deployed, running), *_of_functions(deployed)]
    return [*found, *_of_tasks(deployed, ["kcl", "publish", *running])]


def _unread(deployed: Deployment) -> Any:
    """Return 1 where records came and no reader got any, by polling or by fan-out: then no reader is late, as far as
    Kinesis tells."""

    def stream(name: str) -> Any:
        return _metric("AWS/Kinesis", name, 5, StreamName=deployed.stream)

    return cloudwatch.MathExpression(
        expression="IF(FILL(came, 0) > 0 AND FILL(polled, 0) + FILL(pushed, 0) == 0, 1, 0)",
        using_metrics={
            "came": stream("IncomingRecords"),
            "polled": stream("GetRecords.Records"),
            "pushed": stream("SubscribeToShardEvent.Records"),
        },
        period=Duration.minutes(5),
        label="records that nobody reads",
    )


def _waiting(queue: str) -> Any:
    return _metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", 5, "Maximum", QueueName=queue)


def _of_web(name: str, web: Balanced) -> list[Alarm]:
    full = web.balancer.load_balancer_full_name

    def balancer(metric: str) -> Any:
        return _metric("AWS/ApplicationELB", metric, 5, LoadBalancer=full)

    healthy = _metric(
        "AWS/ApplicationELB",
        "HealthyHostCount",
        1,
        "Minimum",
        LoadBalancer=full,
        TargetGroup=web.targets.target_group_full_name,
    )
    return [
        Alarm(f"{name}-errors", balancer("HTTPCode_Target_5XX_Count"), 20, "web-errors"),
        Alarm(f"{name}-refused", balancer("HTTPCode_ELB_5XX_Count"), 20, "web-errors"),
        Alarm(f"{name}-unhealthy", healthy, 1, "service-down", 1, periods=3, below=True, silent=True),
    ]


def _of_tasks(deployed: Deployment, names: Sequence[str]) -> list[Alarm]:
    def running(name: str) -> Any:
        where = {"ClusterName": deployed.name, "ServiceName": name}
        return _metric("ECS/ContainerInsights", "RunningTaskCount", 1, "Minimum", **where)

    return [
        Alarm(f"{name}-down", running(name), 1, "service-down", 1, periods=5, below=True, silent=True) for name in names
    ]


def _of_functions(deployed: Deployment) -> list[Alarm]:
    found = [Alarm("given-up", _waiting(f"{deployed.name}-given-up-dead"), 0, "function-errors")]
    for name in HANDLERS:
        of = {"FunctionName": f"{deployed.name}-{name}"}
        errors, throttles = (_metric("AWS/Lambda", metric, 5, **of) for metric in ("Errors", "Throttles"))
        found.append(Alarm(f"{name}-errors", errors, 5, "function-errors", periods=3))
        found.append(Alarm(f"{name}-throttles", throttles, 5, "function-errors", periods=3))
    return found


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
