"""Run the tests against mutants: `python -m tests.mutation.run --sample 200`; exit code 1 when one survives.

Each mutant lives in a fork of its own, where an import hook puts it in place of the module: no file is changed. A
mutant is killed by a failing test of its module's selection, by a run that does not end, or, where `--seeds` asks for
it, by a seed of the simulation that fails.
"""

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.mutation.explained import EXPLAINED
from tests.mutation.mutants import applied, mutants

__all__ = ["SELECTIONS", "Selection"]


@dataclass(frozen=True)
class Selection:
    """Name the tests that are to kill a module's mutants, quick ones first."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Return the module's file."""
        return Path(*self.module.split(".")).with_suffix(".py")


def _unit(module: str, *names: str) -> Selection:
    return Selection(module, tuple(f"tests/unit/test_{name}.py" for name in names))


SELECTIONS = (
    _unit("headwater.lineage.intervals", "lineage", "engine"),
    _unit("headwater.lineage.origins", "lineage", "engine", "audit"),
    _unit("headwater.ledger", "ledger", "ledger_reads", "publisher"),
    _unit("headwater.processors.engine.engine", "engine", "redrive", "embedded"),
    _unit("headwater.processors.engine.state", "engine", "state_children", "redrive"),
    _unit("headwater.processors.operators.aggregate", "engine", "eviction", "rollups"),
    _unit("headwater.sinks.lake.publisher", "publisher", "publisher_leading"),
    _unit("headwater.sinks.views.store", "views", "view_spread", "view_expiry", "view_keys", "view_interleavings"),
    _unit("headwater.producers.outbox", "producer_outbox"),
    _unit("headwater.producers.sealing", "sealing", "producer"),
)
_HEAVY = ("pytest", "hypothesis", "numpy", "pyarrow.compute", "pyarrow.parquet", "boto3", "moto", "datasketches")
"""Imported once, before the forks."""


def main() -> int:
    """Return 1 when a mutant survives that is not in EXPLAINED."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many of all, by the seed; 0 is all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="mutants with this in module and name")
    parser.add_argument("--seeds", type=int, default=0, help="seeds of the simulation for survivors")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one mutant")
    given = parser.parse_args()
    for name in _HEAVY:
        importlib.import_module(name)
    todo = [
        (selection, mutant.name)
        for selection in SELECTIONS
        for mutant in mutants(selection.path.read_text())
        if given.only in f"{selection.module} {mutant.name}"
    ]
    if given.sample:
        chosen = sorted(random.Random(given.seed).sample(range(len(todo)), min(given.sample, len(todo))))
        todo = [todo[at] for at in chosen]
    for selection in dict.fromkeys(selection for selection, _ in todo):
        why = _fate(selection, None, 0, given.limit)
        if why:
            print(f"{selection.module}: its tests fail without a mutant: {why}")
            return 2
    survived, explained, began = list[str](), 0, time.monotonic()
    for done, (selection, name) in enumerate(todo, 1):
        why = _fate(selection, name, given.seeds, given.limit)
        label = f"{selection.module} {name}"
        if not why and label in EXPLAINED:
            explained += 1
            why = f"explained: {EXPLAINED[label]}"
        if not why:
            survived.append(label)
        print(f"{done}/{len(todo)} {time.monotonic() - began:.0f} s {label}: {why or 'SURVIVED'}", flush=True)
    killed = len(todo) - explained - len(survived)
    print(
        f"\n{len(todo)} mutants: {killed} killed, {explained} explained, {len(survived)} survived", *survived, sep="\n"
    )
    return 1 if survived else 0


def _fate(selection: Selection, name: str | None, seeds: int, limit: float) -> str:
    """Run a mutant in a fork; return what killed it, or an empty text. None is the code as it is."""
    # made here, so that a mutant that is not there stops the run instead of counting as killed
    tree = applied(selection.path.read_text(), name) if name is not None else None
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.setsid()  # what the tests start ends with them
        why = "the mutant broke the run"
        try:
            why = _judged(selection, tree, seeds)
        finally:
            os.write(write, why.encode()[:1000])
            os._exit(0)
    os.close(write)
    deadline = time.monotonic() + limit
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(read)
            return f"no end within {limit:.0f} s"
        time.sleep(0.05)
    with os.fdopen(read) as said:
        return said.read()


def _judged(selection: Selection, tree: ast.Module | None, seeds: int) -> str:
    import pytest

    if tree is not None:
        sys.meta_path.insert(0, _Mutated(selection, tree))
    tests = [test for test in selection.tests if Path(test).exists()]
    failed = list[str]()

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid.rpartition("/")[2])

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                failed.append(f"import of {report.nodeid}")

    with _silence():
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests], plugins=[Watch()])
    if code != 0:
        return failed[0] if failed else f"pytest says {code!r}"
    return _seeds(seeds)


def _seeds(count: int) -> str:
    if not count:
        return ""
    from tests.simulation.run import run_seed

    for seed in range(count):
        try:
            found = run_seed(seed).found
        except Exception as error:  # the simulation itself cannot go on: that shows, too
            found = (repr(error),)
        if found:
            return f"seed {seed}: {found[0][:120]}"
    return ""


@contextmanager
def _silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        yield


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Load one module from the mutant's tree."""

    def __init__(self, selection: Selection, tree: ast.Module) -> None:
        self._selection, self._tree = selection, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._selection.module:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._selection.path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._selection.path)
        exec(compile(self._tree, str(self._selection.path), "exec"), module.__dict__)


if __name__ == "__main__":
    sys.exit(main())
