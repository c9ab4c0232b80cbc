"""A module that is not installed is told with the extra that brings it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from headwater.commands.failures import _EXTRAS, explain

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_ANOTHER = {
    "pydantic": "pydantic-settings",
    "starlette": "fastapi",
    "uvloop": "uvicorn",
    "httptools": "uvicorn",
    "botocore": "boto3",
    "google": "protobuf",
}
"""What a dependency of ours brings: which."""
ELSEWHERE = {"awslambdaric", "pytest"}
"""What is there by its nature: in a Lambda function, and in the plugin of pytest."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~;@ ]", name)[0]).lower()


class WithoutTypes(ast.NodeTransformer):
    """Leave out what only type checkers import."""

    def visit_If(self, node: ast.If) -> ast.AST:
        named = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return ast.Pass() if named else self.generic_visit(node)


def imported() -> Iterator[str]:
    """The top of every module that the packages import, at any depth, but for our own and Python's."""
    for folder in ("headwater", "producers", "processors", "sinks", "serving", "commands"):
        for path in (ROOT / folder).rglob("*.py"):
            if "starter" in path.parts or any(above.is_symlink() for above in path.parents):
                continue
            for node in ast.walk(WithoutTypes().visit(ast.parse(path.read_text()))):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module]
                yield from (name.split(".")[0] for name in names)


def test_every_module_is_a_dependency_or_names_its_extra() -> None:
    """So that whoever lacks one reads what to install."""
    core = {plain(one) for one in PROJECT["dependencies"]}
    found = {name for name in imported() if name not in sys.stdlib_module_names and name != "headwater"}
    assert len(found) > 15
    for name in found - ELSEWHERE:
        needed = {plain(one) for one in packages_distributions().get(name, [name])}
        needed |= {OF_ANOTHER[name]} if name in OF_ANOTHER else set()
        if not needed & core:
            extra = PROJECT["optional-dependencies"][_EXTRAS[name]]
            assert needed & {plain(one) for one in extra}, (name, needed)


@pytest.mark.parametrize(
    ("module", "extra"), [("starlette.routing", "web"), ("duckdb", "lake"), ("fastavro", "formats")]
)
def test_a_missing_module_is_one_line(module: str, extra: str) -> None:
    text, status = explain(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert (text, status) == (f"this needs {module.split('.')[0]}: pip install 'headwater[{extra}]'", 1)
