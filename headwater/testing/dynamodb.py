"""An in-memory DynamoDB with the boto3 client's calls, as far as the ledger and the views use them.

Single items only: conditions are checked and the write takes place in one step, as the service promises. Values are in
the wire format (`{"S": "…"}`). Whatever is not supported raises NotImplementedError rather than doing something else.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from threading import Lock
from typing import Any

from botocore.exceptions import ClientError

__all__ = ["MemoryDynamoDB"]

Item = dict[str, Any]
_TOKEN = re.compile(r"\s*(<=|>=|<>|[=<>(),]|[#:\w.\[\]]+)")


class MemoryDynamoDB:
    """Tables by name; each with a hash key and, maybe, a range key, both strings."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[list[str], _Items]] = {}
        self._lock = Lock()

    def create_table(self, *, TableName: str, KeySchema: list[dict[str, str]], **_: Any) -> dict[str, Any]:  # noqa: N803
        self._tables[TableName] = ([key["AttributeName"] for key in KeySchema], _Items())
        return {}

    def get_item(self, *, TableName: str, Key: Item, **_: Any) -> dict[str, Any]:  # noqa: N803
        keys, items = self._table(TableName)
        found = items.get(_place(keys, Key))
        return {"Item": _copy(found)} if found else {}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803
        found: dict[str, list[Item]] = {}
        with self._lock:
            for table, request in RequestItems.items():
                keys, items = self._table(table)
                places = [_place(keys, key) for key in request["Keys"]]
                if not 1 <= len(places) <= 100 or len(set(places)) < len(places):
                    raise _error("ValidationException", "1 to 100 keys, each once", "BatchGetItem")
                found[table] = [_copy(item) for item in map(items.get, places) if item]
        return {"Responses": found, "UnprocessedKeys": {}}

    def put_item(self, *, TableName: str, Item: Item, **options: Any) -> dict[str, Any]:  # noqa: N803
        with self._lock:
            keys, items = self._table(TableName)
            at = _place(keys, Item)
            _check(items.get(at), options, "PutItem")
            items.put(at, _copy(Item))
        return {}

    def delete_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:  # noqa: N803
        with self._lock:
            keys, items = self._table(TableName)
            at = _place(keys, Key)
            _check(items.get(at), options, "DeleteItem")
            items.remove(at)
        return {}

    def update_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:  # noqa: N803
        with self._lock:
            keys, items = self._table(TableName)
            at = _place(keys, Key)
            old = items.get(at)
            _check(old, options, "UpdateItem")
            items.put(at, _updated(_copy(old) if old else _copy(Key), options))
        return {}

    def query(self, *, TableName: str, **options: Any) -> dict[str, Any]:  # noqa: N803
        """Of one partition: the condition begins with the hash key's, as in `pk = :p AND …`."""
        _, _, value = options["KeyConditionExpression"].split()[:3]
        partition = options["ExpressionAttributeValues"][value]["S"]
        found = self._matching(TableName, options, "KeyConditionExpression", partition)
        return {"Items": found if options.get("ScanIndexForward", True) else found[::-1]}

    def scan(self, *, TableName: str, **options: Any) -> dict[str, Any]:  # noqa: N803
        return {"Items": self._matching(TableName, options, "FilterExpression")}

    def get_paginator(self, operation: str) -> "_OnePage":
        return _OnePage(getattr(self, operation))

    def _matching(
        self, table: str, options: Mapping[str, Any], expression: str, partition: str | None = None
    ) -> list[Item]:
        with self._lock:
            keys, items = self._table(table)
            start = options.get("ExclusiveStartKey")
            found = [item for at, item in items.ordered(partition) if start is None or at > _place(keys, start)]
            if expression in options:
                test = _Condition(options[expression], options)
                found = [item for item in found if test.holds(item)]
            copied: list[Item] = _copy(found)
            return copied

    def _table(self, name: str) -> tuple[list[str], "_Items"]:
        if name not in self._tables:
            raise _error("ResourceNotFoundException", f"no table {name}", "DynamoDB")
        return self._tables[name]


class _Items:
    """By key, which has the hash key first."""

    def __init__(self) -> None:
        self._partitions: dict[str, dict[tuple[str, ...], Item]] = {}

    def get(self, at: tuple[str, ...]) -> Item | None:
        return self._partitions.get(at[0], {}).get(at)

    def put(self, at: tuple[str, ...], item: Item) -> None:
        self._partitions.setdefault(at[0], {})[at] = item

    def remove(self, at: tuple[str, ...]) -> None:
        self._partitions.get(at[0], {}).pop(at, None)

    def ordered(self, partition: str | None) -> list[tuple[tuple[str, ...], Item]]:
        """Those of one partition, or all."""
        names = sorted(self._partitions) if partition is None else [partition]
        return [entry for name in names for entry in sorted(self._partitions.get(name, {}).items(), key=_first)]


def _first(entry: tuple[tuple[str, ...], Item]) -> tuple[str, ...]:
    return entry[0]


class _OnePage:
    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        yield self._call(**request)


