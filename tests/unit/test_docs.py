"""What the documentation says of the tests is so."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions(path: str) -> set[str]:
    """The tests of a file."""
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_step_of_the_guarantee_names_tests_that_exist() -> None:
    """Ten steps, each with its own."""
    text = (ROOT / "docs" / "guarantees.md").read_text()
    argument = text.partition("## The argument")[2].partition("\n## ")[0]
    steps = re.split(r"(?m)^(\d+)\. ", argument)[1:]
    assert [int(number) for number in steps[::2]] == list(range(1, 11))
    for number, step in zip(steps[::2], steps[1::2], strict=True):
        named = NAMED.findall(step)
        assert named, f"step {number} names no test"
        for path, name in named:
            assert name in functions(path), f"step {number}: there is no {path}::{name}"
    assert len(NAMED.findall(text)) == text.count(".py::")


def test_decisions_are_numbered_without_gaps_or_twins() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
