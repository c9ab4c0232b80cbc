"""Settings: the only module that reads the environment (twelve-factor, III)."""

import os
from collections.abc import Mapping

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "use_environment"]


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


def use_environment(variables: Mapping[str, str]) -> None:
    """Set variables for this process, boto3's among them: how an embedded AWS is made known to all clients."""
    os.environ.update(variables)
