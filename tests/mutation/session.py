"""Run mutants within one session of pytest: modules are imported and tests collected once, then each has a fork.

The first fork runs every test on the code as it is and notes which lines of the module it runs and how long it takes. A
mutant then meets only the tests that run its lines: first those that killed its neighbours, then the quick ones.
"""

import gc
import importlib
import os
import pickle
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutants import applied, mutants
from tests.mutation.selections import Selection
from tests.mutation.swapping import Code, Swap, functions, swap_for

if TYPE_CHECKING:
    from _typeshed import TraceFunction

__all__ = ["BROKEN", "Limits", "Session", "Verdict", "options", "silence", "verdicts"]

BROKEN = "its tests fail without a mutant: "
_SPARE_SECONDS = 20
"""For a test beyond ten times what it takes without a mutant: the machine may be busy."""
_MOST_BYTES = 12 << 30
"""Of address space: a mutant that never ends may gather without end."""


@dataclass(frozen=True)
class Limits:
    """Say what a mutant may cost."""

    wall: float
    """Seconds for one test at most."""
    cpu: float
    """Seconds of CPU for all of its tests: slow ones beyond are left out."""
    examples: int
    """Examples of one property at most."""


_SETTINGS = "_hypothesis_internal_use_settings"
Verdict = tuple[str, str | None]
"""A mutant's name, and what killed it: an empty text for nothing, None where it must be imported anew to be tried."""


