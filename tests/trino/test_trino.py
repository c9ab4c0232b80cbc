"""The nearest thing to Athena engine 3 reads the lake: `make test-trino`."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import pandas as pd
import pytest
from pyiceberg.types import StringType

from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.query import lake_query
from infra.queries import named_queries
from tests.cli import headwater
from tests.integration.test_lake_users import SETTINGS, aws, names, process, produce, services
from tests.named_queries import TRINO_ONLY, local_sql, parameters
from tests.trino.server import Trino, missing, trino

__all__ = ["aws", "services"]

pytestmark = pytest.mark.trino
DAY_MS = 86_400_000
COUNT = "SELECT count(*), count(DISTINCT device) FROM telemetry"


def now() -> str:
    return datetime.now(UTC).isoformat()


@pytest.fixture(scope="module")
def server(aws: Mapping[str, str], services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trino]:
    assert not missing(), missing()
    produce(services, 500, start_ms=1_790_000_000_000 + 3 * DAY_MS)
    process(services, 500)
    services.publisher("test").drain()
    with trino(aws["AWS_ENDPOINT_URL"], SETTINGS.database, tmp_path_factory.mktemp("trino")) as running:
        yield running


def as_of(sql: str, then: str) -> str:
    """The lake is younger than the hour that the query goes back."""
    return sql.replace("current_timestamp - INTERVAL '1' HOUR", f"from_iso8601_timestamp('{then}')")


def rows() -> pd.DataFrame:
    frame: pd.DataFrame = open_table(SETTINGS, "telemetry").scan().to_pandas()
    return frame


def test_named_queries_answer_as_duckdb_does(server: Trino, services: Services) -> None:
    device = names(services)[0]
    for name, query in named_queries(services.pipeline).items():
        values = parameters(name, device, "2026-09-21T14:00:00Z", now())
        found = server.run(as_of(query.sql, now()), *values)
        if name in TRINO_ONLY:
            assert found.rows, name
            continue
        local = lake_query(SETTINGS, local_sql(query.sql, values))
        assert found.columns == local.column_names
        numbers = local.to_pandas().select_dtypes("number")
        theirs = pd.DataFrame(found.rows, columns=found.columns)[numbers.columns]
        for column in numbers:
            given, wanted = theirs[column].astype(float), numbers[column].astype(float)
            if column in ("median", "p95"):  # of few values each engine's estimate is another neighbour
                assert ((given - wanted).abs() / wanted.abs()).median() < 0.05, (name, column)
            else:
                assert given.tolist() == pytest.approx(wanted.tolist(), rel=1e-9, nan_ok=True), (name, column)


def test_a_day_s_partition_is_all_that_is_read(server: Trino) -> None:
    frame = rows()
    last = frame["ts"].max().floor("D")
    wanted = frame[frame["ts"] >= last]
    found = server.run(
        "SELECT count(*), sum(value) FROM telemetry WHERE ts >= from_iso8601_timestamp(?)",
        f"'{last}'".replace(" ", "T"),
    )
    assert found.rows[0] == [len(wanted), pytest.approx(wanted["value"].sum())]
    assert found.read == len(wanted) < len(frame)


def test_time_travel_compaction_evolution_and_forgetting(
    server: Trino, services: Services, aws: Mapping[str, str]
) -> None:
    queries = named_queries(services.pipeline)
    before, then = server.run(COUNT).rows[0], now()
    produce(services, 300, start_ms=1_790_000_000_000 + 4 * DAY_MS)
    process(services, 300)
    services.publisher("test").drain()
    frame = rows()
    assert server.run(COUNT).rows[0] == [len(frame), frame["device"].nunique()]
    assert len(frame) == before[0] + 300
    assert server.run(as_of(queries["as of"].sql, then)).rows[0][0] == before[0]
    done = headwater("lake", "compact", "--json", "--fewest", "2", environment=aws)
    assert done.code == 0, done
    assert server.run(COUNT).rows[0][0] == len(frame)
    assert sum(row[1] for row in server.run(queries["files"].sql).rows) == frame["ts"].dt.floor("D").nunique()
    gone = names(services)[1]
    assert headwater("lake", "forget", "--key", gone, environment=aws).code == 0
    left = frame[frame["device"] != gone]
    assert server.run(COUNT).rows[0] == [len(left), left["device"].nunique()]
    with open_table(SETTINGS, "telemetry").update_schema() as change:
        change.rename_column("unit", "units")
        change.add_column("note", StringType())
    found = server.run("SELECT units, count(*), count(note) FROM telemetry WHERE units IS NOT NULL GROUP BY 1")
    assert {unit: events for unit, events, _ in found.rows} == left["unit"].value_counts().to_dict()
    assert {notes for *_, notes in found.rows} == {0}
