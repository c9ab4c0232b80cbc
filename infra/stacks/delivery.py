"""Build what a delivery needs: an image repository per service, and the role that the workflow takes by OIDC."""

from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam

from infra.settings import SERVICES, Deployment
from infra.stacks.checks import explain
from infra.stacks.data import removal
from infra.stacks.roles import allow
from infra.stacks.serverless import HANDLERS

__all__ = ["delivery"]

_ISSUER = "token.actions.githubusercontent.com"
_QUALIFIER = "hnb659fds"
_PUSH = (
    "BatchCheckLayerAvailability",
    "BatchGetImage",
    "CompleteLayerUpload",
    "DescribeImages",
    "GetDownloadUrlForLayer",
    "InitiateLayerUpload",
    "PutImage",
    "UploadLayerPart",
)


def delivery(app: Any, deployed: Deployment, env: Any, key: Any) -> None:
    """Fill the stack."""
    stack = Stack(app, f"{deployed.name}-delivery", env=env)
    arns = []
    for name in [*SERVICES, *HANDLERS]:
        repository = ecr.Repository(
            stack,
            "".join(part.capitalize() for part in name.split("-")),
            repository_name=deployed.image_repository(name),
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            image_scan_on_push=True,
            encryption=ecr.RepositoryEncryption.AES_256,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=50)],
            removal_policy=removal(deployed),
            empty_on_delete=not deployed.keep,
        )
        arns.append(repository.repository_arn)
    if deployed.repository:
        _deployer(stack, deployed, arns, key)


def _deployer(stack: Any, deployed: Deployment, repositories: list[str], key: Any) -> None:
    """For jobs of one repository in one GitHub environment; what it deploys, CloudFormation's own role makes."""
    if deployed.issuer == "make":
        made = iam.CfnOIDCProvider(stack, "GitHub", url=f"https://{_ISSUER}", client_id_list=["sts.amazonaws.com"])
        provider = made.attr_arn
    else:
        provider = f"arn:aws:iam::{deployed.account}:oidc-provider/{_ISSUER}"
    role = iam.Role(
        stack,
        "Deployer",
        role_name=f"{deployed.name}-deployer",
        assumed_by=iam.WebIdentityPrincipal(
            provider,
            {
                "StringEquals": {
                    f"{_ISSUER}:aud": "sts.amazonaws.com",
                    f"{_ISSUER}:sub": f"repo:{deployed.repository}:environment:{deployed.stage}",
                }
            },
        ),
    )
    account, region = deployed.account, deployed.region
    bootstrap = [
        f"arn:aws:iam::{account}:role/cdk-{_QUALIFIER}-{purpose}-role-{account}-{region}"
        for purpose in ("deploy", "file-publishing", "lookup")
    ]
    role.add_to_policy(iam.PolicyStatement(actions=["sts:AssumeRole"], resources=bootstrap))
    role.add_to_policy(iam.PolicyStatement(actions=[f"ecr:{one}" for one in _PUSH], resources=repositories))
    role.add_to_policy(iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"]))
    remembered = f"arn:aws:ssm:{region}:{account}:parameter/headwater/{deployed.stage}/*"
    role.add_to_policy(iam.PolicyStatement(actions=["ssm:GetParameter", "ssm:PutParameter"], resources=[remembered]))
    patterns = allow(role, "audit", deployed, key)
    why = "The digest that runs, by service; and what the audit after a deploy reads."
    explain(role, **{f"IAM5[Resource::{one}]": why for one in (remembered, *patterns)})
    explain(role, **{"IAM5[Resource::*]": "ecr:GetAuthorizationToken knows no resource; AWS allows no other."})
