"""Hold all that a shard's reader remembers, and pack it into snapshots.

A snapshot's format outlives this version: additions must read old snapshots.
"""

import io
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from headwater.arrays import Ints
from headwater.contract.keyvalues import KeyValue
from headwater.lineage.origins import HORIZON_MS, OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.controls import bound_version, owner_of
from headwater.processors.operators.aggregate import ALWAYS, ViewState
from headwater.processors.operators.contents import SeenContents
from headwater.processors.operators.misplaced import Awaited, Renewed, united_awaited, united_renewed

__all__ = ["ShardState"]

_MAGIC = b"HWS1"
_NEVER = 1 << 62
_WITH_SEEN = ("excluded", "dead", "revived", "accepted")
"""The sets without a horizon of their own: an origin leaves them when it leaves `seen`. Else a filtered event of a
device that goes on would be missing after 30 days, and a dead one could not come back."""


class ShardState:
    """Hold the state of one shard: a function of its records up to the position and of what its parents handed over."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.seen = OriginSets(HORIZON_MS)
        """Every event with an identity of its own that was read."""
        self.excluded = OriginSets(_NEVER)
        """The events in `seen` that are not to be in the lake: dead-lettered or filtered."""
        self.dead = OriginSets(_NEVER)
        """The events with an id of their own that went to the dead letters."""
        self.revived = OriginSets(_NEVER)
        """The events in `dead` that came again, put right, and are in the lake after all."""
        self.accepted = OriginSets(_NEVER)
        """Intervals that producers said in receipts they had accepted."""
        self.max_ts = ALWAYS
        """The highest event time, in epoch ms; the watermark is this less the allowed lateness."""
        self.max_arrived = 0
        self.references: dict[str, dict[str, object]] = {}
        """Per reference table the version in force: {"version": int, "uri": str}."""
        self.counts: dict[str, int] = {}
        self.awaited: Awaited = {}
        """The user records of misplaced KPL aggregates whose copies do not count: see operators/misplaced.py."""
        self.has_kpl = False
        """True once an aggregate of a KPL was read."""
        self.renewed: Renewed = {}
        """User records that came at the beginning of a child of shards with such, for the same reason."""
        self.renewed_ms: int | None = None
        """When the first record of such a child arrived, epoch ms; 0 before it, None on other shards."""
        self.contents = SeenContents(pipeline.contract)
        """The contents of the last events of producers' sessions: see operators/contents.py."""
        self.begun: dict[str, dict[str, object]] = {}
        """Per generation of a view that was built anew: the position where this shard began it, and how many events it
        had had by then, copies aside. The generation's slots of this shard have what is after it."""
        self.forgetting: dict[str, str] = {}
        """Keys whose forgetting is under way, by a hash: the object that lists which foreign events of the key are
        counted as excluded already."""
        self.views = {view.name: ViewState(view, pipeline.lateness_ms) for view in pipeline.views}

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter; a counter that would stay 0 is not made."""
        if by:
            self.counts[name] = self.counts.get(name, 0) + by

    def refer(self, pipeline: Pipeline, first: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
        """Begin with the first version of each reference table that no other is known of; as the ledger has them."""
        for reference in pipeline.references:
            if reference.name not in self.references:
                self.references[reference.name] = dict(first[reference.name]["initial"])

    @property
    def known_since_ms(self) -> int:
        """Return the arrival time, epoch ms, before which an origin's last event has been forgotten."""
        return self.max_arrived - HORIZON_MS

    def forget_expired(self, codes: Ints, arrived_ms: Ints) -> None:
        """Remove from the other sets the origins that `seen` forgets when these events arrive.

        `codes` are the events' origins in `seen`, `arrived_ms` their times of arrival.
        """
        gone = self.seen.expired(codes, arrived_ms)
        for name in _WITH_SEEN:
            getattr(self, name).forget(gone)
        if len(self.accepted):  # of an origin whose events went to other shards a receipt is all that is here
            new = ~self.seen.known(codes)
            met, first = np.unique(codes[new], return_index=True)
            for code, at in zip(met.tolist(), first.tolist(), strict=True):
                self.forget_receipts([self.seen.name(code)], int(arrived_ms[new][at]))

    def forget_receipts(self, origins: Iterable[str], arrived_ms: int) -> None:
        """Forget what receipts said of these origins where nothing of them has arrived for the horizon by then.

        As a snapshot would; else the receipt that comes now would make them recent.
        """
        since = arrived_ms - HORIZON_MS
        met = [(origin, self.accepted.seen_ms(origin)) for origin in origins]
        self.accepted.forget([name for name, ms in met if ms and max(ms, self.seen.seen_ms(name)) < since])

    def _unexpired(self, table: pa.Table, alive: pa.Array) -> pa.Table:
        """Return the rows of origins that are alive, or that no event is known of here and that a receipt names."""
        if not table.num_rows:
            return table
        recent = pc.greater_equal(table["seen_ms"], self.known_since_ms)
        return table.filter(pc.or_(recent, pc.is_in(table["origin"], value_set=alive)))

    def is_dead(self, origin: str, seq: int) -> bool:
        """Return True when the event with this id is in the dead letters and has not come again, put right."""
        return seq in self.dead.get(origin) and seq not in self.revived.get(origin)

    def forget(self, key: KeyValue, *, is_origin: bool) -> int:
        """Drop a key's slots of every view and, where the key itself is the origin of its events, its interval sets.

        Then an event of it that comes again is a new one.
        """
        gone = sum(view.forget(key) for view in self.views.values())
        if is_origin:
            for name in ("seen", *_WITH_SEEN):
                sets: OriginSets = getattr(self, name)
                table = sets.to_table()
                kept = table.filter(pc.not_equal(table["origin"], key.text))
                gone += table.num_rows - kept.num_rows
                setattr(self, name, OriginSets.from_table(kept, sets.horizon_ms))
        return gone

    def dumps(self) -> bytes:
        """Return the state as a snapshot, without the origins that are past the horizon."""
        tables = {"seen": self.seen.to_table(self.max_arrived)}
        alive = pc.unique(tables["seen"]["origin"])
        for name in _WITH_SEEN:
            tables[name] = self._unexpired(getattr(self, name).to_table(), alive)
        tables["contents"] = self.contents.to_table()
        for name, view in self.views.items():
            tables[f"slots.{name}"], tables[f"aggregates.{name}"] = view.to_tables()
        head = {
            "max_ts": self.max_ts,
            "max_arrived": self.max_arrived,
            "references": self.references,
            "counts": self.counts,
            "begun": self.begun,
            "awaited": self.awaited,
            "has_kpl": self.has_kpl,
            "renewed": self.renewed,
            "renewed_ms": self.renewed_ms,
            "forgetting": self.forgetting,
        }
        return _pack(head, tables)

    @classmethod
    def loads(cls, pipeline: Pipeline, snapshot: bytes) -> "ShardState":
        """Return the state in a snapshot; raise UsageError when a view was changed in place since."""
        head, tables = _unpack(snapshot)
        state = cls(pipeline)
        state.max_ts, state.max_arrived = head["max_ts"], head["max_arrived"]
        state.references, state.counts = head["references"], head["counts"]
        state.seen = OriginSets.from_table(tables["seen"], HORIZON_MS)
        for name in _WITH_SEEN:
            setattr(state, name, OriginSets.from_table(tables[name], _NEVER))
        for name, view in state.views.items():
            if f"slots.{name}" in tables:
                view.load_tables(tables[f"slots.{name}"], tables[f"aggregates.{name}"])
        # snapshots of earlier versions lack these
        if "contents" in tables:
            state.contents.load(tables["contents"])
        state.begun = head.get("begun", {})
        state.awaited = head.get("awaited", {})
        state.has_kpl = bool(head.get("has_kpl"))
        state.renewed, state.renewed_ms = head.get("renewed", {}), head.get("renewed_ms")
        state.forgetting = head.get("forgetting", {})
        return state

    def child(self, pipeline: Pipeline, other: "ShardState | None" = None) -> "ShardState":
        """Return the state that a child shard starts from: a copy on a split, both parents' sets united on a merge.

        No window is handed over, because a parent's slots stay as they are. The counts, `excluded` and `accepted`
        stay with the parent too.
        """
        heir = ShardState(pipeline)
        parents = [self] if other is None else [self, other]
        heir.contents.load(*(parent.contents.to_table() for parent in parents))
        heir.awaited = united_awaited([parent.awaited for parent in parents])
        heir.has_kpl = any(parent.has_kpl for parent in parents)
        if heir.has_kpl:
            heir.renewed, heir.renewed_ms = united_renewed([parent.renewed for parent in parents]), 0
        for parent in parents:
            heir.seen.update(parent.seen)
            heir.dead.update(parent.dead)
            heir.revived.update(parent.revived)
            heir.max_ts = max(heir.max_ts, parent.max_ts)
            heir.max_arrived = max(heir.max_arrived, parent.max_arrived)
            for name, version in parent.references.items():
                mine = heir.references.get(name)
                if mine is None or _rank(pipeline, name, mine) < _rank(pipeline, name, version):
                    heir.references[name] = version
        return heir


