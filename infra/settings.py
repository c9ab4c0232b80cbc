"""Say what differs between deployments, and every name that follows from it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from headwater.errors import UsageError

__all__ = ["SERVICES", "STAGES", "Deployment", "Service", "deployment"]


@dataclass(frozen=True)
class Service:
    """Describe one deployable: its command in the image, and the extras of the distribution that it needs."""

    command: tuple[str, ...]
    extra: str = ""
    port: int = 0
    """Where it serves HTTP; 0 is nowhere."""
    health: str = ""
    """The path that a load balancer asks."""
    cpu: int = 1024
    memory: int = 2048
    copies: tuple[int, int] = (2, 2)
    """Fewest and most copies."""


SERVICES: Mapping[str, Service] = {
    "kcl": Service(("process", "--on", "kcl"), "kcl", 8790, "", 2048, 8192, (2, 16)),
    "publish": Service(("publish",), "lake"),
    "maintain": Service(("lake", "maintain"), "lake", 0, "", 1024, 4096, (1, 1)),
    "alerts": Service(("alerts",), cpu=512),
    "gateway": Service(("gateway",), "web", 8780, "/health/ready", 1024, 4096, (2, 20)),
    "serve": Service(("serve",), "web,lake", 8785, "/health", 1024, 2048, (2, 10)),
    "audit": Service(("audit", "--json"), "lake", copies=(0, 0)),
}
"""The services that run in containers. `audit` is a task on a schedule. `process` (every shard in one container, for
small streams) has an image of its own and kcl's role and settings."""


@dataclass(frozen=True)
class Deployment:
    """Describe one stage in one account and region. `images` has the digest of each service's image."""

    stage: str
    account: str
    region: str = "eu-central-1"
    model: Literal["containers", "serverless"] = "containers"
    pipeline: str = "headwater.processors.examples.telemetry:pipeline"
    shards: int = 0
    """0 is a stream on demand."""
    retention_hours: int = 24
    keep: bool = False
    """Data outlives the stack, and tables refuse to be deleted."""
    nat_gateways: int = 0
    """Without any, services reach AWS by endpoints and nothing else: tokens of an issuer on the internet need one."""
    small: bool = True
    """One copy of each service at least, and half the size."""
    scan_limit_gb: int = 10
    """Most that one Athena query may read."""
    log_days: int = 14
    clients: tuple[str, ...] = ("10.0.0.0/8",)
    """Who may call the gateway, as CIDR ranges. Others than private ones make its load balancer a public one."""
    readers: tuple[str, ...] = ("10.0.0.0/8",)
    """Who may call the query API and the console."""
    certificate: str = ""
    """Id of the ACM certificate of both load balancers."""
    repository: str = ""
    """`owner/name` on GitHub whose workflow may deploy; empty is none."""
    alarm_email: str = ""
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the head of all names."""
        return f"headwater-{self.stage}"

    @property
    def stream(self) -> str:
        """Return the stream's name."""
        return self.name

    @property
    def bucket(self) -> str:
        """Return the bucket's name."""
        return f"{self.name}-lake-{self.account}"

    @property
    def logs_bucket(self) -> str:
        """Return the name of the bucket with the access logs."""
        return f"{self.name}-logs-{self.account}"

    @property
    def database(self) -> str:
        """Return the name of the lake's database in Glue."""
        return self.name.replace("-", "_")

    @property
    def application(self) -> str:
        """Return the KCL's application name, which is that of its lease table, too."""
        return f"{self.name}-kcl"

    @property
    def zones(self) -> tuple[str, ...]:
        """Return the availability zones."""
        return tuple(f"{self.region}{letter}" for letter in "abc")

    def table(self, purpose: str) -> str:
        """Return the name of the table `ledger`, `views` or `keys`."""
        return f"{self.name}-{purpose}"

    def image(self, service: str) -> str:
        """Return the digest to run. A synthesis without one gets a digest that no image has."""
        return self.images.get(service, "sha256:" + "0" * 64)

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings of every service: see headwater.config."""
        return {
            "HEADWATER_STREAM": self.stream,
            "HEADWATER_LEDGER_TABLE": self.table("ledger"),
            "HEADWATER_VIEWS_TABLE": self.table("views"),
            "HEADWATER_BUCKET": self.bucket,
            "HEADWATER_DATABASE": self.database,
            "HEADWATER_PIPELINE": self.pipeline,
            "HEADWATER_REGION": self.region,
            "HEADWATER_GATEWAY_KEYS_TABLE": self.table("keys"),
            "HEADWATER_KCL_APPLICATION": self.application,
            "HEADWATER_ALERTS_TO": f"arn:aws:events:{self.region}:{self.account}:event-bus/{self.name}",
        }


STAGES: Mapping[str, Deployment] = {
    "dev": Deployment("dev", "111111111111"),
    "prod": Deployment(
        "prod",
        "222222222222",
        shards=8,
        retention_hours=168,
        keep=True,
        small=False,
        scan_limit_gb=1_000,
        log_days=90,
        clients=("0.0.0.0/0",),
    ),
}


def deployment(
    stage: str, model: str = "containers", images: Mapping[str, str] | None = None, **given: str
) -> Deployment:
    """Return a stage of STAGES with what the command line says on top; raise UsageError that names what is wrong."""
    if stage not in STAGES:
        raise UsageError(f"stage {stage}: there are {', '.join(STAGES)}")
    if model not in ("containers", "serverless"):
        raise UsageError(f"model {model}: there are containers and serverless")
    for service, digest in (images or {}).items():
        if not digest.startswith("sha256:") or len(digest) != 71:
            raise UsageError(f"image of {service}: {digest} is no digest (sha256: and 64 hexadecimal digits)")
    changes = {name: value for name, value in given.items() if value}
    return replace(STAGES[stage], model=model, images=dict(images or {}), **changes)  # type: ignore[arg-type]  # settings of one type each, which a dict does not show
