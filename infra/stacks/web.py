"""Put a service behind a load balancer with TLS."""

from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb

from infra.settings import SERVICES, Deployment
from infra.stacks.checks import explain
from infra.stacks.containers import Task
from infra.stacks.network import Network

__all__ = ["Balanced", "balancer"]


@dataclass(frozen=True)
class Balanced:
    """Hold a load balancer and the group of tasks behind it."""

    balancer: Any
    targets: Any


def balancer(made: Task, running: Any, name: str, deployed: Deployment, net: Network, logs: Any) -> Balanced:
    """Return a balancer: HTTPS from those who may call, HTTP inside the network to the tasks."""
    callers = deployed.clients if name == "gateway" else deployed.readers
    public = not all(one.startswith(("10.", "172.16.", "192.168.")) for one in callers)
    group = ec2.SecurityGroup(
        made.scope, "Callers", vpc=net.vpc, allow_all_outbound=False, description=f"{name} callers"
    )
    found = elb.ApplicationLoadBalancer(
        made.scope,
        "Balancer",
        load_balancer_name=f"{deployed.name}-{name}",
        vpc=net.vpc,
        internet_facing=public,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC) if public else net.subnets,
        security_group=group,
        drop_invalid_header_fields=True,
        # less than the tasks keep a connection: KEEP_ALIVE_SECONDS in headwater.web.http_server
        idle_timeout=Duration.seconds(60),
        deletion_protection=deployed.keep,
    )
    found.log_access_logs(logs, prefix=f"alb/{name}")
    listener = _https(found, deployed)
    for caller in callers:
        group.add_ingress_rule(ec2.Peer.ipv4(caller), ec2.Port.tcp(443))
    if "0.0.0.0/0" in callers:
        explain(group, EC23="Producers are anywhere; each request brings a key or a token, and is limited by it.")
    service = SERVICES[name]
    health = elb.HealthCheck(path=service.health, healthy_http_codes="200", interval=Duration.seconds(15))
    targets = listener.add_targets(
        "Tasks",
        port=service.port,
        protocol=elb.ApplicationProtocol.HTTP,
        targets=[running],
        deregistration_delay=Duration.seconds(60),
        health_check=health,
    )
    return Balanced(found, targets)


def _https(found: Any, deployed: Deployment) -> Any:
    certificate = f"arn:aws:acm:{deployed.region}:{deployed.account}:certificate/{deployed.certificate}"
    return found.add_listener(
        "Https",
        port=443,
        protocol=elb.ApplicationProtocol.HTTPS,
        certificates=[elb.ListenerCertificate.from_arn(certificate)],
        ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
        open=False,
    )