class _Condition:
    """`a = :b AND (begins_with(c, :d) OR attribute_not_exists(e))`: comparisons, BETWEEN, AND, OR, three functions."""

    def __init__(self, text: str, options: Mapping[str, Any]) -> None:
        self._tokens = _TOKEN.findall(text)
        self._names = options.get("ExpressionAttributeNames", {})
        self._values = options.get("ExpressionAttributeValues", {})

    def holds(self, item: Item | None) -> bool:
        self._at, self._item = 0, item or {}
        result = self._any()
        if self._at != len(self._tokens):
            raise NotImplementedError(f"condition: {' '.join(self._tokens)}")
        return result

    def _any(self) -> bool:
        result = self._all()
        while self._peek() == "OR":
            self._next()
            right = self._all()
            result = result or right
        return result

    def _all(self) -> bool:
        result = self._one()
        while self._peek() == "AND":
            self._next()
            right = self._one()
            result = result and right
        return result

    def _one(self) -> bool:
        token = self._next()
        if token == "(":
            result = self._any()
            self._next()
            return result
        if token in ("attribute_not_exists", "attribute_exists", "begins_with"):
            return self._function(token)
        left = self._operand(token)
        operator = self._next()
        if operator == "BETWEEN":
            low = _compare(left, ">=", self._operand(self._next()))
            self._next()
            return low & _compare(left, "<=", self._operand(self._next()))
        return _compare(left, operator, self._operand(self._next()))

    def _function(self, name: str) -> bool:
        self._next()
        first = self._operand(self._next())
        if name == "begins_with":
            self._next()
            prefix = self._operand(self._next())
            self._next()
            return first is not None and str(first["S"]).startswith(prefix["S"])  # type: ignore[index]
        self._next()
        return (first is None) == (name == "attribute_not_exists")

    def _operand(self, token: str) -> Mapping[str, Any] | None:
        if token.startswith(":"):
            value: Mapping[str, Any] = self._values[token]
            return value
        return self._item.get(self._names.get(token, token))

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> str:
        self._at += 1
        token: str = self._tokens[self._at - 1]
        return token


def _copy(value: Any) -> Any:
    """Of wire format: dicts and lists all the way down, and what cannot change. Several times faster than deepcopy."""
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_copy(one) for one in value]
    return value


def _compare(left: Mapping[str, Any] | None, operator: str, right: Mapping[str, Any] | None) -> bool:
    if left is None or right is None:
        return False
    (kind, a), (other, b) = next(iter(left.items())), next(iter(right.items()))
    if kind != other:
        return operator == "<>"
    if kind == "N":
        a, b = float(a), float(b)
    tests = {"=": a == b, "<>": a != b}
    if operator in tests:
        return bool(tests[operator])
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])


def _updated(item: Item, options: Mapping[str, Any]) -> Item:
    """SET a = :b, c = list_append(if_not_exists(c, :d), :e) REMOVE f, g[0]"""
    names, values = options.get("ExpressionAttributeNames", {}), options.get("ExpressionAttributeValues", {})
    before = _copy(item)
    removed: dict[str, set[int]] = {}
    for verb, body in re.findall(r"(SET|REMOVE)\s+(.*?)(?=\s+(?:SET|REMOVE)\s|$)", options["UpdateExpression"]):
        for clause in re.split(r",\s*(?![^()]*\))", body):
            if verb == "SET":
                name, _, value = clause.partition("=")
                item[names.get(name.strip(), name.strip())] = _evaluate(value.strip(), before, names, values)
                continue
            match = re.fullmatch(r"([#\w]+)(?:\[(\d+)\])?", clause.strip())
            if match is None:
                raise NotImplementedError(f"REMOVE {clause}")
            name = names.get(match[1], match[1])
            if match[2] is None:
                item.pop(name, None)
            else:
                removed.setdefault(name, set()).add(int(match[2]))
    for name, places in removed.items():
        item[name] = {"L": [one for at, one in enumerate(item[name]["L"]) if at not in places]}
    return item


def _evaluate(text: str, item: Item, names: Mapping[str, str], values: Mapping[str, Any]) -> Any:
    call = re.fullmatch(r"(\w+)\((.*)\)", text)
    if call is None:
        return _copy(values[text] if text.startswith(":") else item[names.get(text, text)])
    first, second = re.split(r",\s*(?![^()]*\))", call[2])
    if call[1] == "if_not_exists":
        name = names.get(first, first)
        return _copy(item[name]) if name in item else _evaluate(second, item, names, values)
    if call[1] == "list_append":
        return {"L": _evaluate(first, item, names, values)["L"] + _evaluate(second, item, names, values)["L"]}
    raise NotImplementedError(text)


def _check(item: Item | None, options: Mapping[str, Any], operation: str) -> None:
    condition = options.get("ConditionExpression")
    if condition is None or _Condition(condition, options).holds(item):
        return
    error = _error("ConditionalCheckFailedException", "The conditional request failed", operation)
    if item is not None and options.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
        error.response["Item"] = _copy(item)  # type: ignore[typeddict-unknown-key]
    raise error


def _error(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def _place(keys: list[str], item: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(item[key]["S"] for key in keys)
