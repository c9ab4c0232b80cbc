"""Write down which slots of views exist outside of any commit, so that the next owner of a shard knows of them.

Views are flushed ahead of the commit. An owner that dies in between leaves slots that its successor makes again while
it reads the same records, unless its code is another: with another filter or lateness it makes other slots, and nobody
would ever touch the old ones. So before a slot is flushed for the first time that no commit knows, its name goes into
a ledger document of the shard. The successor empties those that it did not make once it has read as far.

Only names belong here: what a slot holds is in the view, how it is replaced in `sinks/views/slots.py`.
"""

import base64
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headwater.contract.keyvalues import KeyValue
from headwater.errors import Fenced
from headwater.processors.operators.aggregate import SlotName
from headwater.processors.shard.snapshots import INLINE_STATE
from headwater.sinks.views.items import key_text
from headwater.stores import DocumentStore, ObjectStore

__all__ = ["FlushJournal", "flush_document", "forget_flushed"]

_Place = tuple[str, str, int | None, int]
"""View, key as text, window start and bucket: the name of a slot, as a dictionary can hold it."""


@dataclass(frozen=True)
class _Flushed:
    """Hold a slot that was flushed, and the padded position up to which its owner had read when it was new."""

    slot: SlotName
    through: str


class FlushJournal:
    """Keep the journal of one shard for its owner. The document is the fence: another owner's claim changes it.

    `epoch` and `position` are those of the ledger entry just claimed. Raises Fenced when a later owner has claimed.
    """

    def __init__(
        self, ledger: DocumentStore, objects: ObjectStore, place: tuple[str, str], epoch: int, position: str
    ) -> None:
        self._ledger, self._objects, self._epoch = ledger, objects, epoch
        self._pipeline, self._shard_id = place
        self._name = flush_document(self._shard_id)
        self._mine: dict[_Place, _Flushed] = {}
        """Flushed by this owner, and not committed yet."""
        self._inherited: dict[_Place, _Flushed] = {}
        """Flushed by owners before this one, and neither written nor emptied by this one yet."""
        self._rev: int | None = None
        self._key = ""
        self._claim(position)

    @property
    def key(self) -> str:
        """Return the key of the object that the document names; empty where it has the slots itself."""
        return self._key

    def _claim(self, position: str) -> None:
        """Take the document over, without what has been committed since. Whoever had it cannot write it any more."""

        def taken(old: dict[str, Any]) -> dict[str, Any]:
            if old and int(old["epoch"]) > self._epoch:
                raise self._fenced()
            return {**old, "epoch": self._epoch}

        # changed even when it is empty: an owner that still runs must not begin it unseen
        document = self._ledger.change(self._name, taken)
        self._key = document.get("key", "")
        found = _read(document, self._objects)
        self._inherited = {at: one for at, one in found.items() if one.through > position}

    def note(self, slots: Mapping[str, Sequence[SlotName]], through: str) -> None:
        """Write down slots, by view, that are about to be flushed for the first time, with all that are not committed.

        After an error nothing has been noted: do not flush them. Raises Fenced when another owner has the shard.
        """
        new = {_place(view, one): _Flushed(one, through) for view, some in slots.items() for one in some}
        if not new:
            return
        kept = {**self._inherited, **self._mine, **new}
        body, key = _pack(kept), ""
        document: dict[str, Any] = {"epoch": self._epoch, "slots": base64.b64encode(body).decode()}
        if len(body) > INLINE_STATE:
            key = f"state/{self._pipeline}/{self._shard_id}/flushed-{self._epoch:08d}-{uuid.uuid4().hex}.bin"
            self._objects.put(key, body)
            document = {"epoch": self._epoch, "key": key}
        self._put(document)
        if self._key:
            self._objects.delete(self._key)
        self._key, self._mine = key, {**self._mine, **new}

    def _put(self, document: dict[str, Any]) -> None:
        if self._rev is None:
            current, rev = self._ledger.document(self._name)
            if current.get("epoch") != self._epoch:
                raise self._fenced()
            self._rev = rev
        # unknown until the answer is here: a write whose answer was lost may have taken place
        rev, self._rev = self._rev, None
        self._rev = self._ledger.put_document(self._name, document, rev)

    def wrote(self, view: str, slots: Iterable[SlotName]) -> None:
        """Take slots that this owner has made itself off those that were inherited."""
        if self._inherited:
            for one in slots:
                self._inherited.pop(_place(view, one), None)

    def orphans(self, view: str, position: str) -> list[SlotName]:
        """Return the inherited slots of a view that this owner would have made by now, and has not."""
        found = self._inherited.items()
        return [one.slot for (name, *_), one in found if name == view and one.through <= position]

    def committed(self, position: str) -> None:
        """Forget what this commit makes known."""
        self._mine.clear()
        self._inherited = {at: one for at, one in self._inherited.items() if one.through > position}

    def _fenced(self) -> Fenced:
        return Fenced(f"shard {self._shard_id} of pipeline {self._pipeline}: another owner has taken it")


