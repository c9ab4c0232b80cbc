"""The ledger: one DynamoDB item a shard, and the only commit point of a pipeline.

A commit is one conditional UpdateItem: *if epoch and position are what I think, then position := new, state := new,
and these files are pending*. Who loses the race is fenced and stops. Whatever was written before it (files, views,
snapshots) either is named by a commit or does no harm.

Table: hash key `pipeline`, range key `item` (`shard#<id>` or `doc#<name>`), both strings.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater import sequence
from headwater.errors import CommitUnknown, Fenced

__all__ = ["Commit", "Ledger", "PendingFile", "ShardEntry", "watermark_of"]


@dataclass(frozen=True)
class PendingFile:
    """A data file that a commit names and the publisher has not yet confirmed in the table."""

    table: str
    uri: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class ShardEntry:
    """A shard's item. `position` is the padded sequence number of the last record that is committed."""

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
    """How many files the publisher has taken out so far."""
    counts: Mapping[str, int] = field(default_factory=dict)
    watermark_ms: int | None = None
    updated_ms: int = 0


def watermark_of(
    entries: Sequence[ShardEntry],
    idle_until_ms: int | None = None,
    listed: Mapping[str, Sequence[str]] | None = None,
) -> int | None:
    """Event time up to which the slowest of the shards that are still read has committed, epoch ms; None while one has
    nothing yet. A shard that has committed nothing since `idle_until_ms` counts as read up to there.

    `listed` are the stream's shards and their parents, asked for after the entries were read. With it, a shard that
    nobody has claimed yet counts as read up to where its parents were, and so holds the watermark from the reshard
    until it has committed; one without parents leaves it unknown. Without, a closed shard's children count from their
    claim on.
    """
    parents = listed or {}
    last = parents.keys() - {parent for each in parents.values() for parent in each}
    known = {entry.shard_id: entry for entry in entries}

    def mark_of(shard_id: str) -> int | None:
        entry = known.get(shard_id)
        if entry is not None and entry.watermark_ms is not None:
            return entry.watermark_ms
        return _least([mark_of(parent) for parent in parents.get(shard_id, ())])

    def updated_of(shard_id: str) -> int | None:
        entry = known.get(shard_id)
        if entry is not None:
            return entry.updated_ms
        return max((at for at in map(updated_of, parents.get(shard_id, ())) if at is not None), default=None)

    # the last of their lines: those that are open, and a closed one whose children are not listed yet
    read = {entry.shard_id for entry in entries if not entry.closed} | last
    marks = []
    for shard_id in read or known:
        mark, updated = mark_of(shard_id), updated_of(shard_id)
        if idle_until_ms is not None and updated is not None and updated < idle_until_ms:
            mark = idle_until_ms if mark is None else max(mark, idle_until_ms)
        marks.append(mark)
    return _least(marks)


