"""Share what the notebooks need: where the lake is, and how SQL gets there.

With HEADWATER_NOTEBOOK=athena a query goes to Athena (workgroup HEADWATER_ATHENA_WORKGROUP), over the tables that the
settings name, and nothing is started. Otherwise everything runs here, on an embedded AWS, and the same SQL (Athena's
dialect) is translated for DuckDB.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import sqlglot

from headwater import HeadwaterError, Settings
from headwater.clock import SystemClock
from headwater.config import environment
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.sinks.lake.query import lake_query

__all__ = ["Lake", "open_lake"]


class Lake:
    """Hold the services, and run SQL over the lake."""

    def __init__(self, services: Services, athena: bool) -> None:
        self.services = services
        self.athena = athena

    def sql(self, query: str) -> pd.DataFrame:
        """Return the answer of a query in Athena's dialect."""
        if self.athena:
            import awswrangler

            workgroup = environment({}).get("HEADWATER_ATHENA_WORKGROUP", "primary")
            found: pd.DataFrame = awswrangler.athena.read_sql_query(
                query, database=self.services.settings.database, workgroup=workgroup, ctas_approach=False
            )
            return found
        (local,) = sqlglot.transpile(query, read="athena", write="duckdb")
        return lake_query(self.services.settings, local).to_pandas()

    def settle(self, events: int = 0, seconds: float = 120.0) -> None:
        """Wait until what was produced is in the lake: accepted, processed and published, so many `events` at least.

        Without a number, what the stream has and nobody has read yet is not waited for.
        """
        clock = SystemClock()
        deadline = clock.now_ms() + round(seconds * 1000)
        while clock.now_ms() < deadline:
            report = run_audit(self.services.reader)
            if report.exact and report.in_lake >= max(1, events) and not report.pending_files:
                return
            clock.sleep(1.0)
        raise HeadwaterError(f"not everything is in the lake after {seconds:.0f} s: headwater audit says what")


@contextmanager
def open_lake(pipeline: str = "headwater.processors.examples.telemetry:pipeline", shards: int = 2) -> Iterator[Lake]:
    """Open the lake of a pipeline for as long as the block lasts."""
    athena = environment({}).get("HEADWATER_NOTEBOOK") == "athena"
    settings = Settings(pipeline=pipeline, commit_seconds=2.0, view_flush_seconds=1.0)
    settings.serve.port = 0
    settings.gateway.port = 0
    if athena:
        yield Lake(Services(settings, load(pipeline)), athena=True)
        return
    from headwater.commands.local.up import Up

    with Up(load(pipeline), settings, SystemClock(), shards).running():
        yield Lake(Services(settings, load(pipeline)), athena=False)
