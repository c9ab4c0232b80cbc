"""Settings: the only module that reads the environment (twelve-factor, III)."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = [
    "GatewaySettings",
    "KclSettings",
    "ServeSettings",
    "Settings",
    "debugging",
    "environment",
    "exports_telemetry",
    "recording_path",
    "use_environment",
]


class KclSettings(BaseSettings):
    """Read how a fleet runs under the Kinesis Client Library: HEADWATER_KCL_<NAME>.

    What each costs is in docs/operations/fleet.md.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_KCL_", extra="ignore")

    application: str = ""
    """The KCL's application name, shared by all workers of a pipeline; empty is `<stream>-<pipeline>`."""
    table: str = ""
    """The lease table; empty is the application name."""
    billing: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST"
    """Billing mode of the KCL's tables, where they are not there yet."""
    capacity: int = 10
    """Read and write capacity of the lease table when it is PROVISIONED."""
    start: Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"] = "TRIM_HORIZON"
    """Where a shard begins that neither the ledger nor the lease table knows."""
    start_at: datetime | None = None
    """The point in time of AT_TIMESTAMP, ISO 8601 (UTC where it names no zone)."""
    adopt_checkpoints: bool = False
    """Begin shards that the ledger does not know at the lease table's checkpoint: for moving from another consumer."""
    retrieval: Literal["POLLING", "FANOUT"] = "POLLING"
    consumer: str = ""
    """Name of the enhanced fan-out consumer; empty is the application name."""
    max_records: int = 10_000
    idle_ms: int = 250
    """Pause between two polls of a shard; 5 reads a second are shared by all consumers of it."""
    mode: Literal["2X", "3X"] = "2X"
    """Who assigns leases: every worker for itself (2X-compatible), or an elected leader (3X)."""
    failover_seconds: float = 10.0
    """A lease not renewed for so long is taken by another worker."""
    assignment_seconds: float = 0.0
    """Time between assignments of leases in 3X mode; 0 is the KCL's default, twice the failover time."""
    shard_sync_seconds: float = 60.0
    metrics: Literal["NONE", "SUMMARY", "DETAILED"] = "NONE"
    """The KCL's own CloudWatch metrics."""
    java: str = "java"
    java_options: str = "-Xmx512m -XX:+UseSerialGC"
    shutdown_seconds: float = 30.0
    """Longest graceful stop before the daemon is killed."""
    parents_seconds: float = 60.0
    """Longest wait of a child shard for its parents to be closed in the ledger before it gives its lease up."""
    crashes: int = 5
    """A shard (or a worker) that fails so often without a commit in between is a crash loop: the command ends."""
    silent_seconds: float = 120.0
    """A shard that says nothing for so long makes the liveness check fail."""
    http_host: str = "127.0.0.1"
    http_port: int = 8790
    """/health/live, /health/ready and /metrics; 0 takes a free port, -1 serves nothing."""
    worker: str = ""
    """This worker's id; set by `headwater process --on kcl` for the processes of its shards."""


class GatewaySettings(BaseSettings):
    """Read the settings of the HTTP service: HEADWATER_GATEWAY_<NAME>. Sizes are in bytes.

    What each bound does is in docs/gateway.md.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_GATEWAY_", extra="ignore")

    contracts: str = ""
    """Names of shipped contracts and paths of others, separated by commas; empty is the pipeline's contract."""
    otlp: bool = True
    """Serve /v1/metrics, /v1/logs and /v1/traces."""
    host: str = "127.0.0.1"
    port: int = 8780
    """0 takes a free port, which is printed."""
    grpc_port: int = -1
    """Port of OTLP over gRPC, by custom 4317; 0 takes a free port, -1 serves none."""
    tls_certificate: str = ""
    tls_key: str = ""
    outbox: str = ""
    """A directory: events are answered (202) when they are on its disk. Empty: answered (200) when Kinesis has them."""
    auth: Literal["keys", "none"] = "keys"
    """`none` is for loopback only."""
    keys_table: str = "headwater-keys"
    key_seconds: float = 15.0
    """Time for which a key looked up is believed: so long a revoked one may still work."""
    key_grace_seconds: float = 900.0
    """Time for which a key that was good goes on while DynamoDB does not answer; a revoked one as well, then."""
    jwt_issuer: str = ""
    """The `iss` of tokens that are taken beside API keys; empty takes none."""
    jwt_audience: str = ""
    jwt_jwks: str = ""
    """URL of the issuer's keys; empty asks the issuer's OpenID configuration."""
    jwt_claim: str = "headwater_contracts"
    """The claim that lists the contracts a token may write to."""
    jwt_id_prefix_claim: str = "headwater_id_prefixes"
    """The claim that lists what the ids begin with that a token may write, of contracts with ids of their own."""
    max_body_bytes: int = 16 << 20
    max_decoded_bytes: int = 32 << 20
    """Maximum size of a body decompressed; never above 64 MiB. Parsing takes up to ten times as much."""
    max_rows: int = 100_000
    """Maximum size of a JSON or CSV body."""
    max_arrow_rows: int = 2_000_000
    max_nesting: int = 32
    """Maximum depth of JSON in OTLP; an event's values are never nested."""
    max_inflight_bytes: int = 256 << 20
    """All requests that are not answered yet, together, by what they take at the peak of parsing."""
    max_buffer_bytes: int = 64 << 20
    """Events of one contract that wait for Kinesis."""
    wait_seconds: float = 2.0
    """Longest wait of a request for room before it is answered 503."""
    answer_seconds: float = 30.0
    """Longest wait of a request for Kinesis before it is answered 503."""
    body_seconds: float = 30.0
    """Longest time that a client may take over its body."""
    linger_ms: int = 20
    """Longest wait of small requests for others to share a record with."""
    decoders: int = 4
    """Threads that read bodies."""
    cors_origins: str = ""
    """Origins of pages that may send events from a browser, such as https://app.example.org, separated by commas."""
    metrics: bool = True
    """Serve /metrics, without a key: for a network that only the scraper and the load balancer reach."""
    docs: bool = True
    """Serve the page / and /openapi.json, without a key."""


