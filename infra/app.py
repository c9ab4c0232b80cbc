"""Run the CDK app: `cdk deploy --all -c stage=dev -c model=containers`. See docs/delivery.md.

Context: `stage` and `model`; `account`, `region` and `certificate`, which have to be given; `repository`, `issuer`,
`zones` and `alarm_email` on top of the stage's settings; `images` as `service=sha256:…`, separated by commas.
"""

import json
import sys
from pathlib import Path
from typing import Any

from aws_cdk import App, Environment, Stack, Tags, Validations
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from cdk_nag import AwsSolutionsChecks

from headwater.errors import UsageError
from infra.settings import Deployment, deployment
from infra.stacks.checks import explain
from infra.stacks.containers import Task, service, task
from infra.stacks.data import Data, data
from infra.stacks.delivery import delivery
from infra.stacks.events import events_stack
from infra.stacks.lake import LakeBuckets, lake
from infra.stacks.network import Network, network
from infra.stacks.serverless import serverless
from infra.stacks.watch import watch
from infra.stacks.web import Balanced, balancer

__all__ = ["build", "features", "main"]

_GIVEN = ("account", "region", "certificate", "repository", "issuer", "zones", "alarm_email")


def features() -> dict[str, Any]:
    """Return the feature flags of cdk.json, which a synthesis within this process has to be given."""
    found: dict[str, Any] = json.loads((Path(__file__).parent.parent / "cdk.json").read_text())["context"]
    return found


def build(app: App, deployed: Deployment) -> None:
    """Fill the app with the stage's stacks, and have every rule of AwsSolutions checked."""
    env = Environment(account=deployed.account, region=deployed.region)
    kept = data(app, deployed, env)
    lakes = lake(app, deployed, env, kept.key)
    news = events_stack(app, deployed, env, kept.key)
    net = network(app, deployed, env)
    delivery(app, deployed, env, kept.key)
    balancers = {name: _web(app, name, deployed, env, net, kept, lakes) for name in ("gateway", "serve")}
    for name in ("maintain", "alerts"):
        _worker(app, name, deployed, env, net, kept)
    if deployed.model == "serverless":
        serverless(app, deployed, env, kept)
    else:
        _workers(app, deployed, env, net, kept)
    watch(app, deployed, env, news.alarms, balancers)
    Tags.of(app).add("application", deployed.name)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def _web(app: Any, name: str, deployed: Deployment, env: Any, net: Network, kept: Data, lakes: LakeBuckets) -> Balanced:
    stack = Stack(app, f"{deployed.name}-{name}", env=env)
    made = task(stack, name, deployed, net, kept.key)
    return balancer(made, service(made, name, deployed, net), name, deployed, net, lakes.logs)


def _worker(app: Any, name: str, deployed: Deployment, env: Any, net: Network, kept: Data) -> None:
    stack = Stack(app, f"{deployed.name}-{name}", env=env)
    service(task(stack, name, deployed, net, kept.key), name, deployed, net)


def _workers(app: Any, deployed: Deployment, env: Any, net: Network, kept: Data) -> None:
    for name in ("kcl", "publish"):
        _worker(app, name, deployed, env, net, kept)
    stack = Stack(app, f"{deployed.name}-audit", env=env)
    _scheduled(task(stack, "audit", deployed, net, kept.key), deployed, net)


def _scheduled(made: Task, deployed: Deployment, net: Network) -> None:
    role = iam.Role(made.scope, "Start", assumed_by=iam.ServicePrincipal("events.amazonaws.com"))
    tasks = f"arn:aws:ecs:{deployed.region}:*:task/{deployed.name}/*"
    explain(
        role, **{f"IAM5[Resource::{tasks}]": "It may tag the tasks that it starts, whose ids are not known before."}
    )
    cluster = ecs.Cluster.from_cluster_attributes(made.scope, "Cluster", cluster_name=deployed.name, vpc=net.vpc)
    rule = events.Rule(made.scope, "Schedule", schedule=events.Schedule.cron(minute="*/15"))
    rule.add_target(
        targets.EcsTask(
            cluster=cluster,
            task_definition=made.definition,
            subnet_selection=net.subnets,
            security_groups=[made.group],
            role=role,
        )
    )


def main() -> None:
    """Build the app from what the CDK's command line says."""
    app = App()
    given = {name: str(app.node.try_get_context(name) or "") for name in _GIVEN}
    listed = str(app.node.try_get_context("images") or "")
    images = dict(one.split("=", 1) for one in listed.split(",") if "=" in one)
    stage = str(app.node.try_get_context("stage") or "dev")
    model = str(app.node.try_get_context("model") or "containers")
    try:
        deployed = deployment(stage, model, images, **given)
    except UsageError as error:
        sys.exit(f"headwater: {error}")
    build(app, deployed)
    app.synth()


if __name__ == "__main__":
    main()
