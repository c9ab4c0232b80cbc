"""The ledger: one DynamoDB item a shard, and the only commit point of a pipeline.

A commit is one conditional UpdateItem: *if epoch and position are what I think, then position := new, state := new,
and these files are pending*. Who loses the race is fenced and stops. Whatever was written before it (files, views,
snapshots) either is named by a commit or does no harm.

Table: hash key `pipeline`, range key `item` (`shard#<id>` or `doc#<name>`), both strings.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.errors import CommitUnknown, Fenced, Retryable
from headwater.stream import sequence

__all__ = ["Commit", "Ledger", "PendingFile", "ShardEntry"]

_RACES = 20
"""Conflicts that a change of a document bears: far more than there are processes that write one at a time."""
_COMMIT = (
    "SET #p = :np, pending = list_append(if_not_exists(pending, :none), :files), counts = :c, "
    "watermark_ms = :w, closed = :cl, #s = :s, state_key = :k, updated_ms = :u"
)


@dataclass(frozen=True)
class PendingFile:
    """Hold a data file that a commit names and the publisher has not yet confirmed in the table."""

    table: str
    uri: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class ShardEntry:
    """Hold a shard's item. `position` is the padded sequence number of the last record that is committed."""

    pipeline: str
    shard_id: str
    epoch: int
    owner: str
    position: str = sequence.NONE
    closed: bool = False
    state: bytes | None = None
    """The snapshot itself, where it is small."""
    state_key: str | None = None
    """Its S3 key, where it is not."""
    pending: tuple[PendingFile, ...] = ()
    taken: int = 0
    """Number of files that the publisher has taken out so far."""
    counts: Mapping[str, int] = field(default_factory=dict)
    watermark_ms: int | None = None
    updated_ms: int = 0


@dataclass(frozen=True)
class Commit:
    """Hold what one commit changes."""

    position: str
    state: bytes | None
    state_key: str | None
    files: Sequence[PendingFile]
    counts: Mapping[str, int]
    watermark_ms: int | None
    closed: bool
    now_ms: int