def flush_document(shard_id: str) -> str:
    """Return the name of the ledger document that has a shard's journal."""
    return f"flushed.{shard_id}"


def forget_flushed(
    ledger: DocumentStore, objects: ObjectStore, shard_id: str, by: Mapping[str, Sequence[str]], key: KeyValue
) -> None:
    """Take a key's slots out of a shard's journal; `by` are the key columns of each view."""

    def without(document: dict[str, Any]) -> dict[str, Any] | None:
        kept = {}
        for at, one in _read(document, objects).items():
            columns = list(by.get(at[0], ()))
            mine = key.column in columns and key.matches(one.slot.key[columns.index(key.column)])
            if not mine:
                kept[at] = one
        return {"epoch": document["epoch"], "slots": base64.b64encode(_pack(kept)).decode()} if document else None

    old, _ = ledger.document(flush_document(shard_id))
    ledger.change(flush_document(shard_id), without)
    if old.get("key"):
        objects.delete(old["key"])


def _place(view: str, slot: SlotName) -> _Place:
    return view, key_text(slot.key), slot.window_start_ms, slot.bucket


def _pack(slots: Mapping[_Place, _Flushed]) -> bytes:
    """Return the slots as one Arrow stream a view, each with its length before it."""
    views: dict[str, list[_Flushed]] = {}
    for (view, *_), one in slots.items():
        views.setdefault(view, []).append(one)
    out = b""
    for view, some in views.items():
        keys = list(zip(*(one.slot.key for one in some), strict=True))
        columns = {f"key{at}": pa.array(values) for at, values in enumerate(keys)}
        columns["start"] = pa.array([one.slot.window_start_ms for one in some], pa.int64())
        columns["end"] = pa.array([one.slot.window_end_ms for one in some], pa.int64())
        columns["bucket"] = pa.array([one.slot.bucket for one in some], pa.int64())
        columns["through"] = pa.array([one.through for one in some])
        table, sink = pa.table(columns), pa.BufferOutputStream()
        schema = table.schema.with_metadata({b"view": view.encode()})
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
        body = sink.getvalue().to_pybytes()
        out += len(body).to_bytes(8, "big") + body
    return out


def _read(document: Mapping[str, Any], objects: ObjectStore) -> dict[_Place, _Flushed]:
    if not document.get("key") and not document.get("slots"):
        return {}
    body = objects.get(document["key"]) if document.get("key") else base64.b64decode(document["slots"])
    found: dict[_Place, _Flushed] = {}
    while body:
        length = int.from_bytes(body[:8], "big")
        table = pa.ipc.open_stream(body[8 : 8 + length]).read_all()
        body = body[8 + length :]
        view = table.schema.metadata[b"view"].decode()
        keys = [table[name].to_pylist() for name in table.column_names if name.startswith("key")]
        rest = (table[name].to_pylist() for name in ("start", "end", "bucket", "through"))
        for at, (start, end, bucket, through) in enumerate(zip(*rest, strict=True)):
            slot = SlotName(tuple(column[at] for column in keys), start, end, bucket)
            found[_place(view, slot)] = _Flushed(slot, through)
    return found
