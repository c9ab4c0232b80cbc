"""All that a shard's reader remembers, and its snapshot."""

import io
import json
import struct
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from headwater.lineage import OriginSets
from processors.operators.aggregate import ALWAYS, ViewState
from processors.pipeline import Pipeline

__all__ = ["ShardState"]

_MAGIC = b"HWS1"


class ShardState:
    """A function of the records of the shard up to the position (and of what its parents handed over)."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.seen = OriginSets()
        """Every event with an identity of its own that was read."""
        self.excluded = OriginSets()
        """Those of them that are not to be in the lake: dead-lettered or filtered."""
        self.dead = OriginSets()
        """Of events with an id of their own, those that went to the dead letters."""
        self.revived = OriginSets()
        """Those of the dead that came again, put right, and are in the lake after all."""
        self.accepted = OriginSets()
        """What producers said, in receipts, that they had accepted."""
        self.max_ts = ALWAYS
        """The highest event time, in epoch ms; the watermark is this less the allowed lateness."""
        self.max_arrived = 0
        self.references: dict[str, dict[str, object]] = {}
        """Per reference table the version in force: {"version": int, "uri": str}."""
        self.counts: dict[str, int] = {}
        self.begun: dict[str, dict[str, object]] = {}
        """Per generation of a view that was built anew: the position where this shard began it, and how many events it
        had had by then, copies aside. The generation's slots of this shard have what is after it."""
        self.views = {view.name: ViewState(view, pipeline.lateness_ms) for view in pipeline.views}

    def count(self, name: str, by: int = 1) -> None:
        if by:
            self.counts[name] = self.counts.get(name, 0) + by

    def refer(self, pipeline: Pipeline, first: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
        """Begin with the first version of each reference table that no other is known of; as the ledger has them."""
        for reference in pipeline.references:
            if reference.name not in self.references:
                self.references[reference.name] = dict(first[reference.name]["initial"])

    def is_dead(self, origin: str, seq: int) -> bool:
        """Whether the event with that id of its own is in the dead letters, and nowhere else."""
        return seq in self.dead.get(origin) and seq not in self.revived.get(origin)

    def forget(self, column: str, value: str, *, is_origin: bool) -> int:
        """Drop a key's slots of every view and, where the key itself is the origin of its events, its interval sets.

        Then an event of it that comes again is a new one.
        """
        gone = sum(view.forget(column, value) for view in self.views.values())
        if is_origin:
            for name in ("seen", "excluded", "dead", "revived", "accepted"):
                sets: OriginSets = getattr(self, name)
                table = sets.to_table()
                kept = table.filter(pc.not_equal(table["origin"], value))
                gone += table.num_rows - kept.num_rows
                setattr(self, name, OriginSets.from_table(kept))
        return gone

    def dumps(self) -> bytes:
        tables = {
            "seen": self.seen.to_table(self.max_arrived),
            "excluded": self.excluded.to_table(self.max_arrived),
            "dead": self.dead.to_table(self.max_arrived),
            "revived": self.revived.to_table(self.max_arrived),
            "accepted": self.accepted.to_table(self.max_arrived),
        }
        for name, view in self.views.items():
            tables[f"slots.{name}"], tables[f"aggregates.{name}"] = view.to_tables()
        head = {
            "max_ts": self.max_ts,
            "max_arrived": self.max_arrived,
            "references": self.references,
            "counts": self.counts,
            "begun": self.begun,
        }
        return _pack(head, tables)

    @classmethod
    def loads(cls, pipeline: Pipeline, snapshot: bytes) -> "ShardState":
        head, tables = _unpack(snapshot)
        state = cls(pipeline)
        state.max_ts, state.max_arrived = head["max_ts"], head["max_arrived"]  # type: ignore[assignment]
        state.references, state.counts = head["references"], head["counts"]  # type: ignore[assignment]
        state.seen = OriginSets.from_table(tables["seen"])
        state.excluded = OriginSets.from_table(tables["excluded"])
        state.dead = OriginSets.from_table(tables["dead"])
        state.revived = OriginSets.from_table(tables["revived"])
        state.accepted = OriginSets.from_table(tables["accepted"])
        for name, view in state.views.items():
            if f"slots.{name}" in tables:
                view.load_tables(tables[f"slots.{name}"], tables[f"aggregates.{name}"])
        state.begun = head.get("begun", {})  # type: ignore[assignment]
        return state

    def child(self, pipeline: Pipeline, other: "ShardState | None" = None) -> "ShardState":
        """What a child shard starts from: both parents' sets united on a merge, copied on a split.

        No window is handed over: a parent's slots stay as they are. Counts stay with the parent too.
        """
        heir = ShardState(pipeline)
        parents = [self] if other is None else [self, other]
        for parent in parents:
            heir.seen.update(parent.seen)
            heir.dead.update(parent.dead)
            heir.revived.update(parent.revived)
            heir.max_ts = max(heir.max_ts, parent.max_ts)
            heir.max_arrived = max(heir.max_arrived, parent.max_arrived)
            for name, version in parent.references.items():
                mine = heir.references.get(name)
                if mine is None or int(str(mine["version"])) < int(str(version["version"])):
                    heir.references[name] = version
        return heir


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


def _unpack(snapshot: bytes) -> tuple[dict[str, object], dict[str, pa.Table]]:
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
