"""What waits for the table's files ends: when they are there, or in a line that says which one is not, and why."""

from collections.abc import Callable

import pytest

from headwater.errors import Retryable
from headwater.ledger import Commit, Ledger, PendingFile
from headwater.processors.published import pending_files, wait_until_published
from headwater.sinks.lake.quarantine import Quarantine
from headwater.testing.dynamodb import MemoryDynamoDB

SHARD = "shardId-000000000000"
FILE, OTHER = (PendingFile("t", f"s3://lake/{name}.parquet", 5, 100) for name in "ab")


@pytest.fixture
def ledger() -> Ledger:
    """One shard with two files that are committed."""
    dynamodb = MemoryDynamoDB()
    dynamodb.create_table(TableName="l", KeySchema=[{"AttributeName": "pipeline"}, {"AttributeName": "item"}])
    made = Ledger(dynamodb, "l", "p")
    entry = made.claim(SHARD, "owner", b"", 0)
    made.commit(entry, Commit("1".zfill(56), b"", None, (FILE, OTHER), {}, None, False, 1))
    return made


def adding(ledger: Ledger, file: PendingFile) -> Callable[[], None]:
    """A publisher that adds this file and no other."""

    def publish() -> None:
        (entry,) = ledger.shards()
        ledger.take(entry, [at for at, one in enumerate(entry.pending) if one == file])

    return publish


def test_only_what_was_asked_for_is_waited_for(ledger: Ledger) -> None:
    wait_until_published(ledger, {FILE.uri}, adding(ledger, FILE))
    assert pending_files(ledger) == {OTHER.uri}


def test_a_quarantined_file_is_named_with_its_reason(ledger: Ledger) -> None:
    """Nobody is told that no publisher runs: one does, and cannot add it."""
    Quarantine(ledger).update({OTHER.uri: "there is no such object"}, [FILE, OTHER], set(), 1)
    with pytest.raises(Retryable, match=r"b\.parquet is quarantined, so its 5 rows .* there is no such object"):
        wait_until_published(ledger, pending_files(ledger), adding(ledger, FILE))


def test_a_quarantined_file_that_nobody_waits_for_explains_nothing(ledger: Ledger) -> None:
    Quarantine(ledger).update({OTHER.uri: "there is no such object"}, [FILE, OTHER], set(), 1)
    with pytest.raises(Retryable, match="is one running"):
        wait_until_published(ledger, {FILE.uri}, lambda: None)
