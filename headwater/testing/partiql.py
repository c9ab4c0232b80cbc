"""Run PartiQL's INSERT and UPDATE of one whole item each against an in-memory table, as a BatchExecuteStatement does.

Here belong the grammar that headwater uses and the errors of single statements. Another statement raises
NotImplementedError, as whatever the in-memory table does not know, rather than doing something else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headwater.testing.expressions import Invalid, copied
from headwater.testing.items import Item, ItemTable

__all__ = ["execute"]

MAX_STATEMENTS = 25
_INSERT = re.compile(r"INSERT INTO \"([\w.-]+)\" VALUE \{((?:'\w+': \?(?:, )?)+)\}", re.ASCII)
_UPDATE = re.compile(r"UPDATE \"([\w.-]+)\"((?: SET \"\w+\" = \?| REMOVE \"\w+\")+) WHERE (.+)", re.ASCII)
_CLAUSE = re.compile(r" (?:SET \"(\w+)\" = \?|REMOVE \"(\w+)\")", re.ASCII)
_EQUAL = re.compile(r"\"(\w+)\" = \?", re.ASCII)


def execute(
    statements: Sequence[Mapping[str, Any]], table_of: Callable[[str], ItemTable], now_ms: int
) -> list[dict[str, Any]]:
    """Run up to 25 statements, each for itself, and return what became of each. Raise Invalid for wrong requests."""
    if not 1 <= len(statements) <= MAX_STATEMENTS:
        raise Invalid(f"Member must have length less than or equal to {MAX_STATEMENTS}")
    changes = [_change(one) for one in statements]
    named = [(one.table, *(str(one.named.get(key)) for key in table_of(one.table).keys)) for one in changes]
    if len(set(named)) < len(named):
        raise Invalid("Provided list of item keys contains duplicates")
    told = [one.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" for one in statements]
    return [_executed(one, table_of(one.table), tell, now_ms) for one, tell in zip(changes, told, strict=True)]


def _executed(change: "_ItemChange", table: ItemTable, tell: bool, now_ms: int) -> dict[str, Any]:
    """Run one statement; return its part of the answer."""
    error = dict[str, Any]()
    try:
        at = table.place(change.named)
        old = table.get(at)
        if code := change.refusal(table.keys, old):
            error = {"Code": code, "Message": "The conditional request failed"}
            error |= {"Item": copied(old)} if old and tell and code != "DuplicateItem" else {}
        else:
            table.staged(at, change.applied(old), now_ms, "Item size has exceeded the maximum allowed size")()
    except Invalid as invalid:
        error = {"Code": "ValidationError", "Message": str(invalid)}
    return {"TableName": change.table} | ({"Error": error} if error else {})


@dataclass(frozen=True)
class _ItemChange:
    """Hold what a statement does: the attributes that it sets and removes, on which values of which attributes."""

    table: str
    sets: Mapping[str, Any]
    removes: Sequence[str]
    where: Mapping[str, Any] | None
    """None for an INSERT: on condition that there is no item."""

    @property
    def named(self) -> Mapping[str, Any]:
        """Return the attributes that name the item."""
        return self.sets if self.where is None else self.where

    def refusal(self, keys: Sequence[str], old: Item | None) -> str:
        """Return the code of the error by which the statement is refused; empty when it holds."""
        if self.where is None:
            return "DuplicateItem" if old is not None else ""
        same = old is not None and all(old.get(name) == value for name, value in self.where.items())
        return "" if same and set(keys) <= self.where.keys() else "ConditionalCheckFailed"

    def applied(self, old: Item | None) -> Item:
        """Return the item after the statement."""
        kept = {name: value for name, value in (old or {}).items() if name not in self.removes}
        changed: Item = copied(kept | dict(self.sets))
        return changed


def _change(statement: Mapping[str, Any]) -> _ItemChange:
    """Return what a statement of a request does. Raise Invalid where its parameters do not fit."""
    table, sets, removes, where = _parsed(statement["Statement"])
    values = list(statement.get("Parameters", ()))
    if len(values) != len(sets) + len(where or ()):
        raise Invalid("Number of parameters in request and statement don't match.")
    named = None if where is None else dict(zip(where, values[len(sets) :], strict=True))
    return _ItemChange(table, dict(zip(sets, values, strict=False)), removes, named)


@lru_cache(1_000)
def _parsed(text: str) -> tuple[str, Sequence[str], Sequence[str], Sequence[str] | None]:
    """Return table, names that are set, names that are removed, and names that have to be equal."""
    if match := _INSERT.fullmatch(text):
        return match[1], re.findall(r"'(\w+)'", match[2]), (), None
    match = _UPDATE.fullmatch(text)
    where = [_EQUAL.fullmatch(one) for one in match[3].split(" AND ")] if match else []
    if match is None or not all(where):
        raise NotImplementedError(f"the statement {text}")
    clauses = _CLAUSE.findall(match[2])
    sets, removes = [one for one, _ in clauses if one], [one for _, one in clauses if one]
    return match[1], sets, removes, [one[1] for one in where if one]
