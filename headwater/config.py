"""Settings: the only module that reads the environment (twelve-factor, III).

Every setting has a type of `headwater.settingtypes`, which bounds it. Processes read them by `read_settings`.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from headwater.errors import UsageError
from headwater.settingtypes import (
    Bucket,
    Bytes,
    CatalogName,
    Count,
    Host,
    LogLevel,
    Milliseconds,
    Name,
    NameOrNone,
    Options,
    Origins,
    Port,
    PortOrNone,
    Region,
    Seconds,
    SecondsOrZero,
    Text,
    Url,
)

__all__ = [
    "GatewaySettings",
    "KclSettings",
    "ServeSettings",
    "Settings",
    "debugging",
    "environment",
    "exports_telemetry",
    "list_settings",
    "read_settings",
    "recording_path",
    "setting_faults",
    "use_environment",
]

log = logging.getLogger("headwater.settings")


class KclSettings(BaseSettings):
    """Read how a fleet runs under the Kinesis Client Library: HEADWATER_KCL_<NAME>.

    What each costs is in docs/operations/fleet.md.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_KCL_", extra="ignore")

    application: NameOrNone = ""
    """The KCL's application name, shared by all workers of a pipeline; empty is `<stream>-<pipeline>`."""
    table: NameOrNone = ""
    """The lease table; empty is the application name."""
    billing: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST"
    """Billing mode of the KCL's tables, where they are not there yet."""
    capacity: Count = 10
    """Read and write capacity of the lease table when it is PROVISIONED."""
    start: Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"] = "TRIM_HORIZON"
    """Where a shard begins that neither the ledger nor the lease table knows."""
    start_at: datetime | None = None
    """The point in time of AT_TIMESTAMP, ISO 8601 (UTC where it names no zone)."""
    adopt_checkpoints: bool = False
    """Begin shards that the ledger does not know at the lease table's checkpoint: for moving from another consumer."""
    retrieval: Literal["POLLING", "FANOUT"] = "POLLING"
    consumer: NameOrNone = ""
    """Name of the enhanced fan-out consumer; empty is the application name."""
    max_records: Annotated[Count, Field(le=10_000)] = 10_000
    idle_ms: Milliseconds = 250
    """Pause between two polls of a shard; 5 reads a second are shared by all consumers of it."""
    mode: Literal["2X", "3X"] = "2X"
    """Who assigns leases: every worker for itself (2X-compatible), or an elected leader (3X)."""
    failover_seconds: Seconds = 10.0
    """A lease not renewed for so long is taken by another worker."""
    assignment_seconds: SecondsOrZero = 0.0
    """Time between assignments of leases in 3X mode; 0 is the KCL's default, twice the failover time."""
    shard_sync_seconds: Seconds = 60.0
    metrics: Literal["NONE", "SUMMARY", "DETAILED"] = "NONE"
    """The KCL's own CloudWatch metrics."""
    java: Text = "java"
    java_options: Options = "-Xmx512m -XX:+UseSerialGC"
    shutdown_seconds: Seconds = 30.0
    """Longest graceful stop before the daemon is killed."""
    parents_seconds: Seconds = 60.0
    """Longest wait of a child shard for its parents to be closed in the ledger before it gives its lease up."""
    crashes: Count = 5
    """A shard (or a worker) that fails so often without a commit in between is a crash loop: the command ends."""
    silent_seconds: Seconds = 120.0
    """A shard that says nothing for so long makes the liveness check fail."""
    http_host: Host = "127.0.0.1"
    http_port: PortOrNone = 8790
    """/health/live, /health/ready and /metrics; 0 takes a free port, -1 serves nothing."""
    worker: NameOrNone = ""
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
    host: Host = "127.0.0.1"
    port: Port = 8780
    """0 takes a free port, which is printed."""
    grpc_port: PortOrNone = -1
    """Port of OTLP over gRPC, by custom 4317; 0 takes a free port, -1 serves none."""
    tls_certificate: str = ""
    tls_key: str = ""
    outbox: str = ""
    """A directory: events are answered (202) when they are on its disk. Empty: answered (200) when Kinesis has them."""
    auth: Literal["keys", "none"] = "keys"
    """`none` is for loopback only."""
    keys_table: Name = "headwater-keys"
    key_seconds: SecondsOrZero = 15.0
    """Time for which a key looked up is believed: so long a revoked one may still work."""
    key_grace_seconds: SecondsOrZero = 900.0
    """Time for which a key that was good goes on while DynamoDB does not answer; a revoked one as well, then."""
    jwt_issuer: str = ""
    """The `iss` of tokens that are taken beside API keys; empty takes none."""
    jwt_audience: str = ""
    jwt_jwks: Url = ""
    """URL of the issuer's keys; empty asks the issuer's OpenID configuration."""
    jwt_claim: Text = "headwater_contracts"
    """The claim that lists the contracts a token may write to."""
    jwt_id_prefix_claim: Text = "headwater_id_prefixes"
    """The claim that lists what the ids begin with that a token may write, of contracts with ids of their own."""
    max_body_bytes: Bytes = 16 << 20
    max_decoded_bytes: Annotated[Bytes, Field(le=64 << 20)] = 16 << 20
    """Maximum size of a body decompressed; never above 64 MiB. Parsing takes up to ten times as much."""
    max_rows: Count = 100_000
    """Maximum size of a JSON or CSV body."""
    max_arrow_rows: Count = 2_000_000
    max_nesting: Annotated[Count, Field(le=100)] = 32
    """Maximum depth of JSON in OTLP; an event's values are never nested."""
    max_inflight_bytes: Bytes = 128 << 20
    """All requests that are not answered yet, together: a third for bodies as they come, the others for what reading
    them takes at its peak."""
    max_buffer_bytes: Bytes = 64 << 20
    """Events of one contract that wait for Kinesis."""
    wait_seconds: SecondsOrZero = 2.0
    """Longest wait of a request for room before it is answered 503."""
    answer_seconds: Seconds = 30.0
    """Longest wait of a request for Kinesis before it is answered 503."""
    body_seconds: Seconds = 30.0
    """Longest time that a client may take over its body."""
    linger_ms: Milliseconds = 20
    """Longest wait of small requests for others to share a record with."""
    decoders: Annotated[Count, Field(le=256)] = 4
    """Threads that read bodies."""
    cors_origins: Origins = ""
    """Origins of pages that may send events from a browser, such as https://app.example.org, separated by commas."""
    metrics: bool = True
    """Serve /metrics, without a key: for a network that only the scraper and the load balancer reach."""
    docs: bool = True
    """Serve the page / and /openapi.json, without a key."""


