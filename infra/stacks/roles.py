"""Make a role from the table in infra.permissions, and from nothing else."""

from typing import Any

from aws_cdk import aws_iam as iam

from infra.permissions import KEY, statements
from infra.settings import Deployment
from infra.stacks.checks import explain

__all__ = ["allow", "service_role"]


def service_role(scope: Any, service: str, deployed: Deployment, key: Any, principal: str) -> Any:
    """Return the role that `service` runs as. Names end in the region, for roles are global."""
    role = iam.Role(
        scope,
        "Role",
        role_name=f"{deployed.name}-{service}-{deployed.region}",
        assumed_by=iam.ServicePrincipal(principal),
        description=f"headwater {service}: see infra/permissions.py",
    )
    why = "Keys below one prefix of the lake, tables of its one database, streams of its one log group."
    explain(role, **{f"IAM5[Resource::{one}]": why for one in allow(role, service, deployed, key)})
    return role


def allow(role: Any, service: str, deployed: Deployment, key: Any) -> list[str]:
    """Give a role what a service may do; return the resources that are patterns."""
    patterns = []
    for grant, resources in statements(service, deployed):
        arns = [key.key_arn if one == KEY else one for one in resources]
        only = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [grant.leading]}} if grant.leading else None
        role.add_to_policy(iam.PolicyStatement(actions=list(grant.actions), resources=arns, conditions=only))
        patterns += [one for one in resources if "*" in one]
    return patterns
