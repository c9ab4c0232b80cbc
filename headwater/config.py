"""Settings: the only module that reads the environment (twelve-factor, III)."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["KclSettings", "Settings", "debugging", "environment", "use_environment"]


class KclSettings(BaseSettings):
    """How a fleet runs under the Kinesis Client Library: HEADWATER_KCL_<NAME>. What each costs is in
    docs/operations/fleet.md."""

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
    """How often leases are assigned in 3X mode; 0 is the KCL's default, twice the failover time."""
    shard_sync_seconds: float = 60.0
    metrics: Literal["NONE", "SUMMARY", "DETAILED"] = "NONE"
    """The KCL's own CloudWatch metrics."""
    java: str = "java"
    java_options: str = "-Xmx512m -XX:+UseSerialGC"
    shutdown_seconds: float = 30.0
    """How long a graceful stop may take before the daemon is killed."""
    parents_seconds: float = 60.0
    """How long a child shard waits for its parents to be closed in the ledger before it gives its lease up."""
    crashes: int = 5
    """A shard (or a worker) that fails so often without a commit in between is a crash loop: the command ends."""
    silent_seconds: float = 120.0
    """A shard that says nothing for so long makes the liveness check fail."""
    http_host: str = "127.0.0.1"
    http_port: int = 8790
    """/health/live, /health/ready and /metrics; 0 takes a free port, -1 serves nothing."""
    worker: str = ""
    """This worker's id; set by `headwater process --on kcl` for the processes of its shards."""


class Settings(BaseSettings):
    """Every setting is an environment variable HEADWATER_<NAME>; the defaults fit `headwater up`."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="ignore")

    stream: str = "headwater"
    ledger_table: str = "headwater-ledger"
    views_table: str = "headwater-views"
    bucket: str = "headwater-lake"
    """Holds the lake's Parquet files, state snapshots, reference tables and dead letters."""
    database: str = "headwater"
    """The Glue database of the Iceberg tables."""
    pipeline: str = "processors.examples.telemetry:pipeline"
    """`module:object` or `file.py:object` of the pipeline definition."""
    region: str = "us-east-1"
    """Used where boto3 finds no region of its own."""
    commit_seconds: float = 60.0
    """Longest time between two commits of a shard."""
    commit_mb: float = 128.0
    """Commit earlier when the Parquet of a shard reaches this size."""
    view_flush_seconds: float = 1.0
    view_writers: int = 8
    """How many rows of views are written at a time."""
    publish_seconds: float = 30.0
    reference_seconds: float = 0.0
    """How often the publisher looks for new content of the reference tables' sources; 0 is never."""
    log_level: str = "INFO"
    kcl: KclSettings = Field(default_factory=KclSettings)


def use_environment(variables: Mapping[str, str]) -> None:
    """Set variables for this process, boto3's among them: how an embedded AWS is made known to all clients."""
    os.environ.update(variables)


def debugging() -> bool:
    """Whether HEADWATER_DEBUG asks for tracebacks in place of one line."""
    return os.environ.get("HEADWATER_DEBUG", "") not in ("", "0")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and these: for a process that it starts."""
    return os.environ | dict(variables)
