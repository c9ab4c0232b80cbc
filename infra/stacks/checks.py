"""Acknowledge findings of cdk-nag that are meant, each with the reason. No other place suppresses any."""

from typing import Any

from aws_cdk import Acknowledgment, Validations

__all__ = ["explain"]


def explain(scope: Any, **reasons: str) -> None:
    """Acknowledge rules on a construct and what is in it, as `EC23="why"`; one finding as `IAM5[Resource::*]`."""
    for rule, reason in reasons.items():
        Validations.of(scope).acknowledge(Acknowledgment(id=f"AwsSolutions-{rule}", reason=reason))
