"""Check expressions against a schema, and make of each a function of a table. Pure.

The one home of what SQL means here: `.where`, `.map` and the `where=` of aggregates, in processors, replays, rebuilds
and audits. The rules are in docs/programming.md.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Mask, whole
from headwater.contract.types import TYPES, type_name
from headwater.expressions import kernels
from headwater.expressions.parsing import Node, failure, parse_condition, parse_projections, read_by

__all__ = ["Expression", "condition", "projections"]

_Run = Callable[[pa.Table], Any]
_CASTS = {
    **{name: name for name in ("boolean", "int", "long", "double", "string", "timestamp", "timestamp_us", "date")},
    "bool": "boolean",
    "integer": "int",
    "bigint": "long",
    "varchar": "string",
    "text": "string",
}
_CASTABLE = {
    "boolean": {"boolean", "long", "int", "string"},
    "long": {"boolean", "long", "int", "double", "string"},
    "double": {"long", "int", "double"},
    "string": {"long", "int", "double", "string"},
    "timestamp": {"timestamp", "timestamp_us", "date"},
    "timestamp_us": {"timestamp", "timestamp_us", "date"},
    "date": {"timestamp", "timestamp_us", "date"},
    "null": set(_CASTS.values()),
}


@dataclass(frozen=True)
class Expression:
    """Hold an expression that fits a schema: `kind` is the type of its values, as contracts name types."""

    text: str
    kind: str
    columns: tuple[str, ...]
    """The columns that it reads."""
    run: _Run

    def evaluate(self, table: pa.Table) -> pa.ChunkedArray:
        """Return a value for each row, null where there is none. Nothing that rows hold makes it fail."""
        return pa.chunked_array(
            self._chunks(table.select(list(self.columns)), table.num_rows), kernels.ARROW[self.kind]
        )

    def mask(self, table: pa.Table) -> Mask:
        """Tell for each row whether a condition is true; null counts as false."""
        found: Mask = pc.fill_null(self.evaluate(table), False).to_numpy().astype(np.bool_)
        return found

    def _chunks(self, table: pa.Table, rows: int) -> list[pa.Array]:
        try:
            found = self.run(table)
        except (pa.ArrowInvalid, pa.ArrowCapacityError):  # texts beyond what one array can hold
            if rows <= 1:
                return [pa.nulls(rows, kernels.ARROW[self.kind])]
            half = rows // 2
            return [*self._chunks(table.slice(0, half), half), *self._chunks(table.slice(half), rows - half)]
        return [pa.repeat(found, rows) if isinstance(found, pa.Scalar) else found]


@lru_cache(maxsize=512)
def condition(text: str, schema: pa.Schema) -> Expression:
    """Return a condition over the schema's columns. Raise UsageError with the place of what is wrong in the text.

    >>> schema = pa.schema({"value": pa.float64(), "metric": pa.string()})
    >>> condition("value > 30 and metric = 'x'", schema).columns
    ('metric', 'value')
    >>> condition("valu > 30", schema)
    Traceback (most recent call last):
    headwater.errors.UsageError: expression 'valu > 30', at character 1, 'valu > 30': there is no column valu; ...
    """
    node = parse_condition(text)
    typed = _Compiler(text, schema).typed(node)
    if typed.kind not in ("boolean", "null"):
        raise failure(text, node.at, f"a condition is true or false, and this is {typed.kind}")
    return Expression(text, "boolean", read_by(node), _Compiler.as_kind(typed, "boolean"))


@lru_cache(maxsize=512)
def projections(text: str, schema: pa.Schema) -> Mapping[str, Expression]:
    """Return the expressions of `a + b as c, …` by name. Raise UsageError with the place of what is wrong in the text.

    >>> schema = pa.schema({"value": pa.float64()})
    >>> made = projections("value * 1.8 + 32 as value_f", schema)["value_f"]
    >>> made.kind, made.evaluate(pa.table({"value": [100.0]})).to_pylist()
    ('double', [212.0])
    """
    found: dict[str, Expression] = {}
    for name, node in parse_projections(text):
        typed = _Compiler(text, schema).typed(node)
        if typed.kind == "null":
            raise failure(text, node.at, "null alone has no type: write cast(null as double)")
        if name in found:
            raise failure(text, node.at, f"two columns are named {name}")
        found[name] = Expression(text, typed.kind, read_by(node), typed.run)
    return found


@dataclass(frozen=True)
class _Typed:
    kind: str
    run: _Run
    at: int


class _Compiler:
    """Make functions of the nodes of one text."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self._text, self._schema = text, schema

    def typed(self, node: Node) -> _Typed:
        """Return a node's kind and function."""
        kind, run = getattr(self, f"_{node.kind}")(node)
        return _Typed(kind, run, node.at)

    def _literal(self, node: Node) -> tuple[str, _Run]:
        kind = _kind_of_literal(node.value)
        constant = pa.scalar(node.value, kernels.ARROW[kind])
        return kind, lambda _: constant

    def _column(self, node: Node) -> tuple[str, _Run]:
        name = node.name
        if name not in self._schema.names:
            near = difflib.get_close_matches(name, self._schema.names, 1, 0.6)
            more = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._schema.names)}"
            raise failure(self._text, node.at, f"there is no column {name}; {more}")
        kind = _kind_of(self._schema.field(name).type)
        if kind is None:
            what = type_name(self._schema.field(name).type)
            raise failure(self._text, node.at, f"column {name} is {what}, which expressions do not read")
        return kind, lambda table: _read(whole(table.column(name)), kind)

    def _cast(self, node: Node) -> tuple[str, _Run]:
        (one,) = (self.typed(arg) for arg in node.args)
        to = _CASTS.get(node.name)
        if to is None:
            raise failure(self._text, node.at, f"there is no type {node.name}; there are {', '.join(_CASTS)}")
        if to not in _CASTABLE[one.kind]:
            raise failure(self._text, node.at, f"no {to} is made of a {one.kind}")
        return ("long" if to == "int" else to), lambda table: kernels.cast(one.run(table), one.kind, to)

    def _case(self, node: Node) -> tuple[str, _Run]:
        args = [self.typed(arg) for arg in node.args]
        conditions = [self._of_kind(one, "boolean", "a condition").run for one in args[:-1:2]]
        results = [*args[1:-1:2], args[-1]]
        kind = self._common(results)
        runs = [self.as_kind(one, kind) for one in results]

        def run(table: pa.Table) -> Any:
            found = runs[-1](table)
            for when, then in zip(reversed(conditions), reversed(runs[:-1]), strict=True):
                found = kernels.pick(when(table), then(table), found)
            return found

        return kind, run

    def _call(self, node: Node) -> tuple[str, _Run]:
        special = _CALLS.get(node.name)
        if special is not None:
            return special(self, node, [self.typed(arg) for arg in node.args])
        if node.name in kernels.FUNCTIONS:
            return self._function(node)
        return self._operator(node)

    def _function(self, node: Node) -> tuple[str, _Run]:
        self._needs(node, 1, 1)
        of, words = kernels.FUNCTIONS[node.name]
        one = self.typed(node.args[0])
        kind = _taken(of, one.kind)
        if kind is None:
            raise failure(self._text, one.at, f"{node.name} takes {words}, and this is {one.kind}")
        run, (result, function) = self.as_kind(one, kind), of[kind]
        return result, lambda table: function(run(table))

    def _operator(self, node: Node) -> tuple[str, _Run]:
        of = kernels.OPERATORS.get(node.name)
        if of is None:
            known = [*kernels.FUNCTIONS, *(name for name in _CALLS if name.endswith("()"))]
            near = difflib.get_close_matches(node.name, known, 1, 0.6)
            more = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise failure(self._text, node.at, f"there is no function {node.name}; {more}")
        args = [self.typed(arg) for arg in node.args]
        kind = self._common(args)
        if "" in of:
            kind = self._comparable(args)
            function, result = of[""], "boolean"
        else:
            taken = _taken(of, kind)
            if taken is None:
                words = {"boolean": "true or false", "string": "texts: cast(a as string)"}.get(
                    next(iter(of)), "numbers"
                )
                wrong = next((one for one in args if one.kind not in of), args[0])
                raise failure(self._text, wrong.at, f"{node.name} takes {words}, and this is {wrong.kind}")
            function, result, kind = of[taken], taken, taken
        runs = [self.as_kind(one, kind) for one in args]
        return result, lambda table: function(*(run(table) for run in runs))

    def is_null(self, _: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `a is null`."""
        return "boolean", lambda table: pc.is_null(args[0].run(table))

    def distinct(self, _: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `a is distinct from b`."""
        left, right = (self.as_kind(one, self._comparable(args)) for one in args)
        return "boolean", lambda table: kernels.distinct(left(table), right(table))

    def member(self, node: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `a in (1, 2)`."""
        for arg in node.args[1:]:
            constant = arg.args[0] if arg.name == "negative" else arg
            if constant.kind != "literal" or constant.value is None:
                raise failure(self._text, arg.at, "a list of `in` has constants, and no null")
        kind = self._comparable(args)
        among = pa.array([self.as_kind(one, kind)(_NO_TABLE).as_py() for one in args[1:]], kernels.ARROW[kind])
        one = self.as_kind(args[0], kind)
        return "boolean", lambda table: kernels.member(one(table), among)

    def like(self, node: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `a like 'b%'` and the functions that look for a constant text."""
        self._needs(node, 2, 2)
        pattern = node.args[1].value
        if node.args[1].kind != "literal" or not isinstance(pattern, str):
            raise failure(self._text, node.args[1].at, "a constant text was expected here")
        one = self._of_kind(args[0], "string", "a text").run
        function: Callable[..., Any] = _LOOKING[node.name]
        return "boolean", lambda table: function(one(table), pattern)

    def substring(self, node: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `substr(a, 1, 2)`."""
        self._needs(node, 2, 3)
        numbers = [arg.value for arg in node.args[1:]]
        for least, number, arg in zip((1, 0), numbers, node.args[1:], strict=False):
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number < 1 << 31:
                raise failure(self._text, arg.at, f"a constant whole number from {least} on was expected here")
        start, length = int(str(numbers[0])), int(str(numbers[1])) if len(numbers) > 1 else None
        one = self._of_kind(args[0], "string", "a text").run
        return "string", lambda table: kernels.substring(one(table), start, length)

    def choose(self, node: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `coalesce`, `greatest` and `least`, which pass over nulls."""
        self._needs(node, 1, 100)
        kind = self._comparable(args)
        if kind == "boolean" and node.name != "coalesce()":
            raise failure(self._text, node.at, f"{node.name} takes numbers, texts or times")
        runs = [self.as_kind(one, kind) for one in args]
        if node.name == "coalesce()":
            return kind, lambda table: pc.coalesce(*(run(table) for run in runs))
        comparing = pc.greater if node.name == "greatest()" else pc.less

        def better(held: Any, other: Any) -> Any:
            return kernels.pick(comparing(other, held), other, pc.coalesce(held, other))

        return kind, lambda table: reduce(better, (run(table) for run in runs))

    def nullif(self, node: Node, args: list[_Typed]) -> tuple[str, _Run]:
        """Compile `nullif(a, b)`: null where both are equal, else a."""
        self._needs(node, 2, 2)
        kind = self._comparable(args)
        one, other = (self.as_kind(arg, kind) for arg in args)
        nothing, result = pa.scalar(None, kernels.ARROW[args[0].kind]), args[0].run
        return args[0].kind, lambda table: kernels.pick(pc.equal(one(table), other(table)), nothing, result(table))

    def _needs(self, node: Node, least: int, most: int) -> None:
        if not least <= len(node.args) <= most:
            count = str(least) if least == most else f"{least} to {most}"
            raise failure(self._text, node.at, f"{node.name} has {count} arguments, not {len(node.args)}")

    def _of_kind(self, one: _Typed, kind: str, words: str) -> _Typed:
        if one.kind not in (kind, "null"):
            raise failure(self._text, one.at, f"{words} was expected here, and this is {one.kind}")
        return _Typed(kind, self.as_kind(one, kind), one.at)

    def _comparable(self, args: list[_Typed]) -> str:
        """Return the kind that all values can be compared in; nothing but nulls are compared as whole numbers."""
        kind = self._common(args)
        return "long" if kind == "null" else kind

    def _common(self, args: list[_Typed]) -> str:
        """Return the kind that all values can be compared in."""
        kind = args[0].kind
        for one in args[1:]:
            found = _common_kind(kind, one.kind)
            if found is None:
                hint = ": a constant is written timestamp '2026-03-01T12:00:00Z' or date '2026-03-01'"
                of_time = "string" in (kind, one.kind) and {kind, one.kind} & {"timestamp", "timestamp_us", "date"}
                why = f"a {kind} and a {one.kind} do not go together{hint if of_time else ''}"
                raise failure(self._text, one.at, why)
            kind = found
        return kind

    @staticmethod
    def as_kind(one: _Typed, kind: str) -> _Run:
        """Return the function with its values in another kind, which holds them all."""
        if one.kind == kind:
            return one.run
        return lambda table: one.run(table).cast(kernels.ARROW[kind], safe=False)


def _taken(of: Collection[str], kind: str) -> str | None:
    """Return the kind among `of` that values of a kind are taken as; None where they are refused."""
    if kind == "null":
        return next(iter(of))
    if kind == "long" and "long" not in of:
        return "double" if "double" in of else None
    return kind if kind in of else None


_NO_TABLE = pa.table({})
_LOOKING: dict[str, Any] = {
    "like": kernels.like,
    "starts_with()": pc.starts_with,
    "ends_with()": pc.ends_with,
    "contains()": pc.match_substring,
}
_CALLS: dict[str, Callable[[_Compiler, Node, list[_Typed]], tuple[str, _Run]]] = {
    "is null": _Compiler.is_null,
    "is distinct from": _Compiler.distinct,
    "in": _Compiler.member,
    "nullif()": _Compiler.nullif,
    "substr()": _Compiler.substring,
    **dict.fromkeys(_LOOKING, _Compiler.like),
    **dict.fromkeys(("coalesce()", "greatest()", "least()"), _Compiler.choose),
}
_WIDER = {
    frozenset({"long", "double"}): "double",
    frozenset({"timestamp", "timestamp_us"}): "timestamp_us",
    frozenset({"timestamp", "date"}): "timestamp",
    frozenset({"timestamp_us", "date"}): "timestamp_us",
}


def _common_kind(one: str, other: str) -> str | None:
    if one == other or other == "null":
        return one
    return other if one == "null" else _WIDER.get(frozenset({one, other}))


def _kind_of_literal(value: Any) -> str:
    if hasattr(value, "microsecond"):
        return "timestamp_us" if value.microsecond % 1000 else "timestamp"
    names = {bool: "boolean", int: "long", float: "double", str: "string", type(None): "null"}
    return names.get(type(value), "date")


def _kind_of(arrow: pa.DataType) -> str | None:
    """Return the kind of a column's values; None for a type that expressions do not read."""
    kinds = pa.types
    plain = arrow.value_type if kinds.is_dictionary(arrow) else arrow
    if kinds.is_timestamp(plain):
        return "timestamp" if plain.unit in ("s", "ms") else "timestamp_us"
    if kinds.is_floating(plain) or kinds.is_decimal(plain):
        return "double"
    if kinds.is_integer(plain):
        return "long"
    if kinds.is_string(plain) or kinds.is_large_string(plain):
        return "string"
    return {pa.bool_(): "boolean", TYPES["date"]: "date", pa.null(): "null"}.get(plain)


def _read(column: pa.Array, kind: str) -> pa.Array:
    """Return a column's values as values of its kind; NaN is null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())  # by its digits: Arrow's own conversion is not to the nearest double
    found = column.cast(kernels.ARROW[kind], safe=False)
    if kind == "double" and pc.any(pc.is_nan(found)).as_py():
        return pc.if_else(pc.is_nan(found), pa.scalar(None, pa.float64()), found)
    return found