def _rank(pipeline: Pipeline, name: str, version: Mapping[str, object]) -> tuple[bool, bool, int]:
    """Order versions of a reference table: another pipeline's below all, then those that no file's name binds."""
    uri = str(version["uri"])
    ours = owner_of(name, uri) in (None, pipeline.name)
    return ours, bound_version(name, uri) is not None, int(str(version["version"]))


def _pack(head: Mapping[str, object], tables: Mapping[str, pa.Table]) -> bytes:
    out = io.BytesIO()
    parts = []
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        parts.append((name, sink.getvalue().to_pybytes()))
    header = json.dumps({"head": head, "parts": [[name, len(body)] for name, body in parts]}).encode()
    out.write(struct.pack(">I", len(header)))
    out.write(header)
    for _, body in parts:
        out.write(body)
    return _MAGIC + zstandard.ZstdCompressor(level=1).compress(out.getvalue())


def _unpack(snapshot: bytes) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    if not snapshot.startswith(_MAGIC):
        raise ValueError("not a state snapshot of this version")
    body = zstandard.ZstdDecompressor().decompress(snapshot[len(_MAGIC) :])
    (length,) = struct.unpack(">I", body[:4])
    header = json.loads(body[4 : 4 + length])
    at = 4 + length
    tables = {}
    for name, size in header["parts"]:
        tables[name] = pa.ipc.open_stream(body[at : at + size]).read_all()
        at += size
    return header["head"], tables
