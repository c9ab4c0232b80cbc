"""Hands of others on the table's columns, partitions, properties, name and objects: exact, or a line says why."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.update.spec import UpdateSpec
from pyiceberg.transforms import IdentityTransform, TruncateTransform, YearTransform
from pyiceberg.types import LongType

from headwater.aws import client
from headwater.config import Settings
from headwater.errors import Retryable, UsageError
from headwater.ledger import Ledger
from headwater.sinks.lake.catalog import IcebergTable
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.quarantine import quarantined_files
from headwater.sinks.lake.rewrite import Rewriter, RewriteResult, data_files, replace_files
from tests.integration.test_lake_strangers import left, opened, steps
from tests.integration.test_maintenance import care, filled
from tests.lake import aws, commit, delete_rows, ensured, new_ledger, publisher, seqs, settings, upload

__all__ = ["aws", "settings"]

MADE_AGAIN = "a table was dropped and made again: what was published before is not in it, and the audit names it"


def begun(settings: Settings) -> tuple[Ledger, Publisher]:
    """A table with a file that is confirmed, and one that has been seen once."""
    ensured(settings)
    ledger = new_ledger()
    publishing = publisher(settings, ledger, lease_seconds=0)
    commit(ledger, "s", 1, [upload(settings, "a", 0)])
    steps(publishing)
    commit(ledger, "s", 2, [upload(settings, "b", 3)])
    publishing.step()
    return ledger, publishing


def more(settings: Settings, ledger: Ledger, publishing: Publisher, position: int) -> None:
    commit(ledger, "s", position, [upload(settings, str(position), 3 * position - 3)])
    assert steps(publishing) == 0


@pytest.mark.parametrize("retries", ["10", None])
def test_an_overtaken_commit_is_not_sent_again_whatever_others_set(settings: Settings, retries: str | None) -> None:
    """Two publishers that both think they lead; and a deletion while its file was rewritten. None is the default."""
    table = ensured(settings)
    if retries is not None:
        with table.transaction() as change:
            change.set_properties({"commit.retry.num-retries": retries})
    assert table.properties.get("commit.retry.num-retries") == retries
    file = upload(settings, "a", 0).uri
    first, second = (IcebergTable(open_catalog(settings), settings.database, "metric") for _ in range(2))
    first.read()
    second.read()
    assert first.add([file]) == {}
    with pytest.raises(Retryable, match="faster"):
        second.add([file])
    assert seqs(settings) == Counter(range(3))
    stale = opened(settings)
    delete_rows(opened(settings), file, [0])
    with pytest.raises(Retryable, match="faster"):
        replace_files(stale, data_files(stale), [], {})
    assert seqs(settings) == Counter([1, 2])


def dropped(table: Table) -> None:
    with table.update_schema(allow_incompatible_changes=True) as change:
        change.delete_column("status")


def test_a_column_that_was_dropped_is_put_back_under_its_number(settings: Settings) -> None:
    """Files that have it wait, named with the reason, and are added when a publisher starts anew."""
    ledger, publishing = begun(settings)
    dropped(opened(settings))
    more(settings, ledger, publishing, 3)
    assert seqs(settings) == Counter(range(6))
    (waiting,) = quarantined_files(ledger)
    assert "column status (number 3) is not in the table" in waiting.reason
    ensured(settings)
    more(settings, ledger, publisher(settings, ledger, "anew", lease_seconds=0), 4)
    assert left(ledger) == []
    assert seqs(settings) == Counter(range(12))
    found = opened(settings).scan().to_arrow()
    assert sorted(found["status"].to_pylist()) == [*range(12)]


def test_a_column_that_was_renamed_is_read_on_and_a_publisher_that_starts_names_it(settings: Settings) -> None:
    ledger, publishing = begun(settings)
    with opened(settings).update_schema() as change:
        change.rename_column("status", "state")
    more(settings, ledger, publishing, 3)
    assert left(ledger) == []
    assert sorted(opened(settings).scan().to_arrow()["state"].to_pylist()) == [*range(9)]
    with pytest.raises(UsageError, match="renamed the contract's column status to state: rename it back"):
        ensured(settings)
    with opened(settings).update_schema() as change:
        change.rename_column("state", "status")
    ensured(settings)
    assert sorted(opened(settings).scan().to_arrow()["status"].to_pylist()) == [*range(9)]


def test_a_column_that_was_widened_stays_so(settings: Settings) -> None:
    ledger, publishing = begun(settings)
    with opened(settings).update_schema() as change:
        change.update_column("status", LongType())
    more(settings, ledger, publishing, 3)
    ensured(settings)
    more(settings, ledger, publishing, 4)
    assert (left(ledger), seqs(settings)) == ([], Counter(range(12)))
    assert opened(settings).schema().find_type("status") == LongType()


def by_device(change: UpdateSpec) -> object:
    return change.add_field("device", IdentityTransform(), "by_device")


def by_letter(change: UpdateSpec) -> object:
    return change.add_field("device", TruncateTransform(1), "by_letter")


def by_year(change: UpdateSpec) -> object:
    return change.remove_field("ts_day").add_field("ts", YearTransform(), "by_year")


@pytest.mark.parametrize("other", [by_device, by_letter, by_year])
def test_a_partitioning_of_others_is_compacted_too(settings: Settings, other: Callable[[UpdateSpec], object]) -> None:
    """Our files lie under the earlier one until they are compacted, and all of them again once a publisher starts."""
    ledger, publishing = begun(settings)
    with opened(settings).update_spec() as change:
        other(change)
    more(settings, ledger, publishing, 3)
    assert care(settings, ledger).compact().rows >= 6
    table = opened(settings)
    assert {file.spec_id for file in data_files(table)} == {table.metadata.default_spec_id}
    assert seqs(settings) == Counter(range(9))
    ensured(settings)
    more(settings, ledger, publishing, 4)
    assert care(settings, ledger).compact().rows > 0
    assert (left(ledger), seqs(settings)) == ([], Counter(range(12)))


@pytest.mark.parametrize(
    "properties",
    [
        {"write.metadata.metrics.default": "none"},
        {"write.metadata.metrics.column.ts": "counts"},
        {"write.metadata.metrics.default": "junk"},
        {},
    ],
    ids=str,
)
def test_properties_of_others_keep_no_file_out(settings: Settings, properties: dict[str, str]) -> None:
    """Nor do properties that they remove; and bounds are there as before."""
    ledger, publishing = begun(settings)
    table = opened(settings)
    with table.transaction() as change:
        if properties:
            change.set_properties(properties)
        else:
            change.remove_properties(*table.properties)
    more(settings, ledger, publishing, 3)
    assert care(settings, ledger).compact().rows == 9
    ensured(settings)
    more(settings, ledger, publishing, 4)
    assert (left(ledger), seqs(settings)) == ([], Counter(range(12)))
    assert all(file.lower_bounds.keys() >= {1, 2, 3} for file in data_files(opened(settings)))


def test_a_table_that_is_dropped_and_registered_again_goes_on(settings: Settings) -> None:
    ledger, publishing = begun(settings)
    at, catalog = opened(settings).metadata_location, open_catalog(settings)
    catalog.drop_table((settings.database, "metric"))
    with pytest.raises(Retryable, match=r"is not in the catalog\. Register its newest metadata"):
        publishing.step()
    catalog.register_table((settings.database, "metric"), at)
    more(settings, ledger, publishing, 3)
    assert (left(ledger), seqs(settings)) == ([], Counter(range(9)))


def test_a_table_that_is_dropped_and_made_again_gets_what_is_pending(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """What was confirmed in the one before is not in it, and the log says so, once."""
    ledger, publishing = begun(settings)
    open_catalog(settings).drop_table((settings.database, "metric"))
    ensured(settings)
    commit(ledger, "s", 3, [upload(settings, "c", 6)])
    with caplog.at_level("WARNING", "headwater.lake"):
        assert steps(publishing) == 1
    assert [record.message for record in caplog.records].count(MADE_AGAIN) == 1
    assert (left(ledger), seqs(settings)) == ([], Counter(range(3, 9)))


def removed(settings: Settings, *uris: str) -> None:
    for uri in uris:
        client("s3", settings).delete_object(Bucket=settings.bucket, Key=uri.removeprefix(f"s3://{settings.bucket}/"))


def test_files_that_others_rewrite_and_delete_while_they_are_compacted_are_left_to_them(settings: Settings) -> None:
    """Rewritten, every snapshot before expired, the files gone: all before the reading of a group begins."""
    ledger, real = filled(settings), Rewriter.rewrite

    def beside(one: Rewriter, tasks: Sequence[FileScanTask], key: str, **named: Any) -> RewriteResult:
        patch.undo()
        others = care(settings, new_ledger())
        others.compact()
        others.expire(1, 1 << 62)
        removed(settings, *(task.file.file_path for task in tasks))
        return real(one, tasks, key, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rewriter, "rewrite", beside)
        report = care(settings, ledger).compact()
    assert (report.groups, report.overtaken) == (0, 1)
    assert seqs(settings) == Counter(range(18))


def test_a_file_that_is_gone_ends_a_compaction_in_words(settings: Settings) -> None:
    """The table needs it still: that is no race, and is told."""
    ledger = filled(settings)
    removed(settings, data_files(opened(settings))[0].file_path)
    with pytest.raises(FileNotFoundError):
        care(settings, ledger).compact()
