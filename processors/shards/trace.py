"""A trace of load as CSV: what arrives when, where in the hash space. Read and written here; pure otherwise.

    at,bytes_s,records_s,events_s[,part,parts][,key]

A row says how much arrives per second from `at` (seconds from the start, ascending, evenly apart) to the next `at`.
Without `part` it is even over the hash space; with it, it falls into part 0 … `parts` - 1 of that many equal ones.
With `key` it is what one partition key brings, all on one hash key, on top of the parts.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from headwater.errors import UsageError
from processors.shards.limits import HASH_SPACE
from processors.shards.load import Floats, LoadCurve, Point
from processors.shards.topology import hash_key

__all__ = ["Matrix", "Trace", "peak_curve", "read_trace", "write_trace"]

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Trace:
    """Per step of `step` seconds (rows): bytes and records per second in each equal part of the hash space, and for
    each of `keys` what it brings alone."""

    step: float
    bytes_s: Matrix
    records_s: Matrix
    events_s: Floats
    keys: tuple[str, ...]
    key_bytes_s: Matrix
    key_records_s: Matrix

    @property
    def steps(self) -> int:
        return len(self.events_s)

    @property
    def seconds(self) -> float:
        return self.steps * self.step

    def totals(self) -> tuple[Floats, Floats]:
        """Bytes and records per second of the whole stream, per step."""
        by: Floats = self.bytes_s.sum(axis=1) + self.key_bytes_s.sum(axis=1)
        records: Floats = self.records_s.sum(axis=1) + self.key_records_s.sum(axis=1)
        return by, records

    def curve(self, at: int) -> LoadCurve:
        """The load at a step."""
        points = tuple(
            Point(key, hash_key(key), float(self.key_bytes_s[at, i]), float(self.key_records_s[at, i]))
            for i, key in enumerate(self.keys)
        )
        return LoadCurve(_edges(self.bytes_s.shape[1]), self.bytes_s[at], self.records_s[at], points)


def _edges(parts: int) -> tuple[int, ...]:
    return tuple(at * HASH_SPACE // parts for at in range(parts + 1))


def peak_curve(trace: Trace, share: float = 0.99) -> LoadCurve:
    """Per part and key the load that is not exceeded in that share of the time."""
    points = tuple(
        Point(
            key,
            hash_key(key),
            float(np.quantile(trace.key_bytes_s[:, i], share)),
            float(np.quantile(trace.key_records_s[:, i], share)),
        )
        for i, key in enumerate(trace.keys)
    )
    return LoadCurve(
        _edges(trace.bytes_s.shape[1]),
        np.quantile(trace.bytes_s, share, axis=0),
        np.quantile(trace.records_s, share, axis=0),
        points,
    )


def read_trace(path: str | Path) -> Trace:
    """The trace in the file, or a one-line error that names the line."""
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            missing = {"at", "bytes_s", "records_s"} - set(reader.fieldnames or ())
            if missing:
                raise UsageError(f"{path}: no column {', '.join(sorted(missing))}; see docs/shards.md for the format")
            rows = [_row(path, reader.line_num, row) for row in reader]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if not rows:
        raise UsageError(f"{path}: no rows")
    return _trace(path, rows)


@dataclass(frozen=True)
class _Row:
    at: float
    load: tuple[float, float, float]
    part: int
    parts: int
    key: str


def _row(path: str | Path, line: int, row: dict[str, str]) -> _Row:
    try:
        load = (float(row["bytes_s"]), float(row["records_s"]), float(row.get("events_s") or 0.0))
        part, parts = int(row.get("part") or 0), int(row.get("parts") or 1)
        at = float(row["at"])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}, line {line}: {error}") from None
    if not 0 <= part < parts <= 1 << 16 or min(load) < 0 or not np.isfinite([at, *load]).all():
        raise UsageError(f"{path}, line {line}: loads are not negative, and part is below parts (at most 65,536)")
    return _Row(at, load, part, parts, row.get("key") or "")


def _trace(path: str | Path, rows: Sequence[_Row]) -> Trace:
    times = sorted({row.at for row in rows})
    step = times[1] - times[0] if len(times) > 1 else 60.0
    if any(abs(b - a - step) > 1e-6 * step for a, b in pairwise(times)):
        raise UsageError(f"{path}: the times are not evenly apart ({step:g} s at first)")
    parts = max(row.parts for row in rows)
    if any(parts % row.parts for row in rows):
        raise UsageError(f"{path}: every `parts` must divide the largest, {parts}")
    keys = tuple(dict.fromkeys(row.key for row in rows if row.key))
    place = {at: i for i, at in enumerate(times)}
    column = {key: i for i, key in enumerate(keys)}
    loads = np.zeros((2, len(times), parts))
    alone = np.zeros((2, len(times), len(keys)))
    events = np.zeros(len(times))
    for row in rows:
        at, width = place[row.at], parts // row.parts
        events[at] += row.load[2]
        for measure in (0, 1):
            if row.key:
                alone[measure, at, column[row.key]] += row.load[measure]
            else:
                loads[measure, at, row.part * width : (row.part + 1) * width] += row.load[measure] / width
    return Trace(step, loads[0], loads[1], events, keys, alone[0], alone[1])


def write_trace(trace: Trace, path: str | Path) -> None:
    """One row per step and part or key that brings anything."""
    parts = trace.bytes_s.shape[1]
    with Path(path).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["at", "bytes_s", "records_s", "events_s", "part", "parts", "key"])
        for at in range(trace.steps):
            events = float(trace.events_s[at])
            for part in range(parts):
                load = (float(trace.bytes_s[at, part]), float(trace.records_s[at, part]))
                if any(load) or events or not part:
                    out.writerow([at * trace.step, *load, events, part, parts, ""])
                    events = 0.0
            for i, key in enumerate(trace.keys):
                alone = (float(trace.key_bytes_s[at, i]), float(trace.key_records_s[at, i]))
                out.writerow([at * trace.step, *alone, 0.0, 0, 1, key])
