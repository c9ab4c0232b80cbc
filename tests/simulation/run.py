"""Runs seeds: `python -m tests.simulation.run --seeds 0:10000 --jobs 2`. A failing seed prints its shrunk trace."""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random

from tests.simulation.audits import faults_of
from tests.simulation.system import System
from tests.simulation.world import FAULTS, World

__all__ = ["Run", "main", "one_seed"]

_LIVELY_MS = 1_800_000
"""How long after the last fault all has to be done."""


@dataclass
class Run:
    """What came of a seed."""

    seed: int
    faults: list[str]
    fired: Counter[str]
    trace: list[str] = field(default_factory=list)
    seconds: float = 0.0


def rates_of(seed: int) -> dict[str, float]:
    """Which faults a seed has, and how often: some seeds have many, some few."""
    chance = Random(f"rates {seed}")
    scale = chance.choice([0.0, 0.3, 1.0, 2.0])
    base = {
        "throttled": 0.02,
        "lost request": 0.01,
        "lost answer": 0.02,
        "crash before": 0.003,
        "crash after": 0.004,
        "pause": 0.003,
        "partial put": 0.2,
        "catalog loses": 0.2,
        "catalog drops foreign": 0.2,
        "clock skew": 0.2,
    }
    return {name: rate * scale * chance.choice([0, 1, 1, 3]) for name, rate in base.items()}


def one_seed(seed: int, without: frozenset[str] = frozenset()) -> Run:
    """The same seed gives the same run, bit for bit."""
    world = World(seed, {name: rate for name, rate in rates_of(seed).items() if name not in without})
    world.faults_until_ms = world.now + world.random.choice([20_000, 60_000, 180_000])
    system = System(world)
    system.spawn()
    finished = world.run(system.settled, world.faults_until_ms + _LIVELY_MS)
    return Run(seed, faults_of(system, finished), world.fired, world.trace)


def shrunk(seed: int) -> tuple[Run, frozenset[str]]:
    """The failing run with as few kinds of faults as still make it fail."""
    best, without = one_seed(seed), frozenset[str]()
    for fault in FAULTS:
        tried = one_seed(seed, without | {fault})
        if tried.faults:
            best, without = tried, without | {fault}
    return best, without


def _quiet(seed: int) -> Run:
    logging.disable(logging.CRITICAL)
    run = one_seed(seed)
    run.trace = []
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a seed fails."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", default="0:1000", help="FIRST:LAST, the last left out")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--trace", type=int, default=60, help="lines of a failing seed's trace")
    given = options.parse_args(arguments)
    first, last = (int(part) for part in given.seeds.split(":"))
    logging.disable(logging.CRITICAL)
    began, fired, failed, done = time.monotonic(), Counter[str](), list[Run](), 0
    with ProcessPoolExecutor(given.jobs) as pool:
        for run in pool.map(_quiet, range(first, last), chunksize=8):
            done += 1
            fired.update(run.fired)
            if run.faults:
                failed.append(run)
                sys.stderr.write(f"\nseed {run.seed}: {run.faults[0]}\n")
            if done % 20 == 0:
                rate = done / (time.monotonic() - began)
                sys.stderr.write(f"\r{done:,} of {last - first:,} seeds, {rate:.1f} a second, {len(failed)} failed")
    report(fired, done, time.monotonic() - began)
    for run in failed[:3]:
        best, without = shrunk(run.seed)
        sys.stdout.write(f"\nseed {run.seed}, without {', '.join(sorted(without)) or 'nothing'}:\n")
        sys.stdout.write("\n".join([*best.trace[-given.trace :], *best.faults[:10]]) + "\n")
    sys.stdout.write(f"{len(failed)} of {done:,} seeds failed: {[run.seed for run in failed[:50]]}\n")
    return 1 if failed else 0


def report(fired: Counter[str], seeds: int, seconds: float) -> None:
    """How often each fault really happened."""
    sys.stdout.write(f"\n{seeds:,} seeds in {seconds:.0f} s: {seeds / seconds:.1f} a second\n")
    for name, times in sorted(fired.items(), key=_second):
        sys.stdout.write(f"  {name:28} {times:>10,}\n")


def _second(pair: tuple[str, int]) -> tuple[int, str]:
    return (-pair[1], pair[0])


def failures(seeds: Iterable[int]) -> dict[int, list[str]]:
    """Seeds that fail, with their broken promises."""
    return {seed: run.faults for seed in seeds if (run := one_seed(seed)).faults}


if __name__ == "__main__":
    sys.exit(main())