class ServeSettings(BaseSettings):
    """Read the settings of the query API and the console: HEADWATER_SERVE_<NAME>. Keys and tokens are the gateway's."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_SERVE_", extra="ignore")

    host: Host = "127.0.0.1"
    port: Port = 8785
    """0 takes a free port, which is printed."""
    auth: Literal["keys", "none"] = "keys"
    """`none` is for loopback only."""
    console: bool = True
    controls: bool = True
    """Permission to send dead letters again in the console, and to cancel jobs there and by the API."""
    cache_seconds: SecondsOrZero = 0.5
    """Maximum age of an answer that is given to many."""
    max_streams: Count = 1_000
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

    stream: Name = "headwater"
    ledger_table: Name = "headwater-ledger"
    views_table: Name = "headwater-views"
    bucket: Bucket = "headwater-lake"
    """Holds the lake's Parquet files, state snapshots, reference tables and dead letters."""
    database: Name = "headwater"
    """The Glue database of the Iceberg tables, or their namespace in a REST catalog."""
    catalog: CatalogName = "glue"
    """Where the Iceberg tables are listed: `glue`, or the URL of a catalog that speaks Iceberg's REST protocol, such as
    `https://ID:SECRET@lake.example.org/catalog?warehouse=events`."""
    pipeline: Text = "headwater.processors.examples.telemetry:pipeline"
    """`module:object` or `file.py:object` of the pipeline definition."""
    region: Region = "us-east-1"
    """Used where boto3 finds no region of its own."""
    commit_seconds: Seconds = 5.0
    """Longest time between two commits of a shard; what short ones cost is in docs/lake.md."""
    commit_mb: float = Field(default=128.0, gt=0, le=10_000, allow_inf_nan=False)
    """Commit earlier when the Parquet of a shard reaches this size."""
    view_flush_seconds: Seconds = 1.0
    view_writers: Annotated[Count, Field(le=1_024)] = 8
    """Number of rows of views that are written at a time."""
    idle_seconds: SecondsOrZero = 0.0
    """A shard that has committed nothing for so long counts as read up to so long ago, for what is final; 0 waits for
    it. A shard that is read commits every `commit_seconds`, so it is twice that at least."""
    publish_seconds: Seconds = 3.0
    """Time between two steps of the publisher, each of which makes what was committed since queryable in the lake."""
    reference_seconds: SecondsOrZero = 0.0
    """Time between the publisher's looks for new content of the reference tables' sources; 0 is never."""
    alerts_to: str = ""
    """Where state changes of alerts go: ARNs of EventBridge buses, SNS topics and SQS queues, or URLs of queues,
    separated by commas. Empty: they are kept in the ledger's table and logged."""
    alerts_seconds: Seconds = 10.0
    """Time between the alerts service's looks for windows that have become final."""
    log_level: LogLevel = "INFO"
    kcl: Annotated[KclSettings, NoDecode] = Field(default_factory=KclSettings)
    gateway: Annotated[GatewaySettings, NoDecode] = Field(default_factory=GatewaySettings)
    serve: Annotated[ServeSettings, NoDecode] = Field(default_factory=ServeSettings)

    @field_validator("idle_seconds")
    @classmethod
    def _outlasts_commits(cls, value: float, info: ValidationInfo) -> float:
        commits = info.data.get("commit_seconds", 0.0)
        if value and not value >= 2 * commits:
            raise ValueError(f"it is 0, or at least twice HEADWATER_COMMIT_SECONDS ({commits:g})")
        return value


