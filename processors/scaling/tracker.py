"""Measure how hot a shard is: events, records and bytes per second, and the heaviest keys inside the batches.

Amazon's own metrics cannot see this: a batch is one record to the service. Pure; time is the records' arrival time.
Nothing that the pipeline decides depends on it, so it is kept beside the state, not in it.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasketches import frequent_items_error_type, frequent_strings_sketch

from headwater.arrays import Ints, whole
from headwater.contract.written import key_texts
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of
from headwater.stream.record import StreamRecord

__all__ = ["HeatTracker"]


_BATCHES = (b"\x28\xb5\x2f\xfd", b"\xff\xff\xff\xff")
"""First bytes of columnar batches, which an explicit hash key places, whatever their partition key."""
BINS = 64
"""Equal parts of the shard's hash range in which records are counted by where their partition key hashes to."""
_HEAVIEST = 64
"""Keys of one call that are counted: a key that is heavy at all is among the heaviest of its batches."""
_LG_SKETCH = 10
"""Up to 768 keys are counted exactly; beyond, the error is at most 0.35 % of the events of the epoch."""


class HeatTracker:
    """Measure one shard over the last `keep_seconds`.

    Heavy keys come from two sketches, of the running and the last epoch of `epoch_seconds`, so old heat is forgotten. A
    record whose partition key does not hash into the shard was placed by an explicit hash key: it counts as spread
    evenly over the shard.

    >>> tracker = HeatTracker()
    >>> tracker.records(arrived_ms=[1_000, 1_500], sizes=[100, 200], events=[1, 2])
    >>> rates = tracker.rates(seconds=1)
    >>> rates["bytes_s"], rates["events_s"]
    (300.0, 3.0)
    """

    def __init__(
        self, start: int = 0, end: int = HASH_SPACE - 1, keep_seconds: int = 900, epoch_seconds: int = 300
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

        `ranged` says whether the shard's hash range is known; else all records count as spread over it.
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
        """Count records that the shard refused by its limits, in the last second: a later record reports them."""
        if count:
            self._seconds[self.last_second][3] += count

    def keys(self, column: pa.ChunkedArray | pa.Array) -> None:
        """Count the key of every event; the sketch takes the heaviest of the call."""
        codes = whole(column)
        if not pa.types.is_dictionary(codes.type):
            codes = key_texts(codes).dictionary_encode()
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
            key = hash_key_of(name)
            if self.start <= key <= self.end:
                self._bins[0, (key - self.start) * BINS // width] += size
            else:
                self._spread[0] += size

    def rates(self, seconds: int = 60) -> dict[str, float]:
        """Return means and peaks per second over the last `seconds` seconds up to the last record."""
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
        """Return the heaviest keys as (key, events at least, share of all events of both epochs), heaviest first.

        >>> tracker = HeatTracker()
        >>> tracker.keys(pa.array(["a", "b", "a"]))
        >>> tracker.heavy(limit=1)
        [('a', 2, 0.6666666666666666)]
        """
        both = frequent_strings_sketch.deserialize(self._sketches[1].serialize())
        both.merge(self._sketches[0])
        total = max(1.0, float(self._events.sum()))
        found = both.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
        rows = sorted(((name, int(low), low / total) for name, _, low, _ in found if low), key=lambda r: (-r[1], r[0]))
        return rows[:limit]

    def bins(self) -> list[float]:
        """Return the share of the shard's bytes in each of BINS equal parts of its range; spread bytes count evenly."""
        total = self._bins.sum() + self._spread.sum()
        if not total:
            return [1 / BINS] * BINS
        shares: list[float] = ((self._bins.sum(axis=0) + self._spread.sum() / BINS) / total).tolist()
        return shares

    def to_json(self) -> dict[str, Any]:
        """Return all that was measured as a JSON document, which `from_json` reads."""
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
        """Return the tracker that `to_json` wrote."""
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
        """Move the clock to the arrival of a record; drop old seconds and begin a new epoch when it is time."""
        self.last_second = max(self.last_second, second)
        horizon = self.last_second - self.keep_seconds
        for old in [at for at in self._seconds if at <= horizon]:
            del self._seconds[old]
        epoch = self.last_second // self.epoch_seconds
        if epoch > self._epoch:
            if self._epoch >= 0:
                last = self._sketches[0] if epoch == self._epoch + 1 else frequent_strings_sketch(_LG_SKETCH)
                self._sketches = (frequent_strings_sketch(_LG_SKETCH), last)
                # After a gap of a whole epoch, heat from before it no longer counts.
                kept = epoch == self._epoch + 1
                self._bins = np.stack([np.zeros(BINS), self._bins[0] * kept])
                self._spread = np.array([0.0, self._spread[0] * kept])
                self._events = np.array([0.0, self._events[0] * kept])
            self._epoch = epoch
