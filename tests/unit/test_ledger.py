"""The ledger: one conditional write moves a shard, and whoever loses the race is fenced. On memory and on moto."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws

from headwater.errors import Fenced, Retryable
from headwater.ledger import Commit, Ledger, PendingFile, ShardEntry
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB

TABLE: dict[str, Any] = {
    "TableName": "ledger",
    "KeySchema": [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pipeline", "item")],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture(params=["memory", "moto"])
def dynamodb(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "memory":
        memory = MemoryDynamoDB()
        memory.create_table(**TABLE)
        yield memory
        return
    with mock_aws():
        client = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_table(**TABLE)
        yield client


class Twice:
    """A client that sends each update a second time, as botocore does when the answer was lost."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_item(self, **request: Any) -> Any:
        self._client.update_item(**request)
        return self._client.update_item(**request)


class Lost:
    """A client that carries out the next update and loses its answer."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.armed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_item(self, **request: Any) -> Any:
        answer = self._client.update_item(**request)
        if self.armed:
            self.armed = False
            raise ReadTimeoutError(endpoint_url="test")
        return answer


def change(position: str, *files: str, closed: bool = False) -> Commit:
    return Commit(
        position=sequence.pad(position),
        state=b"state " + position.encode(),
        state_key=None,
        files=[PendingFile("t", name, 3, 100) for name in files],
        counts={"events": 3},
        watermark_ms=None,
        closed=closed,
        now_ms=5,
    )


def test_commit_moves_the_shard_and_adds_files(dynamodb: Any) -> None:
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = ledger.claim("s1", "me", b"start", 1)
    assert (entry.epoch, entry.position, entry.state) == (1, sequence.NONE, b"start")
    big = "4" * 56
    entry = ledger.commit(entry, change("7", "a", "b"))
    entry = ledger.commit(entry, change(big, "c"))
    assert [file.uri for file in entry.pending] == ["a", "b", "c"]
    assert entry.position == big
    assert ledger.shards() == [entry]


def test_a_later_claim_fences_the_earlier(dynamodb: Any) -> None:
    ledger = Ledger(dynamodb, "ledger", "p")
    old = ledger.claim("s1", "old", None, 1)
    new = ledger.claim("s1", "new", None, 1)
    with pytest.raises(Fenced, match="owner 'new'"):
        ledger.commit(old, change("7", "x"))
    assert ledger.commit(new, change("8")).pending == ()


def test_the_same_position_is_not_committed_twice(dynamodb: Any) -> None:
    """Two threads of one owner, or a commit sent twice: the files are pending once."""
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = ledger.claim("s1", "me", None, 1)
    ledger.commit(entry, change("7", "a"))
    assert [file.uri for file in ledger.commit(entry, change("7", "a")).pending] == ["a"]


def test_a_lost_answer_is_settled_by_reading_back(dynamodb: Any) -> None:
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = ledger.claim("s1", "me", None, 1)
    lossy = Ledger(Lost(dynamodb), "ledger", "p")
    after = lossy.commit(entry, change("7", "a"))
    assert (after.position, len(after.pending)) == (sequence.pad("7"), 1)
    second = Ledger(Lost(dynamodb), "ledger", "p").claim("s1", "other", None, 1)
    assert (second.epoch, second.owner) == (2, "other")


def test_a_twin_of_the_same_name_is_another_owner(dynamodb: Any) -> None:
    """A process that goes on twice from one snapshot has one name: each claim fences the one before all the same."""

    class Between:
        """A client whose first claim is overtaken by the twin's, before its answer or its refusal is there."""

        def __init__(self, *, before: bool, lost: bool) -> None:
            self.turns, self.before, self.lost = 1, before, lost

        def __getattr__(self, name: str) -> Any:
            return getattr(dynamodb, name)

        def _write(self, write: Any, request: dict[str, Any]) -> Any:
            first, self.turns = self.turns, 0
            if first and self.before:
                twins.append(Ledger(dynamodb, "ledger", "p").claim("s1", "me", None, 1))
            answer = write(**request)
            if first and not self.before:
                twins.append(Ledger(dynamodb, "ledger", "p").claim("s1", "me", None, 1))
            if first and self.lost:
                raise ReadTimeoutError(endpoint_url="test")
            return answer

        def update_item(self, **request: Any) -> Any:
            return self._write(dynamodb.update_item, request)

        def put_item(self, **request: Any) -> Any:
            return self._write(dynamodb.put_item, request)

    twins: list[ShardEntry] = []
    for before, lost in [(False, False), (True, False), (False, True)] * 2:
        ours = Ledger(Between(before=before, lost=lost), "ledger", "p").claim("s1", "me", None, 1)
        assert ours.epoch == twins[-1].epoch + 1
        with pytest.raises(Fenced):
            Ledger(dynamodb, "ledger", "p").commit(twins[-1], change("7"))


