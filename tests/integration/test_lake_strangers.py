"""Other engines on our table through Glue on moto: what they rewrite or delete while files are pending stays so."""

import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Table

from headwater.aws import Objects, client
from headwater.config import Settings
from headwater.errors import HeadwaterError
from headwater.ledger import Ledger, PendingFile
from headwater.sinks.lake.catalog import IcebergTable, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.quarantine import quarantined_files
from tests.lake import aws, commit, ensured, new_ledger, publisher, seqs, settings, upload

__all__ = ["aws", "settings"]

WHOLE = Partitioning("ts", "device", None)
"""Not partitioned: pyiceberg itself writes no files by day without a library more."""


ROLLED_BACK = "a table was rolled back: what was published since is not in it, and the audit names it"


def opened(settings: Settings) -> Table:
    return open_table(settings, "metric")


def rewrite(settings: Settings) -> None:
    """All rows into a new file, as another engine's compaction does it."""
    table = opened(settings)
    table.overwrite(table.scan().to_arrow())


def steps(publishing: Publisher, times: int = 3) -> int:
    """So many steps, further apart than two sightings have to be; files added again."""
    again = 0
    for _ in range(times):
        again += publishing.step().readded
        publishing._clock.sleep(1.1)
    return again


def left(ledger: Ledger) -> list[str]:
    return [file.uri for entry in ledger.shards() for file in entry.pending]


@pytest.mark.parametrize("named", [True, False])
def test_a_rewrite_between_commit_and_second_sighting_doubles_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Every row once, also for a publisher that begins after it, and where no summary names the files."""
    if not named:
        monkeypatch.setattr("headwater.sinks.lake.catalog.named_files", lambda _: {})
    ensured(settings, partitioning=WHOLE)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0), upload(settings, "b", 3)])
    first = publisher(settings, ledger, lease_seconds=0)
    first.step()
    rewrite(settings)
    assert steps(first, 1) == 0
    commit(ledger, "s", 2, [upload(settings, "c", 6)])
    assert steps(publisher(settings, ledger, "another", lease_seconds=0)) == 0
    assert seqs(settings) == Counter(range(9))
    assert left(ledger) == []


def test_a_deletion_while_a_file_is_pending_is_not_undone(settings: Settings) -> None:
    """Copy on write: the file that had the rows is gone, and another has the rest."""
    ensured(settings, partitioning=WHOLE)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0, 6)])
    publishing = publisher(settings, ledger, lease_seconds=0)
    publishing.step()
    opened(settings).delete(EqualTo("device", "d1"))
    assert seqs(settings) == Counter([0, 2, 4])
    assert steps(publishing) == 0
    assert seqs(settings) == Counter([0, 2, 4])
    assert left(ledger) == []


def test_a_rewrite_whose_snapshots_have_expired_is_named(settings: Settings) -> None:
    """Nothing says any more what became of the file: it is kept, named, and neither doubled nor dropped."""
    ensured(settings, partitioning=WHOLE)
    ledger = new_ledger()
    first = [upload(settings, "a", 0)]
    commit(ledger, "s", 1, first)
    publisher(settings, ledger, lease_seconds=0).step()
    rewrite(settings)
    table = opened(settings)
    current = table.metadata.current_snapshot_id
    table.maintenance.expire_snapshots().by_ids(
        [one.snapshot_id for one in table.snapshots() if one.snapshot_id != current]
    ).commit()
    commit(ledger, "s", 2, [upload(settings, "b", 3)])
    steps(publisher(settings, ledger, "another", lease_seconds=0))
    assert seqs(settings) == Counter(range(6))
    assert left(ledger) == [first[0].uri]
    (named,) = quarantined_files(ledger)
    assert (named.uri, "expired" in named.reason) == (first[0].uri, True)


def test_a_rollback_brings_back_what_is_pending(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """What was confirmed before it stays, what it took away is added again while it is pending; and the log says so."""
    ensured(settings, partitioning=WHOLE)
    ledger = new_ledger()
    publishing = publisher(settings, ledger, lease_seconds=0)
    commit(ledger, "s", 1, [upload(settings, "a", 0)])
    steps(publishing)
    before = opened(settings).metadata.current_snapshot_id
    assert before is not None
    commit(ledger, "s", 2, [upload(settings, "b", 3)])
    publishing.step()
    opened(settings).manage_snapshots().rollback_to_snapshot(before).commit()
    assert seqs(settings) == Counter(range(3))
    with caplog.at_level("WARNING", "headwater.lake"):
        assert steps(publishing) == 1
    assert [record.message for record in caplog.records].count(ROLLED_BACK) == 1
    assert seqs(settings) == Counter(range(6))
    assert left(ledger) == []


def test_no_file_stops_the_table(settings: Settings) -> None:
    """One that is gone, one that is none, and one of other columns: all named, and the rest is published."""
    ensured(settings, partitioning=WHOLE)
    ledger, objects = new_ledger(), Objects(client("s3", settings), settings.bucket)
    other = io.BytesIO()
    pq.write_table(pa.table({"other": [1]}), other)
    bad = {
        f"s3://{settings.bucket}/lake/metric/data/gone.parquet": "no such object",
        objects.put("lake/metric/data/text.parquet", b"no Parquet at all"): "",
        objects.put("lake/metric/data/other.parquet", other.getvalue()): "does not know",
    }
    files = [PendingFile("metric", uri, 1, 1) for uri in bad]
    commit(ledger, "s", 1, [*files, upload(settings, "a", 0)])
    commit(ledger, "r", 1, [upload(settings, "b", 3)])
    publishing = publisher(settings, ledger, lease_seconds=0)
    steps(publishing)
    assert seqs(settings) == Counter(range(6))
    assert left(ledger) == [*bad]
    named = {one.uri: one.reason for one in quarantined_files(ledger)}
    assert named.keys() == bad.keys()
    assert all(part in named[uri] for uri, part in bad.items())
    with pytest.raises(HeadwaterError, match="3 files are quarantined"):
        publishing.drain()


def test_a_publisher_that_begins_reads_no_old_snapshot_of_ours(settings: Settings) -> None:
    """Their summaries name the files: neither manifest list nor manifest of one that is not current is needed."""
    ensured(settings, partitioning=WHOLE)
    ledger = new_ledger()
    first = upload(settings, "a", 0)
    commit(ledger, "s", 1, [first])
    publisher(settings, ledger, lease_seconds=0).step()
    table = opened(settings)
    added = [one.manifest_list for one in table.snapshots()]
    rewrite(settings)
    s3 = client("s3", settings)
    for uri in added:
        s3.delete_object(Bucket=settings.bucket, Key=uri.removeprefix(f"s3://{settings.bucket}/"))
    state = IcebergTable(open_catalog(settings), settings.database, "metric").read()
    found, visible_from = state.history(0)
    assert first.uri in found
    assert visible_from <= 1
    assert first.uri not in state.files
