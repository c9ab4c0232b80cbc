"""The nearest thing to Athena engine 3 reads the lake: `make test-trino`."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyiceberg.types import StringType

from headwater.contract.types import parse_type
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.queries import named_queries
from headwater.sinks.lake.query import lake_query
from tests.cli import headwater
from tests.integration.test_lake_users import SETTINGS, aws, names, process, produce, services
from tests.integration.test_readers import compare
from tests.lake import Between
from tests.named_queries import TRINO_ONLY, local_sql, parameters
from tests.readable import KINDS, STATES, fill
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
    for name, query in named_queries(services.pipeline.lake_to.table, services.pipeline.contract).items():
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
    queries = named_queries(services.pipeline.lake_to.table, services.pipeline.contract)
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


def given(kind: Any, value: Any, members: Sequence[str] = ()) -> Any:
    """Return a value of Trino's JSON as Python has it: structs are lists there, bytes base64, floats cut short."""
    if value is None:
        return None
    if kind.name == "list":
        return [given(kind.members[0].kind, one) for one in value]
    if kind.name == "map":
        return {name: given(kind.members[0].kind, one) for name, one in value.items()}
    if kind.name == "struct":
        kinds = {one.name: one.kind for one in kind.members}
        return {name: given(kinds[name], one) for name, one in zip(members, value, strict=True)}
    scalars: Mapping[str, Callable[[Any], Any]] = {"binary": base64.b64decode, "float": np.float32}
    return scalars.get(kind.name, lambda one: one)(value)


def test_each_type_is_read_in_each_state(server: Trino) -> None:
    own = SETTINGS.model_copy(update={"database": "types"})
    for kind in KINDS:
        for state in STATES:
            expected = fill(own, kind, state)
            columns = {"_origin": "string", "_seq": "long", **expected.columns}
            found = server.run(f"SELECT {', '.join(columns)} FROM types.{expected.table}")
            members = [
                [part["value"]["fieldName"]["name"] for part in one["arguments"]] if one["rawType"] == "row" else []
                for one in found.types
            ]
            kinds = [parse_type(one) for one in columns.values()]
            rows = [dict(zip(columns, map(given, kinds, row, members), strict=True)) for row in found.rows]
            compare(expected, list(expected.columns), rows)


def test_what_trino_rewrites_and_deletes_between_two_sightings_stays_so(server: Trino) -> None:
    """Nothing is doubled by an OPTIMIZE or an expiry, nothing comes back after DELETE, UPDATE and MERGE; after a
    rollback what was pending is added again. By day and bucket.
    """
    own, spread = SETTINGS.model_copy(update={"database": "beside"}), Partitioning("ts", "device", "day", 4)
    lake, name = Between(own, spread), "beside.metric"
    lake.publish(1)
    lake.publish(2)
    server.run(f"ALTER TABLE {name} EXECUTE optimize")
    assert lake.settle() == Counter(range(6, 18))
    lake.publish(3)
    server.run(f"DELETE FROM {name} WHERE status IN (18, 19)")
    assert lake.settle() == Counter([*range(6, 18), *range(20, 24)])
    lake.publish(4)
    server.run(f"MERGE INTO {name} t USING (VALUES 24) u(status) ON t.status = u.status WHEN MATCHED THEN DELETE")
    server.run(f"UPDATE {name} SET device = 'other' WHERE status = 25")
    whole = Counter([*range(6, 18), *range(20, 24), *range(25, 30)])
    assert lake.settle() == whole
    lake.publish(5)
    server.run(f"ALTER TABLE {name} EXECUTE expire_snapshots(retention_threshold => '0s')")
    whole += Counter(range(30, 36))
    assert lake.settle() == whole
    server.run(f"ALTER TABLE {name} EXECUTE optimize")
    server.run(f"ALTER TABLE {name} EXECUTE remove_orphan_files(retention_threshold => '7d')")
    assert lake.settle() == whole
    assert lake.readded == 0
    found = server.run(f"SELECT status FROM {name} WHERE device = 'other'")
    assert found.rows == [[25]]
    kept = server.run('SELECT snapshot_id FROM beside."metric$snapshots" ORDER BY committed_at DESC LIMIT 1').rows[0][0]
    lake.publish(6)
    server.run(f"ALTER TABLE {name} EXECUTE rollback_to_snapshot({kept})")
    assert lake.settle() == whole + Counter(range(36, 42))


def test_what_trino_deletes_is_named_by_the_audit_until_it_is_accepted(
    server: Trino, services: Services, aws: Mapping[str, str]
) -> None:
    """What it joins is all there."""

    def audited() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(headwater("audit", "--json", environment=aws).out)
        return found

    produce(services, 200, start_ms=1_790_000_000_000 + 5 * DAY_MS)
    process(services, 200)
    services.publisher("test").step()
    server.run("ALTER TABLE telemetry EXECUTE optimize")
    services.publisher("test").drain()
    assert audited()["exact"]
    gone = names(services)[2]
    rows = server.run("SELECT count(*) FROM telemetry WHERE device = ?", f"'{gone}'").rows[0][0]
    assert rows > 0
    server.run("DELETE FROM telemetry WHERE device = ?", f"'{gone}'")
    services.publisher("test").drain()
    found = audited()
    assert not found["exact"]
    assert sum(one["missing"] for one in found["origins"]) == rows
    accepted = headwater("audit", "accept", "--who", "ann", "--why", "a request", environment=aws)
    assert accepted.code == 0, accepted
    assert audited()["exact"]
