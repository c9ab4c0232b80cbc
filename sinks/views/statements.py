"""Say conditional puts of whole items in PartiQL, of which DynamoDB takes 25 in one request. Pure: no I/O.

A put in a BatchWriteItem has no condition, one in a transaction costs twice as much; a statement of a
BatchExecuteStatement has both a condition and the price of a put, and each stands for itself.
"""

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_STATEMENTS", "insertion", "replacement"]

MAX_STATEMENTS = 25
_MAX_CHARACTERS = 8_192
"""Statements of a BatchExecuteStatement, and characters of one, from the API reference."""
_PLAIN = re.compile(r"\w+", re.ASCII)
"""Names that mean themselves between quotes. Items with others are put by themselves."""

Statement = dict[str, Any]


def insertion(table: str, item: Mapping[str, Any]) -> Statement | None:
    """Return the statement that puts an item where none has its key; None for an item that no statement can put.

    >>> insertion("t", {"pk": {"S": "a"}, "n": {"N": "1"}})
    {'Statement': 'INSERT INTO "t" VALUE {\\'pk\\': ?, \\'n\\': ?}', 'Parameters': [{'S': 'a'}, {'N': '1'}]}
    """
    values = ", ".join(f"'{name}': ?" for name in item)
    return _statement(f'INSERT INTO "{table}" VALUE {{{values}}}', item, list(item.values()))


def replacement(table: str, item: Mapping[str, Any], rev: int, without: frozenset[str]) -> Statement | None:
    """Return the statement that puts an item in the place of the one with this revision; None as `insertion` does.

    `without` names the attributes that the other may have beside those of this one.
    """
    values = {name: value for name, value in item.items() if name not in ("pk", "sk")}
    changes = "".join(f' SET "{name}" = ?' for name in values)
    changes += "".join(f' REMOVE "{name}"' for name in sorted(without - item.keys()))
    text = f'UPDATE "{table}"{changes} WHERE "pk" = ? AND "sk" = ? AND "rev" = ?'
    return _statement(text, item, [*values.values(), item["pk"], item["sk"], {"N": str(rev)}])


def _statement(text: str, names: Mapping[str, Any], parameters: list[Any]) -> Statement | None:
    if len(text) > _MAX_CHARACTERS or not all(map(_PLAIN.fullmatch, names)):
        return None
    return {"Statement": text, "Parameters": parameters}
