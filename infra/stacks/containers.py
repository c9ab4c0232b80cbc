"""Run a service on Fargate, one stack each: task, role, log group, scaling, and a deploy that rolls itself back."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.settings import SERVICES, Deployment
from infra.stacks.checks import explain
from infra.stacks.logs import log_group
from infra.stacks.network import Network
from infra.stacks.roles import service_role

__all__ = ["Task", "scale_on_lag", "service", "task"]

USER = "10001"


@dataclass(frozen=True)
class Task:
    """Hold a task definition with its log group and security group, and the construct that contains them."""

    scope: Any
    definition: Any
    group: Any


def task(stack: Any, name: str, deployed: Deployment, net: Network, key: Any) -> Task:
    """Define a task of one container: not root, nothing writable but /tmp, its role from the table."""
    wanted, scope = SERVICES[name], Construct(stack, name.capitalize())
    half = 2 if deployed.small else 1
    definition = ecs.FargateTaskDefinition(
        scope,
        "Task",
        family=f"{deployed.name}-{name}",
        cpu=wanted.cpu // half,
        memory_limit_mib=wanted.memory // half,
        task_role=service_role(scope, name, deployed, key, "ecs-tasks.amazonaws.com"),
        execution_role=iam.Role(scope, "Pull", assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com")),
        runtime_platform=ecs.RuntimePlatform(
            cpu_architecture=ecs.CpuArchitecture.X86_64, operating_system_family=ecs.OperatingSystemFamily.LINUX
        ),
        volumes=[ecs.Volume(name="tmp")],
    )
    repository = ecr.Repository.from_repository_name(scope, "Repository", deployed.image_repository(name))
    container = definition.add_container(
        name,
        image=ecs.ContainerImage.from_ecr_repository(repository, deployed.image(name)),
        command=list(wanted.command),
        environment=deployed.environment | _listening(name),
        logging=ecs.LogDrivers.aws_logs(stream_prefix=name, log_group=log_group(scope, name, deployed)),
        readonly_root_filesystem=True,
        user=USER,
        stop_timeout=Duration.seconds(115),
        linux_parameters=None,
        port_mappings=[ecs.PortMapping(container_port=wanted.port)] if wanted.port else None,
        health_check=_liveness(name),
    )
    container.add_mount_points(ecs.MountPoint(source_volume="tmp", container_path="/tmp", read_only=False))
    explain(definition, ECS2="The environment names resources and holds no secret.")
    explain(
        definition.execution_role,
        **{"IAM5[Resource::*]": "ecr:GetAuthorizationToken knows no resource; AWS allows no other."},
    )
    group = ec2.SecurityGroup(scope, "Group", vpc=net.vpc, description=f"headwater {name}", allow_all_outbound=False)
    group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS, through the endpoints")
    return Task(scope, definition, group)


def _listening(name: str) -> dict[str, str]:
    """Inside a task every interface is the task's own; its security group says who gets there."""
    return {
        "kcl": {"HEADWATER_KCL_HTTP_HOST": "127.0.0.1", "HEADWATER_KCL_SHUTDOWN_SECONDS": "100"},
        "gateway": {"HEADWATER_GATEWAY_HOST": "0.0.0.0"},
        # whoever may look at the console is not for that allowed to write to the stream
        "serve": {"HEADWATER_SERVE_HOST": "0.0.0.0", "HEADWATER_SERVE_CONTROLS": "false"},
    }.get(name, {})


def _liveness(name: str) -> Any:
    """The KCL's own; a load balancer looks at the web services, and a publisher that ends is started again."""
    if name != "kcl":
        return None
    ask = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{SERVICES[name].port}/health/live', timeout=5)"
    return ecs.HealthCheck(
        command=["CMD", "python", "-c", ask],
        start_period=Duration.seconds(300),
        interval=Duration.seconds(30),
        timeout=Duration.seconds(10),
        retries=3,
    )


def service(made: Task, name: str, deployed: Deployment, net: Network) -> Any:
    """Keep the copies running. ECS rolls back a deploy that does not become healthy."""
    least = 1 if deployed.small else SERVICES[name].copies[0]
    found = ecs.FargateService(
        made.scope,
        "Service",
        service_name=name,
        cluster=net.cluster,
        task_definition=made.definition,
        desired_count=least,
        security_groups=[made.group],
        vpc_subnets=net.subnets,
        assign_public_ip=False,
        circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
        min_healthy_percent=100,
        max_healthy_percent=200,
        propagate_tags=ecs.PropagatedTagSource.SERVICE,
        enable_execute_command=False,
    )
    most = SERVICES[name].copies[1]
    if most > SERVICES[name].copies[0]:
        target = found.auto_scale_task_count(min_capacity=least, max_capacity=most)
        target.scale_on_cpu_utilization(
            "Cpu",
            target_utilization_percent=60,
            scale_in_cooldown=Duration.minutes(5),
            scale_out_cooldown=Duration.minutes(1),
        )
        if name == "kcl":
            scale_on_lag(target, deployed)
    return found


def scale_on_lag(target: Any, deployed: Deployment) -> None:
    """Scale out by how old the oldest record was that a reader got. Inward the CPU's target alone goes: a second policy
    for it would be in alarm whenever nothing waits."""
    age = cloudwatch.Metric(
        namespace="AWS/Kinesis",
        metric_name="GetRecords.IteratorAgeMilliseconds",
        dimensions_map={"StreamName": deployed.stream},
        statistic="Maximum",
        period=Duration.minutes(1),
    )
    target.scale_on_metric(
        "Lag",
        metric=age,
        scaling_steps=[
            scaling.ScalingInterval(lower=60_000, change=1),
            scaling.ScalingInterval(lower=300_000, change=4),
        ],
        adjustment_type=scaling.AdjustmentType.CHANGE_IN_CAPACITY,
        cooldown=Duration.minutes(5),
        evaluation_periods=3,
    )