class Ledger:
    """Read and write the items of one pipeline. Every write is conditional; a lost answer is settled by reading back.

    `client` is a DynamoDB client of boto3. What it raises is raised here too, but for what a condition refused.
    """

    def __init__(self, client: Any, table: str, pipeline: str) -> None:
        self._client = client
        self._table = table
        self.pipeline = pipeline

    def shard(self, shard_id: str) -> ShardEntry | None:
        """Return the shard's item; None when nobody has claimed it."""
        item = self._get(f"shard#{shard_id}")
        return _entry(item) if item else None

    def shards(self) -> list[ShardEntry]:
        """Return every shard ever owned, by id."""
        return [_entry(item) for item in self._items("shard#")]

    def everyone(self) -> list[ShardEntry]:
        """Return the shards of every pipeline in the ledger's table, without their states: reads the whole table."""
        attributes = [
            "pipeline",
            "shard_id",
            "epoch",
            "closed",
            "pending",
            "taken",
            "counts",
            "watermark_ms",
            "updated_ms",
        ]
        named = {"#i": "item", "#o": "owner", "#p": "position"}
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="begins_with(#i, :s)",
            ProjectionExpression=", ".join([*attributes, *named]),
            ExpressionAttributeNames=named,
            ExpressionAttributeValues=_values({":s": "shard#"}),
        )
        return [_entry(_plain(item)) for page in pages for item in page["Items"]]

    def claim(self, shard_id: str, owner: str, initial: bytes | None, now_ms: int) -> ShardEntry:
        """Become the owner: the epoch rises by one and fences whoever was. `initial` is a new shard's first state.

        The name tells people who it is, and no more: two processes that go on from one memory snapshot have the same.
        Each claim therefore has a token, by which a lost answer is told from another's claim.
        """
        for _ in range(8):
            entry, token = self.shard(shard_id), secrets.token_hex(8)
            try:
                if entry is None:
                    new = ShardEntry(self.pipeline, shard_id, 1, owner, state=initial, updated_ms=now_ms)
                    self._client.put_item(
                        TableName=self._table,
                        Item=_item(new) | _values({"claim": token}),
                        ConditionExpression="attribute_not_exists(pipeline)",
                    )
                else:
                    self._update(
                        f"shard#{shard_id}",
                        "SET epoch = :n, #o = :o, claim = :t",
                        "epoch = :e",
                        {":n": entry.epoch + 1, ":o": owner, ":e": entry.epoch, ":t": token},
                        {"#o": "owner"},
                    )
            except (ClientError, ConnectionError, HTTPClientError) as error:
                if not (_lost(error) or _refused(error)):
                    raise
            item = self._get(f"shard#{shard_id}")
            if item is not None and item.get("claim") == token:
                return _entry(item)
        raise Fenced(
            f"shard {shard_id} of pipeline {self.pipeline}: others keep taking it; let one owner run at a time"
        )

    def commit(self, entry: ShardEntry, change: Commit) -> ShardEntry:
        """Move the shard forward, or raise Fenced; CommitUnknown when even the reading back failed.

        An answer may be lost and botocore may have sent the write twice, so a refusal is settled by reading back:
        the new position and state under our own epoch mean that it was we.
        """
        new = _commit_values(change)
        fence = {":e": entry.epoch, ":op": entry.position}
        for _ in range(3):
            try:
                self._update(
                    f"shard#{entry.shard_id}",
                    _COMMIT,
                    "epoch = :e AND #p = :op",
                    new | fence,
                    {"#p": "position", "#s": "state"},
                )
            except (ClientError, ConnectionError, HTTPClientError) as error:
                if not (_lost(error) or _refused(error)):
                    raise
            current = self._read_back(entry)
            if current.epoch != entry.epoch:
                break
            reached = (current.position, current.closed, current.state, current.state_key)
            if reached == (change.position, change.closed, change.state, change.state_key):
                return current
        else:
            raise CommitUnknown(f"shard {entry.shard_id}: the ledger took no commit at {change.position}; try again")
        raise Fenced(
            f"shard {entry.shard_id} of pipeline {self.pipeline}: owner {current.owner!r} (epoch {current.epoch}) "
            f"has taken it from epoch {entry.epoch}"
        )

    def take(self, entry: ShardEntry, places: Sequence[int]) -> None:
        """Remove the pending files at these places, on condition that nobody has taken any since `entry` was read.

        Commits only append to the list, so until another take each file stays at its place. Raise Fenced after one.
        """
        if not places:
            return
        gone = ", ".join(f"pending[{at}]" for at in places)
        try:
            self._update(
                f"shard#{entry.shard_id}",
                f"SET taken = :n REMOVE {gone}",
                "taken = :t",
                {":n": entry.taken + len(places), ":t": entry.taken},
                {},
            )
        except ClientError as error:
            if not _refused(error):
                raise
            # a write whose answer was lost is sent twice, and then refused: it was ours when just these are gone
            left = tuple(file for at, file in enumerate(entry.pending) if at not in set(places))
            current = self.shard(entry.shard_id)
            if current is None or (current.taken, current.pending[: len(left)]) != (entry.taken + len(places), left):
                raise Fenced(f"shard {entry.shard_id}: another publisher has taken its pending files") from None

    def document(self, name: str) -> tuple[dict[str, Any], int]:
        """Return a named JSON document and its revision; `({}, 0)` when there is none."""
        item = self._get(f"doc#{name}")
        return (json.loads(item["body"]), int(item["rev"])) if item else ({}, 0)

    def documents(self) -> dict[str, tuple[dict[str, Any], int]]:
        """Return all of the pipeline's documents and their revisions, by name."""
        pages = self._items("doc#")
        return {item["item"].removeprefix("doc#"): (json.loads(item["body"]), int(item["rev"])) for item in pages}

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int:
        """Replace the document if it still has this revision, else Fenced; returns the new revision.

        A write whose answer was lost is sent again and refused. A token tells it from another's of the same content.
        """
        condition = "rev = :r" if expected_rev else "attribute_not_exists(rev)"
        token = secrets.token_hex(8)
        values = {":b": json.dumps(doc), ":n": expected_rev + 1, ":w": token}
        values |= {":r": expected_rev} if expected_rev else {}
        try:
            self._update(f"doc#{name}", "SET body = :b, rev = :n, written = :w", condition, values, {})
        except ClientError as error:
            if not _refused(error):
                raise
            if (self._get(f"doc#{name}") or {}).get("written") != token:
                raise Fenced(f"document {name} of pipeline {self.pipeline} was changed by somebody else") from None
        return expected_rev + 1

    def change(self, name: str, make: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> dict[str, Any]:
        """Replace a document by what `make` makes of it, and return the new one.

        `make` gets the document, `{}` when there is none, and returns the new one, or None to leave it as it is. When
        somebody else changed the document in between it is called again with theirs, so it must bear that. What it
        raises ends the change. Raise Retryable when the document keeps changing.
        """
        for _ in range(_RACES):
            old, rev = self.document(name)
            new = make(old)
            if new is None:
                return old
            try:
                self.put_document(name, new, rev)
            except Fenced:
                # another writer was faster: its document is what the change is made on now
                continue
            return dict(new)
        raise Retryable(f"document {name} of pipeline {self.pipeline} keeps changing; try again")

    def _items(self, head: str) -> Iterator[dict[str, Any]]:
        """Iterate over the pipeline's items whose name begins so, in order."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="pipeline = :p AND begins_with(#i, :s)",
            ExpressionAttributeNames={"#i": "item"},
            ExpressionAttributeValues=_values({":p": self.pipeline, ":s": head}),
        )
        return (_plain(item) for page in pages for item in page["Items"])

    def _get(self, item: str) -> dict[str, Any] | None:
        answer = self._client.get_item(TableName=self._table, Key=self._key(item), ConsistentRead=True)
        return _plain(answer["Item"]) if "Item" in answer else None

    def _read_back(self, entry: ShardEntry) -> ShardEntry:
        try:
            current = self.shard(entry.shard_id)
        except (ConnectionError, HTTPClientError) as error:
            raise CommitUnknown(f"shard {entry.shard_id}: the ledger's answer was lost ({error})") from error
        if current is None:
            raise Fenced(f"shard {entry.shard_id} of pipeline {self.pipeline} is no longer in the ledger")
        return current

    def _key(self, item: str) -> dict[str, Any]:
        return _values({"pipeline": self.pipeline, "item": item})

    def _update(
        self, item: str, update: str, condition: str, values: Mapping[str, Any], names: Mapping[str, str]
    ) -> None:
        extra = {"ExpressionAttributeNames": dict(names)} if names else {}
        self._client.update_item(
            TableName=self._table,
            Key=self._key(item),
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeValues=_values(values),
            **extra,
        )


def _refused(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "ConditionalCheckFailedException"


def _lost(error: Exception) -> bool:
    return isinstance(error, ConnectionError | HTTPClientError)


def _values(plain: Mapping[str, Any]) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeSerializer  # here, since boto3 takes a producer longer to import than all else

    serialize = TypeSerializer().serialize
    return {name: serialize(value) for name, value in plain.items()}


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeDeserializer

    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in item.items()}


def _commit_values(change: Commit) -> dict[str, Any]:
    """Return what `_COMMIT` writes."""
    return {
        ":np": change.position,
        ":files": [asdict(file) for file in change.files],
        ":none": [],
        ":c": dict(change.counts),
        ":w": change.watermark_ms,
        ":cl": change.closed,
        ":s": change.state,
        ":k": change.state_key,
        ":u": change.now_ms,
    }


def _item(entry: ShardEntry) -> dict[str, Any]:
    plain = asdict(entry) | {"item": f"shard#{entry.shard_id}", "pending": [], "counts": dict(entry.counts)}
    return _values(plain)


def _entry(item: Mapping[str, Any]) -> ShardEntry:
    state = item.get("state")
    return ShardEntry(
        pipeline=item["pipeline"],
        shard_id=item["shard_id"],
        epoch=int(item["epoch"]),
        owner=item["owner"],
        position=item["position"],
        closed=bool(item["closed"]),
        state=bytes(state) if state is not None else None,
        state_key=item.get("state_key"),
        pending=tuple(
            PendingFile(file["table"], file["uri"], int(file["rows"]), int(file["bytes"]))
            for file in item.get("pending", [])
        ),
        taken=int(item["taken"]),
        counts={name: int(count) for name, count in item["counts"].items()},
        watermark_ms=None if item.get("watermark_ms") is None else int(item["watermark_ms"]),
        updated_ms=int(item["updated_ms"]),
    )
