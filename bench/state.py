"""Measure what one shard remembers of a million origins: memory, update rate, snapshot, hand-over to a child.

Each origin is a session with a random name of 32 characters; a share of them (--gaps) has a gap, and every origin's
receipts have come too. Run: python -m bench.state
"""

import argparse
import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState

PIPELINE = Pipeline("bench", "telemetry").lake("bench")
MARKS = {"memory_mb": 300, "snapshot_s": 5, "commit_share": 0.05}
COMMIT_SECONDS = 30
S3_MB_A_SECOND = 100
"""Rate of one connection to S3, about."""
START_MS = 1_762_160_400_000


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returned, and the seconds it took."""
    gc.collect()
    began = time.perf_counter()
    result = job()
    return result, time.perf_counter() - began


def resident_mb() -> float:
    """Return what the process holds now, without what its allocators keep for later use."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(AttributeError):  # a libc that has no such pool
            ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def filled(origins: int, names: pa.Array, gaps: float) -> ShardState:
    """Return a state with ten accepted events of every origin, some with one more after a gap."""
    state = ShardState(PIPELINE)
    state.max_arrived = START_MS
    for sets in (state.seen, state.accepted):
        for at in range(0, origins, 100_000):
            part = names.slice(at, 100_000)
            codes = sets.codes(part)
            gapped = codes[: round(gaps * len(codes))]
            for seqs, of in ((np.arange(10), codes), (np.array([20]), gapped)):
                rows = np.repeat(of, len(seqs))
                sets.add(rows, np.tile(seqs, len(of)), np.full(len(rows), START_MS, np.int64))
    return state


def update_rate(state: ShardState, names: pa.Array, events: int, batch: int) -> float:
    """Return events a second, in batches of a hundred origins drawn at random, each going on where it stopped."""
    random, seen = np.random.default_rng(3), state.seen
    each = batch // 100
    drawn = [random.choice(len(names), 100, replace=False) for _ in range(events // batch)]
    following = dict[int, int]()
    work = []
    for origins in drawn:
        first = np.array([following.get(one, 30) for one in origins.tolist()])
        following.update((one, number + each) for one, number in zip(origins.tolist(), first.tolist(), strict=True))
        seqs = (first[:, None] + np.arange(each)).ravel()
        work.append((names.take(pa.array(origins)), seqs, np.full(batch, START_MS + 1, np.int64)))

    def run() -> int:
        return sum(
            int(seen.add(np.repeat(seen.codes(part), each), seqs, arrived).sum()) for part, seqs, arrived in work
        )

    added, seconds = timed(run)
    assert added == events
    return events / seconds


def measure(origins: int, gaps: float) -> dict[str, float]:
    """Return the figures of one size."""
    random = np.random.default_rng(1)
    names = pa.array([random.bytes(16).hex() for _ in range(origins)])
    before = resident_mb()
    state, fill_s = timed(lambda: filled(origins, names, gaps))
    memory = resident_mb() - before
    rate = update_rate(state, names, 2_000_000, 5_000)
    state.dumps()
    body, snapshot_s = timed(state.dumps)
    loaded, load_s = timed(lambda: ShardState.loads(PIPELINE, body))
    assert loaded.seen.count() == state.seen.count()
    _, split_s = timed(lambda: state.child(PIPELINE))
    other = ShardState(PIPELINE)
    other.seen.add(other.seen.codes(names), np.full(origins, 40), np.full(origins, START_MS))
    _, merge_s = timed(lambda: state.child(PIPELINE, other))
    size = len(body) / 1e6
    return {
        "origins": origins,
        "memory_mb": memory,
        "fill_s": fill_s,
        "events_a_second": rate,
        "snapshot_mb": size,
        "snapshot_s": snapshot_s,
        "load_s": load_s,
        "split_s": split_s,
        "merge_s": merge_s,
        "commit_share": (snapshot_s + size / S3_MB_A_SECOND) / COMMIT_SECONDS,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--origins", type=int, default=1_000_000)
    parser.add_argument("--gaps", type=float, default=0.01, help="share of origins with a gap")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.origins, chosen.gaps)
    if chosen.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name, value in found.items():
        mark = f"  (mark: below {MARKS[name]:g})" if name in MARKS else ""
        sys.stdout.write(f"{name:16} {value:14,.3f}{mark}\n")


if __name__ == "__main__":
    main()
