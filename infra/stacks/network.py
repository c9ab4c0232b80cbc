"""Build the network: private subnets, and endpoints for what the services call. The stack has the cluster, too."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs

from infra.settings import Deployment
from infra.stacks.checks import explain
from infra.stacks.logs import retention

__all__ = ["Network", "network"]

_ENDPOINTS = (
    "KINESIS_STREAMS",
    "ECR",
    "ECR_DOCKER",
    "CLOUDWATCH_LOGS",
    "CLOUDWATCH_MONITORING",
    "EVENTBRIDGE",
    "GLUE",
    "KMS",
    "STS",
)


@dataclass(frozen=True)
class Network:
    """Hold the network, its endpoints' security group and the cluster."""

    vpc: Any
    cluster: Any
    subnets: Any


def network(app: Any, deployed: Deployment, env: Any) -> Network:
    """Fill the stack."""
    stack = Stack(app, f"{deployed.name}-network", env=env)
    private = ec2.SubnetType.PRIVATE_WITH_EGRESS if deployed.nat_gateways else ec2.SubnetType.PRIVATE_ISOLATED
    flow = logs.LogGroup(
        stack,
        "FlowLogs",
        log_group_name=f"/headwater/{deployed.stage}/flow",
        retention=retention(deployed),
        removal_policy=RemovalPolicy.DESTROY,
    )
    vpc = ec2.Vpc(
        stack,
        "Vpc",
        ip_addresses=ec2.IpAddresses.cidr("10.20.0.0/16"),
        # of the region's own list, since letters differ from region to region
        availability_zones=[Fn.select(at, Fn.get_azs()) for at in range(deployed.zones)],
        nat_gateways=deployed.nat_gateways,
        restrict_default_security_group=False,
        subnet_configuration=[
            ec2.SubnetConfiguration(name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=24),
            ec2.SubnetConfiguration(name="private", subnet_type=private, cidr_mask=20),
        ],
        flow_logs={"all": ec2.FlowLogOptions(destination=ec2.FlowLogDestination.to_cloud_watch_logs(flow))},
        gateway_endpoints={
            name: ec2.GatewayVpcEndpointOptions(service=getattr(ec2.GatewayVpcEndpointAwsService, name))
            for name in ("S3", "DYNAMODB")
        },
    )
    subnets = ec2.SubnetSelection(subnet_type=private)
    _endpoints(stack, vpc, subnets)
    cluster = ecs.Cluster(
        stack,
        "Cluster",
        vpc=vpc,
        cluster_name=deployed.name,
        container_insights_v2=ecs.ContainerInsights.ENABLED,
        enable_fargate_capacity_providers=True,
    )
    explain(cluster, ECS4="Container insights are on (the rule looks for the older value of the setting).")
    return Network(vpc, cluster, subnets)


def _endpoints(stack: Any, vpc: Any, subnets: Any) -> None:
    """Let the subnets reach AWS's services without the internet."""
    inside = ec2.SecurityGroup(stack, "Endpoints", vpc=vpc, allow_all_outbound=False, description="VPC endpoints")
    inside.add_ingress_rule(ec2.Peer.ipv4("10.20.0.0/16"), ec2.Port.tcp(443))
    for name in _ENDPOINTS:
        vpc.add_interface_endpoint(
            name.title().replace("_", ""),
            service=getattr(ec2.InterfaceVpcEndpointAwsService, name),
            subnets=subnets,
            security_groups=[inside],
            open=False,
        )
