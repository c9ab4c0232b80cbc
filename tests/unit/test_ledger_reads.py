"""Every read of the ledger sees the last write: DynamoDB answers one that does not ask for that with an older item."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from headwater.ledger import Commit, Ledger, PendingFile
from headwater.stream import sequence
from headwater.testing import MemoryDynamoDB, Staleness

KEYS = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]


@pytest.fixture
def ledger() -> Ledger:
    """Over a table where each read that may be stale is."""
    dynamodb = MemoryDynamoDB(Staleness(stale=1.0))
    dynamodb.create_table(TableName="ledger", KeySchema=KEYS)
    return Ledger(dynamodb, "ledger", "p")


def moved(ledger: Ledger, number: int) -> Any:
    """The shard, claimed and committed up to this number."""
    entry = ledger.claim("s1", "me", None, 1)
    files = [PendingFile("t", f"f{number}", 3, 100)]
    return ledger.commit(entry, Commit(sequence.pad(str(number)), b"x", None, files, {}, None, False, number))


def test_a_shard_is_as_it_was_committed_last(ledger: Ledger) -> None:
    """By itself, among the pipeline's, and among everyone's."""
    for number in (1, 2, 3):
        entry = moved(ledger, number)
        assert ledger.shard("s1") == entry
        assert ledger.shards() == [entry]
        assert [one.pending for one in ledger.everyone()] == [entry.pending]
        assert len(entry.pending) == number


def test_a_claim_fences_at_once(ledger: Ledger) -> None:
    """The claimer works with the epoch that its own write has made."""
    assert [ledger.claim("s1", owner, None, 1).epoch for owner in ("a", "b", "a")] == [1, 2, 3]


def test_taken_files_are_gone(ledger: Ledger) -> None:
    entry = moved(ledger, 1)
    ledger.take(entry, [0])
    assert ledger.shards()[0].pending == ()
    assert ledger.shards()[0].taken == 1


def test_a_document_is_as_it_was_put_last(ledger: Ledger) -> None:
    revision = 0
    for number in (1, 2, 3):
        revision = ledger.put_document("d", {"n": number}, revision)
        assert ledger.document("d") == ({"n": number}, revision)
        assert ledger.documents() == {"d": ({"n": number}, revision)}


class Overtaken:
    """A client before whose first write of a kind somebody else claims the shard."""

    def __init__(self, dynamodb: MemoryDynamoDB, kind: str) -> None:
        self._dynamodb, self._kind = dynamodb, kind

    def __getattr__(self, name: str) -> Any:
        if name == self._kind:
            self._kind = ""
            Ledger(self._dynamodb, "ledger", "p").claim("s1", "other", None, 1)
        return getattr(self._dynamodb, name)


@pytest.mark.parametrize(("kind", "epoch"), [("put_item", 2), ("update_item", 3)])
def test_a_claim_that_was_overtaken_is_made_again(kind: str, epoch: int) -> None:
    """On top of the epoch that the other has raised, of a new shard as of a known one."""
    dynamodb = MemoryDynamoDB(Staleness(stale=1.0))
    dynamodb.create_table(TableName="ledger", KeySchema=KEYS)
    if kind == "update_item":
        Ledger(dynamodb, "ledger", "p").claim("s1", "before", None, 1)
    claimed = Ledger(Overtaken(dynamodb, kind), "ledger", "p").claim("s1", "me", None, 1)
    assert (claimed.owner, claimed.epoch) == ("me", epoch)


def test_a_shard_met_for_the_first_time_is_open_and_unread(ledger: Ledger) -> None:
    """With its first state, and no files."""
    entry = ledger.claim("s1", "me", b"first", 7)
    assert (entry.closed, entry.position, entry.state, entry.state_key) == (False, sequence.NONE, b"first", None)
    assert (entry.pending, entry.taken, entry.counts, entry.watermark_ms, entry.updated_ms) == ((), 0, {}, None, 7)


def test_a_throttled_write_is_no_refusal() -> None:
    """Claim, commit and take leave it to the caller, who waits: nobody else has the shard."""
    dynamodb = MemoryDynamoDB(Staleness(stale=1.0))
    dynamodb.create_table(TableName="ledger", KeySchema=KEYS)
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = moved(ledger, 1)
    change = Commit(sequence.pad("2"), b"x", None, [], {}, None, False, 2)
    for call in (
        lambda: ledger.commit(entry, change),
        lambda: ledger.claim("s1", "other", None, 1),
        lambda: ledger.take(entry, [0]),
        lambda: ledger.put_document("d", {}, 0),
    ):
        dynamodb.faults.fail_next("update_item", "ThrottlingException")
        with pytest.raises(ClientError, match="ThrottlingException"):
            call()
    assert ledger.shard("s1") == entry
