"""Make the mutants of a module: the same code with one small mistake, such as `<` for `<=` or a call left out.

Pure: from source text to syntax trees. Which modules and tests belong together, and running them, is in `run`.
"""

import ast
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "applied", "mutants"]

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_NAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
_QUIET = ("log", "logger", "warnings")
"""Calls on these say something and change nothing."""

Change = tuple[str, Callable[[ast.AST], ast.AST | None]]
"""What a mutant is called, and what makes it of the node; None leaves a statement out."""


@dataclass(frozen=True)
class Mutant:
    """Name one mistake: the function it is in, its lines when listed, what changes, and which of its kind there."""

    function: str
    lines: range
    change: str
    place: int

    @property
    def name(self) -> str:
        """Return a name that survives edits elsewhere in the module."""
        return f"{self.function}: {self.change}" + (f" ({self.place + 1})" if self.place else "")


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a module's source, in order of its text.

    >>> [one.name for one in mutants("def f(a):\\n    return a < 1")]
    ['f: a < 1 -> a <= 1', 'f: 1 -> 2']
    """
    return [mutant for mutant, _, _ in _found(ast.parse(source))]


def applied(source: str, name: str) -> ast.Module:
    """Return the module's tree with the mutant of this name; raise KeyError when there is none."""
    tree = ast.parse(source)
    for mutant, node, make in _found(tree):
        if mutant.name == name:
            _Replace(node, make).visit(tree)
            return ast.fix_missing_locations(tree)
    raise KeyError(name)


class _Replace(ast.NodeTransformer):
    def __init__(self, wanted: ast.AST, make: Callable[[ast.AST], ast.AST | None]) -> None:
        self._wanted, self._make = wanted, make

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._wanted:
            return ast.copy_location(self._make(deepcopy(node)) or ast.Pass(), node)
        return self.generic_visit(node)


def _found(tree: ast.Module) -> Iterator[tuple[Mutant, ast.AST, Callable[[ast.AST], ast.AST | None]]]:
    seen: dict[tuple[str, str], int] = {}
    for function, node in _code(tree, ""):
        for change, make in _changes(node):
            place = seen.get((function, change), 0)
            seen[function, change] = place + 1
            yield Mutant(function, _lines(node), change, place), node, make


def _lines(node: ast.AST) -> range:
    if isinstance(node, ast.If):  # its test alone changes
        node = node.test
    first = getattr(node, "lineno", 0)
    return range(first, getattr(node, "end_lineno", first) + 1)


def _code(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes inside functions: no annotation, docstring, message of an error, log line or protocol."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr):
                continue
            if _is_protocol(child) or (isinstance(child, ast.keyword) and child.arg == "strict"):
                continue  # nobody calls it; a check of zip's that our own code is right
            inside = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inside = f"{function}.{child.name}".lstrip(".")
            elif isinstance(child, ast.Expr) and (isinstance(child.value, ast.Constant) or _says(child.value)):
                continue
            elif function:
                yield function, child
            yield from _code(child, inside if not isinstance(node, ast.Module) or inside else "")


def _is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases
    )


def _says(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in _QUIET
    )


def _changes(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
        yield _named(node, lambda one: ast.Compare(one.left, [_COMPARED[type(one.ops[0])]()], one.comparators))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield _named(node, lambda one: ast.BoolOp(other(), one.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _named(node, lambda one: one.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _CALCULATED:
        yield _named(node, lambda one: ast.BinOp(one.left, _CALCULATED[type(one.op)](), one.right))
    elif isinstance(node, ast.AugAssign) and type(node.op) in _CALCULATED:
        yield _named(node, lambda one: ast.AugAssign(one.target, _CALCULATED[type(one.op)](), one.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _named(node, lambda one: ast.Constant(not one.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield _named(node, lambda one: ast.Constant(one.value + 1))
    elif isinstance(node, ast.Name) and node.id in _NAMED:
        yield _named(node, lambda one: ast.Name(_NAMED[one.id], ast.Load()))
    elif isinstance(node, ast.Attribute) and node.attr in _NAMED:
        yield _named(node, lambda one: ast.Attribute(one.value, _NAMED[one.attr], ast.Load()))
    elif isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield f"if {_text(node.test)} -> if not", _negated
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"{_text(node)} -> nothing", lambda _: None
    elif isinstance(node, ast.Continue | ast.Break):
        other_jump = ast.Break if isinstance(node, ast.Continue) else ast.Continue
        yield _named(node, lambda _: other_jump())


def _negated(node: Any) -> Any:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def _named(node: ast.AST, make: Callable[[Any], ast.AST]) -> Change:
    return f"{_text(node)} -> {_text(make(deepcopy(node)))}", make


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:40]} … {text[-28:]}"