def test_a_claim_that_was_sent_twice_is_one(dynamodb: Any) -> None:
    ledger = Ledger(Twice(dynamodb), "ledger", "p")
    assert [ledger.claim("s1", "me", None, 1).epoch for _ in range(2)] == [1, 2]


def test_files_are_taken_once(dynamodb: Any) -> None:
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = ledger.commit(ledger.claim("s1", "me", None, 1), change("7", "a", "b", "c"))
    ledger.take(entry, [0, 1])
    ledger.commit(entry, change("9", "d"))
    current = ledger.shard("s1")
    assert current is not None
    assert [file.uri for file in current.pending] == ["c", "d"]
    assert current.taken == 2
    with pytest.raises(Fenced, match="another publisher"):
        ledger.take(entry, [0])


def test_a_take_that_was_sent_twice_is_one(dynamodb: Any) -> None:
    """Refused the second time, it was ours when just these files are gone, whatever was committed meanwhile."""
    ledger = Ledger(dynamodb, "ledger", "p")
    entry = ledger.commit(ledger.claim("s1", "me", None, 1), change("7", "a", "b", "c"))
    moved = ledger.commit(entry, change("9", "d"))
    Ledger(Twice(dynamodb), "ledger", "p").take(entry, [0, 2])
    current = ledger.shard("s1")
    assert current is not None
    assert ([file.uri for file in current.pending], current.taken) == (["b", "d"], 2)
    for read, places in ((entry, [1]), (moved, [3]), (entry, [0, 1])):
        with pytest.raises(Fenced, match="another publisher"):
            ledger.take(read, places)
    dynamodb.delete_item(TableName="ledger", Key={"pipeline": {"S": "p"}, "item": {"S": "shard#s1"}})
    with pytest.raises(Fenced, match="another publisher"):
        ledger.take(entry, [0])


def test_documents_change_only_from_the_revision_read(dynamodb: Any) -> None:
    ledger = Ledger(dynamodb, "ledger", "p")
    assert ledger.document("d") == ({}, 0)
    assert ledger.put_document("d", {"a": 1}, 0) == 1
    with pytest.raises(Fenced):
        ledger.put_document("d", {"a": 2}, 0)
    assert ledger.put_document("d", {"a": 3}, 1) == 2
    assert ledger.document("d") == ({"a": 3}, 2)


def test_the_same_document_of_another_writer_is_not_taken_for_our_own(dynamodb: Any) -> None:
    """Two that count on from one number write the same, and one has to count again. A write sent twice is one."""
    one, other = Ledger(dynamodb, "ledger", "p"), Ledger(Twice(dynamodb), "ledger", "p")
    assert one.put_document("count", {"n": 1}, 0) == 1
    with pytest.raises(Fenced):
        other.put_document("count", {"n": 1}, 0)
    assert other.put_document("count", {"n": 2}, 1) == 2


def test_a_change_is_made_on_what_others_wrote(dynamodb: Any) -> None:
    """The function is called again with the newer document, and no writer's change is lost."""
    one, other = Ledger(dynamodb, "ledger", "p"), Ledger(dynamodb, "ledger", "p")
    seen: list[dict[str, Any]] = []

    def add(document: dict[str, Any]) -> dict[str, Any]:
        seen.append(document)
        if len(seen) == 1:
            other.change("notes", lambda theirs: {**theirs, "b": 2})
        return {**document, "a": 1}

    assert one.change("notes", add) == {"a": 1, "b": 2}
    assert seen == [{}, {"b": 2}]
    assert one.document("notes") == ({"a": 1, "b": 2}, 2)


def test_a_change_may_leave_the_document_alone(dynamodb: Any) -> None:
    """None writes nothing, and what the function raises reaches the caller."""
    ledger = Ledger(dynamodb, "ledger", "p")
    assert ledger.change("notes", lambda _: None) == {}
    assert ledger.document("notes") == ({}, 0)
    with pytest.raises(ZeroDivisionError):
        ledger.change("notes", lambda _: {"a": 1 // 0})
    assert ledger.document("notes") == ({}, 0)


def test_a_document_that_never_stands_still_is_retryable(dynamodb: Any) -> None:
    """The loop is bounded, and says which document it was."""
    ledger = Ledger(dynamodb, "ledger", "p")

    def race(document: dict[str, Any]) -> dict[str, Any]:
        _, rev = ledger.document("notes")
        ledger.put_document("notes", {"rev": rev}, rev)
        return {**document, "mine": True}

    with pytest.raises(Retryable, match="document notes of pipeline p keeps changing"):
        ledger.change("notes", race)
