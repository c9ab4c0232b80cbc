"""Run the tests against mutants of the core: `python -m tests.mutation.run`; exit code 1 when one survives.

No file is changed: each mutant lives in a fork of its own. It is killed by a failing test of its module's selection, by
a run that does not end, or, where `--seeds` asks for it, by a seed of the simulation that fails.
"""

import argparse
import importlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.mutation.explained import EXPLAINED
from tests.mutation.importing import imported
from tests.mutation.mutants import mutants
from tests.mutation.selections import CORE, SELECTIONS, Selection
from tests.mutation.session import BROKEN, Limits, verdicts

_HEAVY = ("pytest", "hypothesis", "numpy", "pyarrow.compute", "pyarrow.parquet", "boto3", "moto", "datasketches")
"""Imported once, before the forks; nothing of ours, or a mutant could not be imported."""


class _Fate(NamedTuple):
    label: str
    kind: str
    """Killed, explained or survived."""
    why: str


def main() -> int:
    """Return 1 when a mutant survives that is not in EXPLAINED, and 2 when tests fail without one."""
    given = _arguments()
    for name in _HEAVY:
        importlib.import_module(name)
    todo = _chosen(given)
    total, began, done = sum(map(len, todo.values())), time.monotonic(), 0
    counts, survived = dict[str, Counter[str]](), list[str]()
    for selection, names in todo.items():
        for label, kind, why in _fates(selection, names, given):
            if kind == "broken":
                print(f"{label}: {why}")
                return 2
            done += 1
            counts.setdefault(selection.module, Counter())[kind] += 1
            survived += [label] if kind == "survived" else []
            print(f"{done}/{total} {time.monotonic() - began:.0f} s {label}: {kind}: {why}", flush=True)
    print(f"\n{'module':<45} killed explained survived")
    for module, count in [*counts.items(), ("all", sum(counts.values(), Counter[str]()))]:
        print(f"{module:<45} {count['killed']:>6} {count['explained']:>9} {count['survived']:>8}")
    print(*survived, sep="\n")
    return 1 if survived else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many of all, by the seed; 0 is all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all", action="store_true", help="the modules around the core as well")
    parser.add_argument("--only", default="", help="mutants with this in module and name, of any module")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of the simulation for survivors")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one test of a mutant at most")
    parser.add_argument("--cpu", type=float, default=30.0, help="seconds of CPU for a mutant's tests, quick ones first")
    parser.add_argument("--examples", type=int, default=100, help="examples of a property at most")
    return parser.parse_args()


def _chosen(given: argparse.Namespace) -> dict[Selection, list[str]]:
    every = [
        (selection, mutant.name)
        for selection in (SELECTIONS if given.all or given.only else CORE)
        for mutant in mutants(selection.path.read_text())
        if given.only in f"{selection.module} {mutant.name}"
    ]
    if given.sample:
        places = sorted(random.Random(given.seed).sample(range(len(every)), min(given.sample, len(every))))
        every = [every[at] for at in places]
    todo: dict[Selection, list[str]] = {}
    for selection, name in every:
        todo.setdefault(selection, []).append(name)
    return todo


def _fates(selection: Selection, names: list[str], given: argparse.Namespace) -> Iterator[_Fate]:
    answered = 0
    for name, found in verdicts(selection, names, Limits(given.limit, given.cpu, given.examples)):
        if not name and found and not found.startswith(BROKEN):
            print(f"{selection.module}: {found}", flush=True)
            continue
        answered += 1
        why = imported(selection, name, 0, True, given.limit) if found is None else found
        if why.startswith(BROKEN):
            yield _Fate(selection.module, "broken", why)
            return
        if not why and given.seeds:
            why = imported(selection, name, given.seeds, False, 100 * given.limit)
        label = f"{selection.module} {name}"
        if why:
            yield _Fate(label, "killed", why)
        elif label in EXPLAINED:
            yield _Fate(label, "explained", EXPLAINED[label])
        else:
            yield _Fate(label, "survived", "by no test")
    if answered < len(names):
        yield _Fate(selection.module, "broken", f"{len(names) - answered} mutants have no verdict")


if __name__ == "__main__":
    sys.exit(main())
