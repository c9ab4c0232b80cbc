"""Seeds from the command line: `python -m tests.simulation.run --seeds 0:10000 --jobs 2`."""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.simulation.auditors import findings
from tests.simulation.operator import OPERATIONS as OPERATED
from tests.simulation.patches import simulated
from tests.simulation.system import System
from tests.simulation.world import FAULTS, World

__all__ = ["OPERATIONS", "Result", "run_range", "run_seed", "shrunk"]

OPERATIONS = (
    *dict.fromkeys(OPERATED),
    *(
        "restore",
        "stranger",
        "meter",
        "own ids",
        "rewrite",
        "remake",
        "twins",
        "clash",
        "rivals",
        "months",
        "replay",
        "rebuild",
        "compact",
        "forget",
        "rollback",
        "alerts",
        "to stream",
    ),
)
_FAULTY_MS, _BOUND_MS = 90_000, 1_800_000
_USUAL = {
    "crash before": 0.004,
    "crash after": 0.004,
    "pause": 0.01,
    "partial put": 0.3,
    "expired iterator": 0.05,
    "catalog loses": 0.3,
    "catalog drops foreign": 0.3,
    "clock skew": 0.3,
    "crash before a put": 0.15,
}


@dataclass(frozen=True)
class Result:
    """What came of a seed. Equal digests: the same happened, step by step."""

    seed: int
    found: tuple[str, ...]
    fired: Counter[str]
    digest: str
    simulated_ms: int
    trace: tuple[str, ...] = field(default=(), repr=False)


def run_seed(seed: int, without: Sequence[str] = (), *, traced: bool = False) -> Result:
    """One run. `without` switches fault kinds and operations off."""
    chooser = random.Random(f"rates {seed}")
    rates = {fault: _USUAL.get(fault, 0.02) * chooser.choice([0, 0.5, 1, 1, 3]) for fault in FAULTS}
    for fault in without:
        rates.pop(fault, None)
    world = World(seed, rates)
    start = world.now
    world.faults_until_ms = start + _FAULTY_MS
    with simulated(world), TemporaryDirectory(prefix="headwater-simulation-") as disk:
        system = System(world, frozenset(OPERATIONS) - set(without), Path(disk))
        finished = system.run(start + _BOUND_MS)
        found = tuple(findings(system, finished))
    trace = tuple(world.trace) if traced or found else ()
    return Result(seed, found, world.fired, world.digest(), world.now - start, trace)


def shrunk(failed: Result) -> tuple[Result, tuple[str, ...]]:
    """The run with as few kinds of faults and operations as still fail, and what was left out."""
    without: tuple[str, ...] = ()
    best = failed
    for kind in (*OPERATIONS, *FAULTS):
        tried = run_seed(failed.seed, (*without, kind), traced=True)
        if tried.found:
            best, without = tried, (*without, kind)
    return best, without


def main() -> int:
    """Exit code 1 when a seed fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="FROM:TO, or one seed with its whole trace")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    first, _, last = given.seeds.partition(":")
    if not last:
        one = run_seed(int(first), traced=True)
        print("\n".join([*one.trace, *one.found, one.digest]))
        return 1 if one.found else 0
    return 1 if run_range(range(int(first), int(last)), given.jobs) else 0


def run_range(seeds: range, jobs: int) -> list[int]:
    """Run these seeds, say what happened, shrink the first that failed, and return those that did."""
    fired, failed = Counter[str](), list[Result]()
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for done, result in enumerate(pool.map(partial(run_seed), seeds, chunksize=10), 1):
            fired += result.fired
            if result.found:
                failed.append(result)
                print(f"\nseed {result.seed} FAILED: {result.found[0]}", flush=True)
            if done % 50 == 0 or done == len(seeds):
                rate = done / (time.monotonic() - began)
                print(f"\r{done}/{len(seeds)} seeds, {rate:.1f}/s, {len(failed)} failed ", end="", flush=True)
    print("\n\n" + "\n".join(f"{times:9,}  {fault}" for fault, times in sorted(fired.items())))
    for result in failed[:5]:
        best, without = shrunk(result)
        print(f"\nseed {result.seed}: fails still without {', '.join(without) or 'nothing'}")
        print("\n".join([*best.trace[-60:], *best.found[:10]]))
    print(f"\n{len(seeds)} seeds, {len(failed)} failed{': ' + str([one.seed for one in failed]) if failed else ''}")
    return [one.seed for one in failed]


if __name__ == "__main__":
    sys.exit(main())
