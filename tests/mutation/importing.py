"""Try a mutant by importing its module from it in a fork of its own: for what a swap cannot reach."""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tests.mutation.mutants import applied
from tests.mutation.selections import Selection
from tests.mutation.session import options, silence

__all__ = ["imported"]


def imported(selection: Selection, name: str, seeds: int, tests: bool, limit: float) -> str:
    """Return what killed the mutant of its tests, if they are to run, and seeds of the simulation; or an empty text."""
    # made here, so that a mutant that is not there stops the run instead of counting as killed
    tree = applied(selection.path.read_text(), name)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.setsid()  # what the tests start ends with them
        why = "the mutant broke the run"
        try:
            sys.meta_path.insert(0, _Mutated(selection, tree))
            why = (_failed(selection) if tests else "") or _seed(seeds)
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


def _failed(selection: Selection) -> str:
    import pytest

    failed = list[str]()

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid.rpartition("/")[2])

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                failed.append(f"import of {report.nodeid}")

    with silence():
        code = pytest.main(["-x", *options(selection)], plugins=[Watch()])
    if code == 0:
        return ""
    return failed[0] if failed else f"pytest says {code!r}"


def _seed(count: int) -> str:
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
        module.__file__ = str(Path(self._selection.path).absolute())
        exec(compile(self._tree, str(self._selection.path), "exec"), module.__dict__)
