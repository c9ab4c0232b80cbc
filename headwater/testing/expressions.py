"""Evaluate DynamoDB's condition, projection and update expressions over items in wire format (`{"S": "…"}`).

Here belong the grammar and the limits of the texts. Tables, keys, items' sizes and errors of the client belong in
`dynamodb`; this module raises `Invalid` with the service's message, and NotImplementedError for grammar that neither
the ledger nor the views use, because an expression that is silently read otherwise would make a test lie.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

__all__ = ["Invalid", "check_expressions", "copied", "holds", "projected", "updated"]

Item = dict[str, Any]
Values = Mapping[str, Any]

MAX_EXPRESSION_BYTES = 4096
MAX_VALUES_BYTES = 2 << 20
MAX_OPERATORS = 300
"""All three from "Expression parameters" in the quotas of the developer guide
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html)."""

_EXPRESSIONS = (
    "ConditionExpression",
    "UpdateExpression",
    "ProjectionExpression",
    "KeyConditionExpression",
    "FilterExpression",
)
_TOKEN = re.compile(r"\s*(<=|>=|<>|[=<>(),]|[#:\w.\[\]]+)")
_PLACEHOLDER = re.compile(r"[#:]\w+")
_OPERATOR = re.compile(r"<=|>=|<>|[=<>+]|\b(?:AND|OR|NOT|BETWEEN|IN)\b|\b\w+\(")
_COMMA = re.compile(r",\s*(?![^()]*\))")


class Invalid(Exception):
    """Say what the service would say in a ValidationException."""


def check_expressions(options: Values, value_bytes: int) -> None:
    """Raise Invalid when a request's expressions break a limit of the service or its rules on placeholders.

    `value_bytes` is the size of the substituted values together. Each placeholder that is defined has to be used and
    each that is used has to be defined, as the service demands.
    """
    used: set[str] = set()
    for kind in _EXPRESSIONS:
        text = options.get(kind)
        if text is None:
            continue
        if not text:
            raise Invalid(f"Invalid {kind}: The expression can not be empty;")
        if len(text.encode()) > MAX_EXPRESSION_BYTES:
            raise Invalid(
                f"Invalid {kind}: Expression size has exceeded the maximum allowed size; "
                f"expression size: {len(text.encode())}"
            )
        if len(_OPERATOR.findall(text)) > MAX_OPERATORS:
            raise Invalid(
                f"Invalid {kind}: The expression contains too many operators; operator count: "
                f"{len(_OPERATOR.findall(text))}"
            )
        used |= set(_PLACEHOLDER.findall(text))
    if value_bytes > MAX_VALUES_BYTES:
        raise Invalid("ExpressionAttributeValues exceeds max size")
    for kind in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        given = options.get(kind)
        if given is not None and not given:
            raise Invalid(f"{kind} must not be empty")
        if unused := sorted(set(given or ()) - used):
            raise Invalid(f"Value provided in {kind} unused in expressions: keys: {{{', '.join(unused)}}}")
        used -= set(given or ())
    if used:
        raise Invalid(f"An expression attribute used in an expression is not defined; attribute: {min(used)}")


def holds(text: str, options: Values, item: Values | None) -> bool:
    """Return whether a condition, key condition or filter holds for an item; None is an item that is not there.

    >>> holds("rev = :r AND attribute_exists(pk)", {"ExpressionAttributeValues": {":r": {"N": "1"}}},
    ...       {"pk": {"S": "a"}, "rev": {"N": "1.0"}})
    True
    """
    return _ConditionParser(text, options).holds(item)


def projected(item: Item, options: Values) -> Item:
    """Return the attributes of an item that a ProjectionExpression names, or the whole item when there is none."""
    text = options.get("ProjectionExpression")
    if text is None:
        return item
    names = options.get("ExpressionAttributeNames", {})
    wanted = [names.get(name.strip(), name.strip()) for name in text.split(",")]
    if any(not re.fullmatch(r"\w+", name) for name in wanted):
        raise NotImplementedError(f"projection: {text}")
    return {name: item[name] for name in wanted if name in item}


def updated(item: Item, options: Values) -> Item:
    """Return an item after an UpdateExpression of SET, REMOVE and ADD clauses; the given one is left as it was.

    >>> options = {"UpdateExpression": "SET a = :b REMOVE c[0]", "ExpressionAttributeValues": {":b": {"S": "new"}}}
    >>> updated({"c": {"L": [{"N": "1"}, {"N": "2"}]}}, options)
    {'c': {'L': [{'N': '2'}]}, 'a': {'S': 'new'}}
    """
    names, values = options.get("ExpressionAttributeNames", {}), options.get("ExpressionAttributeValues", {})
    changed: Item = copied(item)
    removed: dict[str, set[int]] = {}
    for verb, clause in _clauses(options["UpdateExpression"]):
        if verb == "SET":
            name, _, value = clause.partition("=")
            changed[names.get(name.strip(), name.strip())] = _evaluated(value.strip(), item, names, values)
            continue
        if verb == "ADD":
            name, _, value = clause.strip().partition(" ")
            name = names.get(name, name)
            changed[name] = _sum(item.get(name, {"N": "0"}), values[value.strip()])
            continue
        match = re.fullmatch(r"([#\w]+)(?:\[(\d+)\])?", clause.strip())
        if match is None:
            raise NotImplementedError(f"REMOVE {clause}")
        name = names.get(match[1], match[1])
        if match[2] is None:
            changed.pop(name, None)
        else:
            removed.setdefault(name, set()).add(int(match[2]))
    # indexes are those of the list before the update, whichever of them go
    for name, places in removed.items():
        changed[name] = {"L": [one for at, one in enumerate(changed[name]["L"]) if at not in places]}
    return changed


def copied(value: Any) -> Any:
    """Return a copy of a value in wire format: several times faster than deepcopy, which knows no such shape."""
    if isinstance(value, dict):
        # most of it are texts, which are their own copies: a call for each would take half of the time
        return {name: one if isinstance(one, str | bytes) else copied(one) for name, one in value.items()}
    if isinstance(value, list):
        return [copied(one) for one in value]
    return value


def _clauses(text: str) -> Iterator[tuple[str, str]]:
    found = re.findall(r"(SET|REMOVE|ADD)\s+(.*?)(?=\s+(?:SET|REMOVE|ADD|DELETE)\s|$)", text)
    if not found or re.search(r"(?:^|\s)DELETE\s", text):
        raise NotImplementedError(text)
    for verb, body in found:
        for clause in _COMMA.split(body):
            yield verb, clause


def _sum(first: Values, second: Values) -> dict[str, str]:
    if "N" not in second:
        raise NotImplementedError("ADD of what is no number")
    if "N" not in first:
        raise Invalid("An operand in the update expression has an incorrect data type")
    return {"N": str(Decimal(first["N"]) + Decimal(second["N"]))}


def _evaluated(text: str, item: Values, names: Values, values: Values) -> Any:
    call = re.fullmatch(r"(\w+)\((.*)\)", text)
    if call is None:
        name = names.get(text, text)
        if not re.fullmatch(r"[:\w]+", name):
            raise NotImplementedError(text)
        if not text.startswith(":") and name not in item:
            raise Invalid("The provided expression refers to an attribute that does not exist in the item")
        return copied(values[text] if text.startswith(":") else item[name])
    first, second = _COMMA.split(call[2])
    if call[1] == "if_not_exists":
        name = names.get(first, first)
        return copied(item[name]) if name in item else _evaluated(second, item, names, values)
    if call[1] == "list_append":
        lists = _evaluated(first, item, names, values), _evaluated(second, item, names, values)
        return {"L": lists[0]["L"] + lists[1]["L"]}
    raise NotImplementedError(text)


class _ConditionParser:
    """`a = :b AND (begins_with(c, :d) OR attribute_not_exists(e))`: comparisons, BETWEEN, AND, OR, three functions."""

    def __init__(self, text: str, options: Values) -> None:
        self._tokens = _TOKEN.findall(text)
        self._names = options.get("ExpressionAttributeNames", {})
        self._values = options.get("ExpressionAttributeValues", {})

    def holds(self, item: Values | None) -> bool:
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
        if token == "NOT" or self._peek() == "(":
            raise NotImplementedError(f"condition: {' '.join(self._tokens)}")
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
            return first is not None and str(first["S"]).startswith(prefix["S"])  # type: ignore[index]  # an item's value is a map of one type
        self._next()
        return (first is None) == (name == "attribute_not_exists")

    def _operand(self, token: str) -> Values | None:
        if token.startswith(":"):
            value: Values = self._values[token]
            return value
        return self._item.get(self._names.get(token, token))

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> str:
        self._at += 1
        token: str = self._tokens[self._at - 1]
        return token


def _compare(left: Values | None, operator: str, right: Values | None) -> bool:
    # an attribute that is not there equals nothing, and differs from everything
    if left is None or right is None:
        return operator == "<>"
    (kind, a), (other, b) = next(iter(left.items())), next(iter(right.items()))
    if kind != other:
        return operator == "<>"
    if kind == "N":
        a, b = Decimal(a), Decimal(b)
    tests = {"=": a == b, "<>": a != b}
    if operator in tests:
        return bool(tests[operator])
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])
