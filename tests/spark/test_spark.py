"""Spark with default settings reads every type, and what it rewrites and deletes beside the publisher stays so."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event, Thread

import pytest

from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.errors import Retryable
from tests.integration.test_readers import compare
from tests.kcl_servers import rest_catalog
from tests.lake import Between, aws
from tests.readable import KINDS, STATES, fill
from tests.spark.server import VERSIONS, Spark, missing, spark

__all__ = ["aws"]

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def settings(aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    assert not missing(), missing()
    url = aws.environment["AWS_ENDPOINT_URL"]
    with (
        rest_catalog(tmp_path_factory.mktemp("rest") / "catalog.db", url) as catalog,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        made = Settings(bucket="spark", database="spark", catalog=catalog)
        client("s3", made).create_bucket(Bucket=made.bucket)
        yield made


@pytest.fixture(scope="module", params=VERSIONS)
def session(
    request: pytest.FixtureRequest, settings: Settings, aws: EmbeddedAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Spark]:
    log = tmp_path_factory.mktemp("spark") / "log"
    with spark(request.param, settings.catalog, aws.environment["AWS_ENDPOINT_URL"], log) as running:
        yield running


def test_each_type_is_read_in_each_state(session: Spark, settings: Settings, request: pytest.FixtureRequest) -> None:
    """But no table with a time of day, which Spark refuses as a whole."""
    own = settings.model_copy(update={"database": f"d{abs(hash(request.node.name)) % 10**8}"})
    for kind in KINDS:
        for state in STATES:
            expected = fill(own, kind, state)
            sql = f"SELECT * FROM lake.{own.database}.{expected.table}"
            if kind == "times":
                with pytest.raises(ValueError, match="time"):
                    session.run(sql)
            else:
                compare(expected, list(expected.columns), session.run(sql))


def test_what_spark_rewrites_and_deletes_between_two_sightings_stays_so(
    session: Spark, settings: Settings, request: pytest.FixtureRequest
) -> None:
    """Nothing is doubled by a rewrite or an expiry, nothing comes back after DELETE and MERGE; after a rollback what
    was pending is added again.
    """
    own = settings.model_copy(update={"database": f"m{abs(hash(request.node.name)) % 10**8}"})
    lake, table, name = Between(own), f"lake.{own.database}.metric", f"{own.database}.metric"
    lake.publish(1)
    lake.publish(2)
    rewritten = "options => map('min-input-files', '1', 'rewrite-all', 'true')"
    session.run(f"CALL lake.system.rewrite_data_files(table => '{name}', {rewritten})")
    assert lake.settle() == Counter(range(6, 18))
    lake.publish(3)
    session.run(f"DELETE FROM {table} WHERE status IN (18, 19)")
    assert lake.settle() == Counter([*range(6, 18), *range(20, 24)])
    lake.publish(4)
    session.run(f"MERGE INTO {table} t USING (SELECT 24 AS status) u ON t.status = u.status WHEN MATCHED THEN DELETE")
    assert lake.settle() == Counter([*range(6, 18), *range(20, 24), *range(25, 30)])
    lake.publish(5)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    session.run(
        f"CALL lake.system.expire_snapshots(table => '{name}', older_than => TIMESTAMP '{now}', retain_last => 1)"
    )
    whole = Counter([*range(6, 18), *range(20, 24), *range(25, 36)])
    assert lake.settle() == whole
    (kept,) = session.run(f"SELECT snapshot_id FROM {table}.snapshots ORDER BY committed_at DESC LIMIT 1")
    assert lake.readded == 0
    lake.publish(6)
    session.run(f"CALL lake.system.rollback_to_snapshot('{name}', {kept['snapshot_id']})")
    assert lake.settle() == whole + Counter(range(36, 42))


def test_spark_deletes_merges_and_rewrites_while_a_publisher_commits(
    session: Spark, settings: Settings, request: pytest.FixtureRequest
) -> None:
    """Each statement gets through, though files are added to the rows that it looks at all the while."""
    own = settings.model_copy(update={"database": f"r{abs(hash(request.node.name)) % 10**8}"})
    lake, table, name = Between(own), f"beside.{own.database}.metric", f"{own.database}.metric"
    lake.publish(1)
    stop, published = Event(), [1]

    def go_on() -> None:
        while not stop.wait(0.3):
            with suppress(Retryable):
                lake.publish(published[-1] + 1)
            published.append(published[-1] + 1)

    going = Thread(target=go_on)
    going.start()
    try:
        session.run(f"DELETE FROM {table} WHERE status IN (6, 7)")
        session.run(f"UPDATE {table} SET device = 'other' WHERE status = 9")
        merged = "ON t.status = u.status WHEN MATCHED THEN DELETE"
        session.run(f"MERGE INTO {table} t USING (SELECT 8 AS status) u {merged}")
        session.run(f"CALL beside.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))")
        during = len(published)
    finally:
        stop.set()
        going.join()
    assert during > 4
    assert lake.settle() == Counter(range(9, 6 * published[-1] + 6))
    assert lake.readded == 0
