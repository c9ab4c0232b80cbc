"""Every example in a docstring of headwater runs and gives what it says.

Those of the sinks work on a table with rows in it: test_sinks_examples.
"""

import doctest
import pkgutil
from importlib import import_module

import pytest

import headwater

MODULES = [
    "headwater",
    *(
        one.name
        for one in pkgutil.walk_packages(headwater.__path__, "headwater.")
        if not one.name.startswith("headwater.sinks") and not one.name.endswith("__main__")
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """Each example of the module gives what it shows."""
    assert doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize(
    ("room", "least"),
    [("aggregates", 10), ("producers", 10), ("processors.definition", 5), ("serving", 5), ("testing", 5)],
)
def test_there_are_examples(room: str, least: int) -> None:
    """The finder sees them: an empty run would prove nothing."""
    modules = [import_module(name) for name in MODULES if name.startswith(f"headwater.{room}")]
    found = [test for one in modules for test in doctest.DocTestFinder().find(one) if test.examples]
    assert len(found) >= least
