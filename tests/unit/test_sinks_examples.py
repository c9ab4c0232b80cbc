"""The examples in the docstrings of the sinks show what happens."""

import doctest
from importlib import import_module
from typing import Any

import pytest

from headwater.testing.dynamodb import MemoryDynamoDB
from tests.views import VIEW, memory, partial, store, upsert

MODULES = ["deadletter", "lake.buffer", "lake.partitioning", "views.items", "views.rows", "views.slots", "views.store"]


class Objects:
    """Whole objects in a dictionary."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> str:
        self._bodies[key] = body
        return f"s3://bucket/{key}"

    def get(self, key: str) -> bytes:
        return self._bodies[key]

    def list(self, prefix: str) -> list[str]:
        return sorted(key for key in self._bodies if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self._bodies.pop(key, None)


def with_rows() -> MemoryDynamoDB:
    """A table with a minute of two devices: three events and two."""
    dynamodb = memory()
    store(dynamodb).write(VIEW, [upsert("d1", "shard-0/0", 9), upsert("d2", "shard-0/0", 8)])
    return dynamodb


@pytest.mark.parametrize("name", MODULES)
def test_every_example_gives_what_it_says(name: str) -> None:
    """Each on objects of its own; a module in the list has at least one."""
    module = import_module(f"headwater.sinks.{name}")
    examples = [found for found in doctest.DocTestFinder().find(module) if found.examples]
    assert examples
    for example in examples:
        given: dict[str, Any] = {"dynamodb": with_rows(), "view": VIEW, "partial": partial(1), "objects": Objects()}
        example.globs.update(given)
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0
