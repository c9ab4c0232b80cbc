"""Keep the logs of a service in a group of its own, for as long as the stage says."""

from typing import Any

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs

from infra.settings import Deployment

__all__ = ["log_group", "retention"]

_DAYS = {
    1: "ONE_DAY",
    7: "ONE_WEEK",
    14: "TWO_WEEKS",
    30: "ONE_MONTH",
    90: "THREE_MONTHS",
    180: "SIX_MONTHS",
    365: "ONE_YEAR",
}


def retention(deployed: Deployment) -> Any:
    """Return for how long logs are kept; KeyError for a number of days that CloudWatch does not have."""
    return getattr(logs.RetentionDays, _DAYS[deployed.log_days])


def log_group(scope: Any, name: str, deployed: Deployment) -> Any:
    """Return the service's log group."""
    return logs.LogGroup(
        scope,
        "Logs",
        log_group_name=f"/headwater/{deployed.stage}/{name}",
        retention=retention(deployed),
        removal_policy=RemovalPolicy.DESTROY,
    )