def _least(marks: Sequence[int | None]) -> int | None:
    """None when one is missing, and of none at all."""
    known = [mark for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None


@dataclass(frozen=True)
class Commit:
    """What one commit changes."""

    position: str
    state: bytes | None
    state_key: str | None
    files: Sequence[PendingFile]
    counts: Mapping[str, int]
    watermark_ms: int | None
    closed: bool
    now_ms: int


class Ledger:
    """The items of one pipeline. Every write is conditional; a lost answer is settled by reading back."""

    def __init__(self, client: Any, table: str, pipeline: str) -> None:
        self._client = client
        self._table = table
        self.pipeline = pipeline

    def shard(self, shard_id: str) -> ShardEntry | None:
        item = self._get(f"shard#{shard_id}")
        return _entry(item) if item else None

    def shards(self) -> list[ShardEntry]:
        """Every shard ever owned, by id."""
        return [_entry(item) for item in self._items("shard#")]

    def everyone(self) -> list[ShardEntry]:
        """The shards of every pipeline in the ledger's table, without their states: reads the whole table."""
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
        """Become the owner: the epoch rises by one and fences whoever was. `initial` is a new shard's first state."""
        for _ in range(8):
            entry = self.shard(shard_id)
            try:
                if entry is None:
                    new = ShardEntry(self.pipeline, shard_id, 1, owner, state=initial, updated_ms=now_ms)
                    self._client.put_item(
                        TableName=self._table, Item=_item(new), ConditionExpression="attribute_not_exists(pipeline)"
                    )
                else:
                    self._update(
                        f"shard#{shard_id}",
                        "SET epoch = :n, #o = :o",
                        "epoch = :e",
                        {":n": entry.epoch + 1, ":o": owner, ":e": entry.epoch},
                        {"#o": "owner"},
                    )
            except (ClientError, ConnectionError, HTTPClientError) as error:
                if not (_lost(error) or _refused(error)):
                    raise
                mine = self.shard(shard_id)
                if mine is None or mine.owner != owner:
                    continue
            claimed = self.shard(shard_id)
            if claimed is not None and claimed.owner == owner:
                return claimed
        raise Fenced(
            f"shard {shard_id} of pipeline {self.pipeline}: others keep taking it; let one owner run at a time"
        )

    def commit(self, entry: ShardEntry, change: Commit) -> ShardEntry:
        """Move the shard forward, or raise Fenced; CommitUnknown when even the reading back failed.

        An answer may be lost and botocore may have sent the write twice, so a refusal is settled by reading back:
        the new position and state under our own epoch mean that it was we.
        """
        new = {
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
        sets = (
            "SET #p = :np, pending = list_append(if_not_exists(pending, :none), :files), counts = :c, "
            "watermark_ms = :w, closed = :cl, #s = :s, state_key = :k, updated_ms = :u"
        )
        fence = {":e": entry.epoch, ":op": entry.position}
        for _ in range(3):
            try:
                self._update(
                    f"shard#{entry.shard_id}",
                    sets,
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

    def take(self, entry: ShardEntry, count: int) -> None:
        """Remove the first `count` pending files, conditional on nobody having taken any since `entry` was read."""
        if not count:
            return
        gone = ", ".join(f"pending[{at}]" for at in range(count))
        try:
            self._update(
                f"shard#{entry.shard_id}",
                f"SET taken = :n REMOVE {gone}",
                "taken = :t",
                {":n": entry.taken + count, ":t": entry.taken},
                {},
            )
        except ClientError as error:
            if not _refused(error):
                raise
            current = self.shard(entry.shard_id)
            if current is None or current.taken != entry.taken + count:
                raise Fenced(f"shard {entry.shard_id}: another publisher has taken its pending files") from None

    def document(self, name: str) -> tuple[dict[str, Any], int]:
        """A named JSON document and its revision; `({}, 0)` when there is none."""
        item = self._get(f"doc#{name}")
        return (json.loads(item["body"]), int(item["rev"])) if item else ({}, 0)

    def documents(self) -> dict[str, tuple[dict[str, Any], int]]:
        """All of the pipeline's documents and their revisions, by name."""
        pages = self._items("doc#")
        return {item["item"].removeprefix("doc#"): (json.loads(item["body"]), int(item["rev"])) for item in pages}

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int:
        """Replace the document if it still has this revision, else Fenced; returns the new revision."""
        condition = "rev = :r" if expected_rev else "attribute_not_exists(rev)"
        values = {":b": json.dumps(doc), ":n": expected_rev + 1} | ({":r": expected_rev} if expected_rev else {})
        try:
            self._update(f"doc#{name}", "SET body = :b, rev = :n", condition, values, {})
        except ClientError as error:
            if not _refused(error):
                raise
            current, rev = self.document(name)
            if rev != expected_rev + 1 or current != dict(doc):
                raise Fenced(f"document {name} of pipeline {self.pipeline} was changed by somebody else") from None
        return expected_rev + 1

    def _items(self, head: str) -> Iterator[dict[str, Any]]:
        """The pipeline's items whose name begins so, in order."""
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
    serialize = TypeSerializer().serialize
    return {name: serialize(value) for name, value in plain.items()}


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    deserialize = TypeDeserializer().deserialize
    return {name: deserialize(value) for name, value in item.items()}


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
