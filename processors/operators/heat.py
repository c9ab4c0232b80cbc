"""How hot a shard is: events, records and bytes per second, and the heaviest keys inside the batches.

What Amazon's own metrics cannot see: a batch is one record to the service. Pure; time is the records' arrival time.
Nothing that the pipeline decides depends on it, so it is kept beside the state, not in it.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasketches import frequent_items_error_type, frequent_strings_sketch

from headwater.records import StreamRecord
from processors.operators.arrays import whole

__all__ = ["HeatTracker"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_BATCHES = (b"\x28\xb5\x2f\xfd", b"\xff\xff\xff\xff")
"""How columnar batches begin: those go where an explicit hash key says, whatever their partition key."""
BINS = 64
"""Equal parts of the shard's hash range in which records are counted by where their partition key hashes to."""
_HEAVIEST = 64
"""Keys of one call that are counted: a key that is heavy at all is among the heaviest of its batches."""
_LG_SKETCH = 10
"""Up to 768 keys are counted exactly; beyond, the error is at most 0.35 % of the events of the epoch."""


class HeatTracker:
    """The heat of one shard over the last `keep_seconds`.

    Heavy keys come from two sketches, of the running and the last epoch of `epoch_seconds`, so old heat is forgotten.
    A record whose partition key does not hash into the shard was placed by an explicit hash key: it counts as spread.
    """

    def __init__(
        self, start: int = 0, end: int = (1 << 128) - 1, keep_seconds: int = 900, epoch_seconds: int = 300
    ) -> None:
        self.start, self.end = start, end
        self.keep_seconds = keep_seconds
        self.epoch_seconds = epoch_seconds
        self.last_second = 0
        self._seconds: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._epoch = -1
        self._sketches = (frequent_strings_sketch(_LG_SKETCH), frequent_strings_sketch(_LG_SKETCH))
        self._bins = np.zeros((2, BINS))
        self._spread = np.zeros(2)
        self._events = np.zeros(2)

    def observe(
        self, records: Sequence[StreamRecord], keys: Sequence[tuple[Ints, pa.Array]], ranged: bool = True
    ) -> None:
        """Count records and their events: `keys` has the record's index and the key of every event, in pieces.

        `ranged` is whether the shard's hash range is known; else all records count as spread over it.
        """
        if not records:
            return
        events = np.zeros(len(records), np.int64)
        for record, column in keys:
            events += np.bincount(record, minlength=len(records))
            self.keys(column)
        sizes = [len(record.data) + len(record.partition_key) for record in records]
        self.records([record.arrived_ms for record in records], sizes, events.tolist())
        placed = [
            (record.partition_key, size)
            for record, size in zip(records, sizes, strict=True)
            if ranged and not record.data.startswith(_BATCHES)
        ]
        self.places([name for name, _ in placed], [size for _, size in placed])
        self._spread[0] += sum(sizes) - sum(size for _, size in placed)

    def records(self, arrived_ms: Sequence[int], sizes: Sequence[int], events: Sequence[int]) -> None:
        """Count records: when each arrived, its bytes (partition key included) and the events in it."""
        if not len(arrived_ms):
            return
        second = np.asarray(arrived_ms, np.int64) // 1000
        distinct, inverse = np.unique(second, return_inverse=True)
        columns = [
            np.bincount(inverse, np.asarray(weights, np.float64), len(distinct))
            for weights in (np.ones(len(second)), sizes, events, np.zeros(len(second)))
        ]
        for at, counts in zip(distinct.tolist(), np.stack(columns, axis=1).astype(np.int64), strict=True):
            before = self._seconds.get(at)
            self._seconds[at] = counts if before is None else before + counts
        self._advance(int(distinct[-1]))

    def refused(self, count: int) -> None:
        """Count records that the shard refused by its limits: they are heard of about now, by a later record."""
        if count:
            self._seconds[self.last_second][3] += count

    def keys(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Count the key of every event; the sketch takes the heaviest of the call."""
        codes = whole(column)
        if not pa.types.is_dictionary(codes.type):
            codes = codes.cast(pa.string()).dictionary_encode()
        taken = codes.indices.drop_null().to_numpy()
        weights = np.bincount(taken, minlength=len(codes.dictionary))
        sketch = self._sketches[0]
        heaviest = np.flatnonzero(weights)
        if len(heaviest) > _HEAVIEST:
            heaviest = np.argpartition(weights, -_HEAVIEST)[-_HEAVIEST:]
        names = codes.dictionary.take(pa.array(heaviest)).cast(pa.string()).to_pylist()
        for name, at in zip(names, heaviest.tolist(), strict=True):
            sketch.update(name, int(weights[at]))
        self._events[0] += len(taken)

    def places(self, partition_keys: Sequence[str], sizes: Sequence[int]) -> None:
        """Count where records lie in the shard's hash range, by bytes; a loop over records, never events."""
        width = self.end - self.start + 1
        for name, size in zip(partition_keys, sizes, strict=True):
            key = int.from_bytes(hashlib.md5(name.encode(), usedforsecurity=False).digest(), "big")
            if self.start <= key <= self.end:
                self._bins[0, (key - self.start) * BINS // width] += size
            else:
                self._spread[0] += size

    def rates(self, seconds: int = 60) -> dict[str, float]:
        """Means and peaks per second of the last so many seconds up to the last record."""
        window = range(self.last_second - seconds + 1, self.last_second + 1)
        rows = np.array([self._seconds.get(second, np.zeros(4, np.int64)) for second in window])
        mean, peak = rows.mean(axis=0), rows.max(axis=0)
        return {
            "records_s": float(mean[0]),
            "bytes_s": float(mean[1]),
            "events_s": float(mean[2]),
            "peak_records_s": float(peak[0]),
            "peak_bytes_s": float(peak[1]),
            "peak_events_s": float(peak[2]),
            "refused_s": float(mean[3]),
        }

    def heavy(self, limit: int = 10) -> list[tuple[str, int, float]]:
        """The heaviest keys: (key, events at least, share of all events of both epochs), heaviest first."""
        both = frequent_strings_sketch.deserialize(self._sketches[1].serialize())
        both.merge(self._sketches[0])
        total = max(1.0, float(self._events.sum()))
        found = both.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
        rows = sorted(((name, int(low), low / total) for name, _, low, _ in found if low), key=lambda r: (-r[1], r[0]))
        return rows[:limit]

    def bins(self) -> list[float]:
        """Share of the shard's bytes in each of BINS equal parts of its range; what is spread counts evenly."""
        total = self._bins.sum() + self._spread.sum()
        if not total:
            return [1 / BINS] * BINS
        shares: list[float] = ((self._bins.sum(axis=0) + self._spread.sum() / BINS) / total).tolist()
        return shares

    def to_json(self) -> dict[str, Any]:
        return {
            "range": [str(self.start), str(self.end)],
            "keep_seconds": self.keep_seconds,
            "epoch_seconds": self.epoch_seconds,
            "last_second": self.last_second,
            "seconds": [[at, *counts.tolist()] for at, counts in sorted(self._seconds.items())],
            "epoch": self._epoch,
            "sketches": [base64.b64encode(sketch.serialize()).decode() for sketch in self._sketches],
            "bins": self._bins.tolist(),
            "spread": self._spread.tolist(),
            "events": self._events.tolist(),
        }

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> "HeatTracker":
        start, end = (int(key) for key in doc["range"])
        tracker = cls(start, end, doc["keep_seconds"], doc["epoch_seconds"])
        tracker.last_second = doc["last_second"]
        tracker._seconds = {row[0]: np.array(row[1:], np.int64) for row in doc["seconds"]}
        tracker._epoch = doc["epoch"]
        one, two = (frequent_strings_sketch.deserialize(base64.b64decode(text)) for text in doc["sketches"])
        tracker._sketches = (one, two)
        tracker._bins = np.array(doc["bins"])
        tracker._spread = np.array(doc["spread"])
        tracker._events = np.array(doc["events"])
        return tracker

    def _advance(self, second: int) -> None:
        self.last_second = max(self.last_second, second)
        horizon = self.last_second - self.keep_seconds
        for old in [at for at in self._seconds if at <= horizon]:
            del self._seconds[old]
        epoch = self.last_second // self.epoch_seconds
        if epoch > self._epoch:
            if self._epoch >= 0:
                last = self._sketches[0] if epoch == self._epoch + 1 else frequent_strings_sketch(_LG_SKETCH)
                self._sketches = (frequent_strings_sketch(_LG_SKETCH), last)
                kept = epoch == self._epoch + 1
                self._bins = np.stack([np.zeros(BINS), self._bins[0] * kept])
                self._spread = np.array([0.0, self._spread[0] * kept])
                self._events = np.array([0.0, self._events[0] * kept])
            self._epoch = epoch