class ServeSettings(BaseSettings):
    """Read the settings of the query API and the console: HEADWATER_SERVE_<NAME>. Keys and tokens are the gateway's."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_SERVE_", extra="ignore")

    host: str = "127.0.0.1"
    port: int = 8785
    """0 takes a free port, which is printed."""
    auth: Literal["keys", "none"] = "keys"
    """`none` is for loopback only."""
    console: bool = True
    controls: bool = True
    """Permission to send dead letters again in the console, and to cancel jobs there and by the API."""
    cache_seconds: float = 0.5
    """Maximum age of an answer that is given to many."""
    max_streams: int = 1_000
    """Open event streams."""
    tls_certificate: str = ""
    tls_key: str = ""


class Settings(BaseSettings):
    """Read the settings of every process: each is an environment variable HEADWATER_<NAME>.

    The defaults fit `headwater up`.

    >>> Settings(stream="clicks").stream
    'clicks'
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="ignore")

    stream: str = "headwater"
    ledger_table: str = "headwater-ledger"
    views_table: str = "headwater-views"
    bucket: str = "headwater-lake"
    """Holds the lake's Parquet files, state snapshots, reference tables and dead letters."""
    database: str = "headwater"
    """The Glue database of the Iceberg tables."""
    pipeline: str = "headwater.processors.examples.telemetry:pipeline"
    """`module:object` or `file.py:object` of the pipeline definition."""
    region: str = "us-east-1"
    """Used where boto3 finds no region of its own."""
    commit_seconds: float = 60.0
    """Longest time between two commits of a shard."""
    commit_mb: float = 128.0
    """Commit earlier when the Parquet of a shard reaches this size."""
    view_flush_seconds: float = 1.0
    view_writers: int = 8
    """Number of rows of views that are written at a time."""
    idle_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A shard that has committed nothing for so long counts as read up to so long ago, for what is final; 0 waits for
    it. A shard that is read commits every `commit_seconds`, so it is twice that at least."""
    publish_seconds: float = 30.0
    reference_seconds: float = 0.0
    """Time between the publisher's looks for new content of the reference tables' sources; 0 is never."""
    alerts_to: str = ""
    """Where state changes of alerts go: ARNs of EventBridge buses, SNS topics and SQS queues, or URLs of queues,
    separated by commas. Empty: they are kept in the ledger's table and logged."""
    alerts_seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Time between the alerts service's looks for windows that have become final."""
    log_level: str = "INFO"
    kcl: KclSettings = Field(default_factory=KclSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    serve: ServeSettings = Field(default_factory=ServeSettings)

    @field_validator("idle_seconds")
    @classmethod
    def _outlasts_commits(cls, value: float, info: ValidationInfo) -> float:
        commits = info.data.get("commit_seconds", 0.0)
        if value and not value >= 2 * commits:
            raise ValueError(f"it is 0, or at least twice HEADWATER_COMMIT_SECONDS ({commits:g})")
        return value


def recording_path() -> Path | None:
    """Return where the embedded AWS writes its requests, by moto's own variables; None when it does not."""
    if os.environ.get("MOTO_ENABLE_RECORDING", "").lower() != "true":
        return None
    return Path(os.environ.get("MOTO_RECORDER_FILEPATH", "moto_recording"))


def use_environment(variables: Mapping[str, str]) -> None:
    """Set variables for this process, boto3's among them: how an embedded AWS is made known to all clients."""
    os.environ.update(variables)


def debugging() -> bool:
    """Tell whether HEADWATER_DEBUG asks for tracebacks in place of one line."""
    return os.environ.get("HEADWATER_DEBUG", "") not in ("", "0")


def exports_telemetry() -> bool:
    """Tell whether OpenTelemetry's variables name an endpoint for this process's own spans and metrics."""
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT") for part in ("", "TRACES_", "METRICS_"))


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these variables beside: for a process that it starts."""
    return os.environ | dict(variables)
