"""Say what differs between deployments, and every name that follows from it. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
    """The path that a load balancer asks: whether the process lives. Readiness is 503 while AWS throttles, and a fleet
    that is replaced for it takes fewer events, not more."""
    cpu: int = 1024
    memory: int = 2048
    copies: tuple[int, int] = (2, 2)
    """Fewest and most copies."""


SERVICES: Mapping[str, Service] = {
    "kcl": Service(("process", "--on", "kcl"), "kcl", 8790, "", 2048, 8192, (2, 16)),
    "publish": Service(("publish",), "lake"),
    "maintain": Service(("lake", "maintain"), "lake", 0, "", 1024, 4096, (1, 1)),
    "alerts": Service(("alerts",), cpu=512),
    "gateway": Service(("gateway",), "web", 8780, "/health/live", 1024, 4096, (2, 20)),
    "serve": Service(("serve",), "web,lake", 8785, "/health", 1024, 2048, (2, 10)),
    "audit": Service(("audit", "--json"), "lake", copies=(0, 0)),
}
"""The services that run in containers. `audit` is a task on a schedule. `process` (every shard in one container, for
small streams) has an image of its own and kcl's role and settings."""


@dataclass(frozen=True)
class Deployment:
    """Describe one stage in one account and region. `images` has the digest of each service's image."""

    stage: str
    account: str = ""
    region: str = ""
    model: Literal["containers", "serverless"] = "containers"
    pipeline: str = "headwater.processors.examples.telemetry:pipeline"
    catalog: str = "glue"
    """`glue`, or the URL of another catalog, signed and so without a secret; on the internet it needs a NAT gateway."""
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
    issuer: Literal["make", "there"] = "make"
    """Make the provider for GitHub's tokens, or use the one that is `there`: an account has one for all its stages."""
    zones: int = 2
    """Availability zones: an endpoint of each service in each."""
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
        return f"{self.name}-lake-{self.account}-{self.region}"

    @property
    def logs_bucket(self) -> str:
        """Return the name of the bucket with the access logs."""
        return f"{self.name}-logs-{self.account}-{self.region}"

    @property
    def database(self) -> str:
        """Return the name of the lake's database in Glue."""
        return self.name.replace("-", "_")

    @property
    def application(self) -> str:
        """Return the KCL's application name, which is that of its lease table, too."""
        return f"{self.name}-kcl"

    def image_repository(self, service: str) -> str:
        """Return the name of the repository of a service's images."""
        return f"{self.name}/{service}"

    def table(self, purpose: str) -> str:
        """Return the name of the table `ledger`, `views` or `keys`."""
        return f"{self.name}-{purpose}"

    def image(self, service: str) -> str:
        """Return the digest to run. A synthesis without one gets a digest that no image has: only the stacks that have
        theirs can be deployed."""
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
            "HEADWATER_CATALOG": self.catalog,
            "HEADWATER_PIPELINE": self.pipeline,
            "HEADWATER_REGION": self.region,
            "HEADWATER_GATEWAY_KEYS_TABLE": self.table("keys"),
            "HEADWATER_KCL_APPLICATION": self.application,
            "HEADWATER_ALERTS_TO": f"arn:aws:events:{self.region}:{self.account}:event-bus/{self.name}",
        }


STAGES: Mapping[str, Deployment] = {
    "dev": Deployment("dev"),
    "prod": Deployment(
        "prod",
        zones=3,
        shards=8,
        retention_hours=168,
        keep=True,
        small=False,
        scan_limit_gb=1_000,
        log_days=90,
        clients=("0.0.0.0/0",),
    ),
}


_GIVEN: dict[str, tuple[str, str]] = {
    "account": (r"\d{12}", "the twelve digits of an account"),
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "a region such as eu-central-1"),
    "certificate": (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the id of an ACM certificate in that region"),
}
"""Settings that no stage has of its own: the form of each, and its meaning."""
_CHOSEN: dict[str, tuple[str, str]] = {
    "repository": (r"[\w.-]+/[\w.-]+", "owner/name on GitHub"),
    "issuer": (r"make|there", "make or there"),
    "zones": (r"[2-6]", "2 to 6"),
    "alarm_email": (r"[^@\s]+@[^@\s]+", "an address for e-mail"),
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
    for name, (form, meaning) in (_GIVEN | _CHOSEN).items():
        if name in _GIVEN and not given.get(name):
            raise UsageError(f"-c {name}=… is missing: {meaning}")
        if given.get(name) and not re.fullmatch(form, given[name]):
            raise UsageError(f"-c {name}={given[name]}: it takes {meaning}")
    changes: dict[str, Any] = {name: value for name, value in given.items() if value} | {"model": model}
    if "zones" in changes:
        changes["zones"] = int(changes["zones"])
    return replace(STAGES[stage], images=dict(images or {}), **changes)