_GROUPS: Mapping[str, type[BaseSettings]] = {"kcl": KclSettings, "gateway": GatewaySettings, "serve": ServeSettings}
_PREFIXES = {
    "Settings": "HEADWATER_",
    "KclSettings": "HEADWATER_KCL_",
    "GatewaySettings": "HEADWATER_GATEWAY_",
    "ServeSettings": "HEADWATER_SERVE_",
}
"""Prefix of the variables of each class."""
_OTHERS = ("HEADWATER_DEBUG", "HEADWATER_NOTEBOOK", "HEADWATER_ATHENA_WORKGROUP")
"""Variables that no class has, read in this module and in notebooks/lake.py."""
_OF_AWS = (
    "AWS_ENDPOINT_URL",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_SECRETS = frozenset({"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
_HIDDEN = "(hidden)"


def read_settings() -> Settings:
    """Return the settings of the environment; variables HEADWATER_… that nothing reads are logged, once a process.

    Raises UsageError with one line that names every variable whose value cannot be.
    """
    _report_unknown(tuple(os.environ))
    faults: list[str] = []
    groups: dict[str, Any] = {}
    for name, kind in _GROUPS.items():
        try:
            groups[name] = kind()
        except ValidationError as error:
            faults += setting_faults(error)
            groups[name] = kind.model_construct()
    try:
        settings = Settings(**groups)
    except ValidationError as error:
        faults += setting_faults(error)
    if faults:
        raise UsageError("; ".join(faults))
    return settings


def setting_faults(error: ValidationError) -> list[str]:
    """Return a line for each setting that the error of a settings class is about: the variable, its value and why."""
    head = _PREFIXES.get(error.title, "HEADWATER_")
    return [
        f"{head}{'_'.join(map(str, one['loc'])).upper()}={_without_secrets(str(one.get('input')))!r}: "
        + " ".join(one["msg"].removeprefix("Value error, ").split())
        for one in error.errors(include_url=False)
    ]


@lru_cache(maxsize=1)
def _report_unknown(names: tuple[str, ...]) -> None:
    for line in _unknown(names):
        log.warning("%s", line)


def _unknown(names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each name HEADWATER_… that no setting has, with the one that is most like it."""
    kinds: list[type[BaseSettings]] = [Settings, *_GROUPS.values()]
    known = {_PREFIXES[kind.__name__] + field.upper() for kind in kinds for field in kind.model_fields}
    known = known - {f"HEADWATER_{group.upper()}" for group in _GROUPS} | {*_OTHERS}
    for name in sorted(names):
        if name.upper().startswith("HEADWATER_") and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), sorted(known), 1, 0.6)
            more = f"did you mean {near[0]}?" if near else "`headwater settings` lists all"
            yield f"{name} is no setting, and nothing reads it: {more}"


def list_settings(settings: Settings) -> list[dict[str, Any]]:
    """Return each setting with its value, its default and its source, then what boto3 reads of the environment.

    The source is `environment` or `default`. Secrets are hidden: keys of AWS, and passwords in URLs and options.
    """
    variables = {name.upper(): value for name, value in os.environ.items()}
    rows = [(name, value, default) for name, value, default in _settings_of(settings)]
    rows += [(name, variables.get(name), None) for name in ("HEADWATER_DEBUG", *_OF_AWS)]
    return [
        {
            "setting": name,
            "value": _HIDDEN if name in _SECRETS and value else _without_secrets(value),
            "default": default,
            "source": "environment" if name in variables else "default",
        }
        for name, value, default in rows
    ]


def _settings_of(settings: Settings) -> Iterator[tuple[str, Any, Any]]:
    """Yield the variable, the value and the default of each setting."""
    for made in (settings, *(getattr(settings, name) for name in _GROUPS)):
        for name, field in type(made).model_fields.items():
            if name not in _GROUPS or made is not settings:
                yield _PREFIXES[type(made).__name__] + name.upper(), getattr(made, name), field.default


def _without_secrets(value: Any) -> Any:
    """Return a value without the passwords in it."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"://[^/@\s]*@", f"://{_HIDDEN}@", value)
    return re.sub(r"(?i)((?:password|secret|token)[\w.-]*=)[^\s&,]+", rf"\g<1>{_HIDDEN}", value)


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