def verdicts(selection: Selection, names: Sequence[str], most: Limits) -> Iterator[Verdict]:
    """Yield the verdict on each mutant, or one whose text begins with BROKEN when the tests fail without a mutant."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        with silence(), TemporaryDirectory() as folder:
            session = Session(selection, names, most, write)
            pytest.main([f"--basetemp={folder}/tests", *options(selection)], plugins=[session])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        while True:
            try:
                yield pickle.load(said)
            except EOFError:
                break
    os.waitpid(child, 0)


def options(selection: Selection) -> list[str]:
    """Return pytest's arguments: the same examples each time, and no search for the smallest that fails."""
    phases = (Phase.explicit, Phase.generate)
    checks = [HealthCheck.too_slow]
    settings.register_profile("mutation", deadline=None, phases=phases, database=None, suppress_health_check=checks)
    plain = ["-q", "-s", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--hypothesis-profile=mutation"]
    return [*plain, *selection.tests]


@dataclass
class _Measured:
    """What the code as it is has shown: by test, the lines of the module that it ran and its seconds of CPU."""

    lines: dict[int, set[int]] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    failed: str = ""


class Session:
    """Take the place of pytest's loop over the tests."""

    def __init__(self, selection: Selection, names: Sequence[str], most: Limits, out: int) -> None:
        self._selection, self._names, self._most, self._out = selection, names, most, out
        self._failed: list[str] = []
        self._killers: dict[Code, list[int]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let properties have fewer examples: what a mistake breaks it mostly breaks in one of the first."""
        for one in items:
            test = getattr(one, "obj", None)
            test = getattr(test, "__func__", test)
            given = getattr(test, _SETTINGS, None)
            if given is not None:
                setattr(test, _SETTINGS, settings(given, max_examples=min(given.max_examples, self._most.examples)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what fails."""
        if report.failed:
            self._failed.append(report.nodeid.rpartition("/")[2])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run every test once, and then each mutant."""
        module = importlib.import_module(self._selection.module)
        source = self._selection.path.read_text()
        lines = {one.name: one.lines for one in mutants(source)}
        made = functions(module)
        gc.freeze()  # collections in the forks touch no page of what is here
        measured = self._measured(session.items, {id(one.__code__) for every in made.values() for one in every})
        if measured.failed:
            self._say("", BROKEN + measured.failed)
            return True
        self._say("", f"{sum(measured.seconds.values()):.0f} s of CPU for {len(session.items)} tests")
        for name in self._names:
            swap = swap_for(source, applied(source, name))
            if not swap or any(code not in made for code in swap):
                self._say(name, None)
                continue
            order = self._order(swap, lines[name], measured)

            def put(swap: dict[Code, CodeType] = swap) -> None:
                for code, new in swap.items():
                    for one in made[code]:
                        one.__code__ = new

            at, why = self._tried(session.items, order, measured, put)
            if at is not None:
                for code in swap:
                    self._killers.setdefault(code, []).append(at)
            self._say(name, why)
        return True

    def _order(self, swap: Swap, lines: range, measured: _Measured) -> list[int]:
        found = [at for at, ran in measured.lines.items() if not ran.isdisjoint(lines)]
        known = {at for code in swap for at in self._killers.get(code, ())}
        found.sort(key=lambda at: (at not in known, measured.seconds[at]))
        spent = list(accumulate(measured.seconds[at] for at in found))
        return [at for at, cpu in zip(found, spent, strict=True) if cpu <= self._most.cpu or at == found[0]]

    def _say(self, name: str, why: str | None) -> None:
        os.write(self._out, pickle.dumps((name, why and why[:500])))

    def _measured(self, items: Sequence[pytest.Item], wanted: set[int]) -> _Measured:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            found = _Measured()
            ran = set[int]()

            def line(frame: FrameType, event: str, _: object) -> "TraceFunction":
                ran.add(frame.f_lineno)
                return line

            inside = set(wanted)

            def note(frame: FrameType, event: str, _: object) -> "TraceFunction | None":
                code = frame.f_code
                if id(code) not in inside:
                    return None
                inside.update(id(one) for one in code.co_consts if isinstance(one, CodeType))
                return line

            threading.settrace(note)
            sys.settrace(note)
            for at in range(len(items)):
                ran.clear()
                began = time.process_time()
                self._run(items, at, at + 1 if at + 1 < len(items) else None)
                found.seconds[at], found.lines[at] = time.process_time() - began, set(ran)
                if self._failed:
                    found.failed = self._failed[0]
                    break
            sys.settrace(None)
            with os.fdopen(write, "wb") as out:
                pickle.dump(found, out)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            try:
                measured: _Measured = pickle.load(said)
            except EOFError:
                measured = _Measured(failed="the run ended before its end")
        os.waitpid(child, 0)
        return measured

    def _run(self, items: Sequence[pytest.Item], at: int, following: int | None) -> None:
        following_item = None if following is None else items[following]
        items[at].ihook.pytest_runtest_protocol(item=items[at], nextitem=following_item)

    def _tried(
        self, items: Sequence[pytest.Item], order: Sequence[int], measured: _Measured, put: Callable[[], None]
    ) -> tuple[int | None, str]:
        """Return the test that killed the mutant, and what is said of it."""
        if not order:
            return None, ""
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            os.setsid()  # what the tests start ends with them
            resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
            try:
                put()
                for at, following in zip(order, [*order[1:], None], strict=True):
                    self._run(items, at, following)
                    os.write(write, b"F" if self._failed else b".")
                    if self._failed:
                        os.write(write, self._failed[0].encode()[:300])
                        break
            finally:
                os._exit(0)
        os.close(write)
        try:
            return _followed(read, order, items, measured, self._most.wall)
        finally:
            os.close(read)
            os.killpg(child, signal.SIGKILL) if _runs(child) else None
            os.waitpid(child, 0)


def _followed(
    read: int, order: Sequence[int], items: Sequence[pytest.Item], measured: _Measured, limit: float
) -> tuple[int | None, str]:
    for at in order:
        most = min(limit, _SPARE_SECONDS + 10 * measured.seconds[at])
        if not select.select([read], [], [], most)[0]:
            return at, f"no end within {most:.0f} s: {items[at].name}"
        said = os.read(read, 1)
        if not said:
            return at, f"the mutant broke the run: {items[at].name}"
        if said == b"F":
            return at, os.read(read, 300).decode(errors="replace")
    return None, ""


def _runs(child: int) -> bool:
    try:
        return os.getpgid(child) == child
    except ProcessLookupError:
        return False


@contextmanager
def silence() -> Iterator[None]:
    """Let this process say nothing."""
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        yield
