"""Judge Avro schemas: what bytes that are read with one may become in memory, and how deep. Pure.

fastavro follows whatever a schema and the bytes say. An array of nulls takes no bytes for any number of them, and a
record within itself goes as deep as there are bytes, which ends the process once the C stack is full.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from headwater.errors import InvalidRecord

__all__ = ["MOST_OBJECTS", "Judged", "judge"]

MOST_OBJECTS = 2 << 20
"""Records, lists and maps within those that a record's bytes may become: of 250 bytes each."""
_MOST_DEPTH = 64
"""Types within each other, by name or not."""
_NAMED = ("record", "error", "enum", "fixed")


class Judged(NamedTuple):
    """Hold what a schema may come to: `values` that take no byte of their own, `least` bytes, `depth` of the types
    within each other, whether a type is `recursive`, so that only the bytes bound the depth; how many `objects` it is,
    records, lists and maps, and how many a byte of its arrays may become, `dense`."""

    values: int
    least: int
    depth: int
    recursive: bool
    objects: int = 0
    dense: float = 0.0


def judge(schema: Any) -> Judged:
    """Return what a schema may come to. Raise InvalidRecord for one whose bytes bound nothing.

    >>> judge({"type": "record", "name": "r", "fields": [{"name": "n", "type": "null"}]})
    Judged(values=2, least=0, depth=2, recursive=False, objects=1, dense=0.0)
    """
    return _Judge().of(schema, "", 0)


class _Judge:
    """Walk a schema as it is written; each named type is judged where it is defined."""

    def __init__(self) -> None:
        self._named: dict[str, Judged | None] = {}

    def of(self, schema: Any, space: str, depth: int) -> Judged:
        """Judge a type; `space` is the namespace that it stands in."""
        if depth > _MOST_DEPTH:
            raise InvalidRecord(f"an Avro schema of more than {_MOST_DEPTH} types within each other")
        if isinstance(schema, str):
            return self._by_name(schema, space)
        if isinstance(schema, list):
            branches = [self.of(one, space, depth + 1) for one in schema]
            # the number of the branch is a byte
            found = _joined(branches)
            values, least = (
                max((one.values for one in branches), default=0),
                min((one.least for one in branches), default=0),
            )
            objects = max((one.objects for one in branches), default=0)
            return found._replace(values=values - 1, least=1 + least, objects=objects)
        if not isinstance(schema, Mapping):
            raise InvalidRecord("no Avro schema")
        return self._written(schema, space, depth)

    def _written(self, schema: Mapping[str, Any], space: str, depth: int) -> Judged:
        kind = schema.get("type")
        if kind in _NAMED:
            name = _full_name(str(schema.get("name", "")), str(schema.get("namespace") or space))
            self._named[name] = None  # known from here on: what has it within is recursive
            found = self._named[name] = self._definition(kind, schema, name.rpartition(".")[0], depth)
            return found
        if kind in ("array", "map"):
            items = self.of(schema.get("items" if kind == "array" else "values"), space, depth + 1)
            if kind == "array" and not items.least:
                raise InvalidRecord("an Avro schema with an array of values that take no bytes")
            dense = (items.objects + max(items.values, 0)) / max(items.least, 1)
            return Judged(0, 1, items.depth + 1, items.recursive, 1, max(dense, items.dense))
        return self.of(kind, space, depth + 1)

    def _definition(self, kind: Any, schema: Mapping[str, Any], space: str, depth: int) -> Judged:
        if kind == "enum":
            return _ONE_BYTE
        if kind == "fixed":
            size = schema.get("size")
            return _ONE_BYTE if isinstance(size, int) and size > 0 else _NOTHING
        fields = schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(one, Mapping) for one in fields):
            raise InvalidRecord("no Avro schema: a record has fields")
        parts = [self.of(one.get("type"), space, depth + 1) for one in fields]
        values, least = 1 + sum(max(one.values, 0) for one in parts), sum(one.least for one in parts)
        objects = 1 + sum(one.objects for one in parts)
        return _joined(parts)._replace(values=values, least=least, objects=objects)

    def _by_name(self, name: str, space: str) -> Judged:
        if name == "null":
            return _NOTHING
        full = _full_name(name, space)
        full = full if full in self._named else name
        if full not in self._named:
            return _ONE_BYTE  # a primitive type, or a name that fastavro does not know either
        found = self._named[full]
        if found is None:
            return Judged(0, 1, 1, recursive=True, objects=2)
        if found.depth > _MOST_DEPTH:
            raise InvalidRecord(f"an Avro schema of more than {_MOST_DEPTH} types within each other")
        return found


_ONE_BYTE, _NOTHING = Judged(0, 1, 1, recursive=False), Judged(1, 0, 1, recursive=False)


def _joined(parts: list[Judged]) -> Judged:
    depth = 1 + max((one.depth for one in parts), default=0)
    dense = max((one.dense for one in parts), default=0.0)
    return Judged(0, 0, depth, any(one.recursive for one in parts), dense=dense)


def _full_name(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"
