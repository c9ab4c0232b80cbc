"""A lake in a REST catalog, Iceberg's own: what came in is what the table has, whoever writes beside us."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Event, Thread

import pytest
from pyiceberg.catalog.rest import RestCatalog

from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import HeadwaterError, Retryable
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import IcebergTable, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.compaction import CompactionSizes
from tests.cli import headwater
from tests.integration.test_catalog import FOREIGN, _foreign_writer
from tests.integration.test_lake_users import process, produce
from tests.kcl_servers import rest_catalog
from tests.lake import aws, commit, ensured, new_ledger, publisher, seqs, upload
from tests.lake import settings as glue_settings

__all__ = ["aws", "glue_settings"]


@pytest.fixture(scope="module")
def catalog(aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rest_catalog(tmp_path_factory.mktemp("rest") / "catalog.db", aws.environment["AWS_ENDPOINT_URL"]) as url:
        yield url


@pytest.fixture
def settings(glue_settings: Settings, catalog: str) -> Settings:
    """A namespace of the test's own in the REST catalog."""
    return glue_settings.model_copy(update={"catalog": catalog})


def test_each_file_is_there_once_beside_a_foreign_writer_and_a_rival(settings: Settings) -> None:
    """The catalog refuses whoever was overtaken, so nothing is lost and nothing is added again."""
    ensured(settings)
    assert isinstance(open_catalog(settings), RestCatalog)
    ledger, stop, errors = new_ledger(), Event(), list[Exception]()
    writer = Thread(target=_foreign_writer, args=(settings, stop, errors))
    writer.start()
    rivals = [publisher(settings, ledger, owner, lease_seconds=0) for owner in ("left", "right")]
    readded = 0
    try:
        for position in range(1, 5):
            commit(ledger, f"shard-{position % 2}", position, [upload(settings, str(position), 3 * position)])
            for rival in rivals:
                with suppress(HeadwaterError):
                    readded += rival.step().readded
    finally:
        stop.set()
        writer.join()
    publisher(settings, ledger, "last", lease_seconds=0).drain()
    assert (errors, readded) == ([], 0)
    assert Counter({seq: n for seq, n in seqs(settings).items() if seq < FOREIGN}) == Counter(range(3, 15))


def test_a_state_that_is_gone_refuses_the_commit(settings: Settings) -> None:
    """What was missing then may be there now."""
    ensured(settings)
    file, opened = upload(settings, "a", 0), open_catalog(settings)
    left, right = (IcebergTable(opened, settings.database, "metric") for _ in range(2))
    assert left.read().files == right.read().files == set()
    left.add([file.uri])
    with pytest.raises(Retryable, match="another writer was faster"):
        right.add([file.uri])
    assert right.read().files == {file.uri}


def test_from_the_stream_to_queries_maintenance_and_forgetting(
    aws: EmbeddedAws, catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command finds the tables where the one setting says; the audit is exact at each stage."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HEADWATER_CATALOG", catalog)
    settings = Settings(commit_seconds=0.5, view_flush_seconds=0.5)
    provision(settings, shards=2)
    services = Services(settings, load(settings.pipeline))
    services.prepare()
    for part in range(2):
        produce(services, 300, start_ms=1_790_000_000_000 + part * 3_600_000)
        process(services, 300)
    services.publisher("test").drain()
    assert glue_tables(settings) == []
    assert run_audit(services.reader).exact
    environment = dict(aws.environment) | {"HEADWATER_CATALOG": catalog}
    answer = headwater("lake", "query", "SELECT count(*) AS n FROM telemetry", "--json", environment=environment)
    assert '"n": 600' in answer.out or '"n":600' in answer.out
    services.maintenance(CompactionSizes(fewest=2)).compact()
    services.maintenance().expire(1, services.clock.now_ms())
    key = open_table(settings, "telemetry").scan().to_arrow()["device"][0].as_py()
    assert headwater("lake", "forget", "--key", key, environment=environment).code == 0
    assert key not in open_table(settings, "telemetry").scan().to_arrow()["device"].to_pylist()
    audited = headwater("audit", environment=environment)
    assert audited.code == 0, audited


def glue_tables(settings: Settings) -> list[str]:
    """What Glue has: nothing of ours."""
    found: list[str] = []
    with suppress(client("glue", settings).exceptions.EntityNotFoundException):
        found = [
            one["Name"] for one in client("glue", settings).get_tables(DatabaseName=settings.database)["TableList"]
        ]
    return found


def test_a_catalog_that_is_not_there_is_one_line(aws: EmbeddedAws) -> None:
    """Exit code 1, and no traceback."""
    environment: Mapping[str, str] = dict(aws.environment) | {"HEADWATER_CATALOG": "http://127.0.0.1:1/"}
    headwater("lake", "tables", environment=environment).failed(1, "the catalog does not answer")
    wrong = dict(aws.environment) | {"HEADWATER_CATALOG": "arn:aws:s3tables:us-east-1:1:bucket/b"}
    headwater("lake", "tables", environment=wrong).failed(2, "HEADWATER_CATALOG")
