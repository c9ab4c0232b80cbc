"""Read and write a trace of load as CSV: how much arrives when, and where in the hash space.

    at,bytes_s,records_s,events_s[,part,parts][,key]

A row says how much arrives per second from `at` (seconds from the start, ascending, evenly apart) to the next `at`.
Without `part` it is even over the hash space; with it, it falls into part 0 … `parts` - 1 of that many equal ones. With
`key` it is what one partition key brings, all on one hash key, on top of the parts.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from headwater.errors import UsageError
from headwater.processors.scaling.load import Floats, LoadCurve, Point
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of

__all__ = ["Matrix", "Trace", "peak_curve", "read_trace", "write_trace"]

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Trace:
    """Hold load over time.

    Rows are steps of `step` seconds. `bytes_s` and `records_s` have a column for each equal part of the hash space, and
    `key_bytes_s` and `key_records_s` one for each of `keys`, whose load is not in the parts.
    """

    step: float
    bytes_s: Matrix
    records_s: Matrix
    events_s: Floats
    keys: tuple[str, ...]
    key_bytes_s: Matrix
    key_records_s: Matrix

    @property
    def steps(self) -> int:
        """Return the number of steps."""
        return len(self.events_s)

    @property
    def seconds(self) -> float:
        """Return the length of the trace in seconds."""
        return self.steps * self.step

    def totals(self) -> tuple[Floats, Floats]:
        """Return bytes and records per second of the whole stream, one value per step."""
        by: Floats = self.bytes_s.sum(axis=1) + self.key_bytes_s.sum(axis=1)
        records: Floats = self.records_s.sum(axis=1) + self.key_records_s.sum(axis=1)
        return by, records

    def curve(self, at: int) -> LoadCurve:
        """Return the load over the hash space at one step."""
        points = tuple(
            Point(key, hash_key_of(key), float(self.key_bytes_s[at, i]), float(self.key_records_s[at, i]))
            for i, key in enumerate(self.keys)
        )
        return LoadCurve(_edges(self.bytes_s.shape[1]), self.bytes_s[at], self.records_s[at], points)


def _edges(parts: int) -> tuple[int, ...]:
    """Return the edges of that many equal parts of the hash space."""
    return tuple(at * HASH_SPACE // parts for at in range(parts + 1))


def peak_curve(trace: Trace, share: float = 0.99) -> LoadCurve:
    """Return the load of each part and key that is not exceeded in the given share of the time.

    >>> hours, none = np.arange(1.0, 101.0)[:, None], np.zeros((100, 0))
    >>> peak_curve(Trace(3_600.0, hours, hours, hours[:, 0], (), none, none), share=0.5).total
    (50.5, 50.5)
    """
    points = tuple(
        Point(
            key,
            hash_key_of(key),
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
    """Return the trace in the file; raise UsageError with one line that names the file and the line at fault."""
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
    """Hold one row of the file; `load` is bytes, records and events per second."""

    at: float
    load: tuple[float, float, float]
    part: int
    parts: int
    key: str


def _row(path: str | Path, line: int, row: dict[str, str]) -> _Row:
    """Return a row of the file, checked."""
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
    """Return the trace of all rows, in as many parts as the finest row has."""
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
    """Write a row for each step and each part or key that brings anything."""
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
