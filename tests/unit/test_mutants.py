"""What the mutation run does to code, and that the seeds of nights never repeat."""

import doctest
from datetime import date, timedelta

import pytest

import tests.mutation.mutants
import tests.simulation.nightly
from tests.mutation.explained import EXPLAINED
from tests.mutation.mutants import applied, mutants
from tests.mutation.selections import SELECTIONS
from tests.simulation.nightly import next_range

SOURCE = '''
LIMIT = 7

def kept(rows: list | None, limit=3):
    """Return 1 < 2."""
    log.info("more than %d", 5)
    found = [one for one in rows if one <= limit and not one.gone]
    found.sort()
    if not found:
        raise ValueError(f"none of {1 + 1}")
    return min(found)
'''


def test_mutants_change_code_and_nothing_else() -> None:
    """No constant of a module, no annotation, no text, no log line."""
    assert {one.change for one in mutants(SOURCE)} == {
        "3 -> 4",
        "one <= limit and (not one.gone) -> one <= limit or not one.gone",
        "one <= limit -> one < limit",
        "not one.gone -> one.gone",
        "found.sort() -> nothing",
        "not found -> found",
        "min -> max",
    }


def test_each_mutant_has_a_name_of_its_own_and_compiles() -> None:
    """In every module that the run is about; what is explained is there."""
    names = set()
    for selection in SELECTIONS:
        source = selection.path.read_text()
        found = [one.name for one in mutants(source)]
        assert found
        assert len(set(found)) == len(found)
        names |= {f"{selection.module} {name}" for name in found}
        compile(applied(source, found[-1]), "mutant", "exec")
    assert not EXPLAINED.keys() - names


def test_a_mutant_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        applied(SOURCE, "kept: 3 -> 5")


def test_seeds_of_nights_never_repeat() -> None:
    """On the same day or another, whatever was run before."""
    total: dict[str, int] = {}
    seen: set[int] = set()
    for night in range(6):
        seeds = next_range(date(2026, 11, 28) + timedelta(days=night // 2), total, 50)
        assert not seen & set(seeds)
        seen |= set(seeds)
        total["next"] = seeds.stop


@pytest.mark.parametrize("module", [tests.mutation.mutants, tests.simulation.nightly])
def test_the_examples_run(module: object) -> None:
    failed, _ = doctest.testmod(module)  # type: ignore[arg-type]  # it has what a module has
    assert not failed
