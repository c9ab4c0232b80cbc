"""What is done otherwise in a run because it is quicker, and comes to the same.

pyiceberg reads the schema of each Avro file anew and copies a table's whole metadata for each look at a transaction,
which together took a quarter of a seed's time. Neither a schema, a reader nor metadata is ever changed in place.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

from pyiceberg.avro import file as avro
from pyiceberg.table.metadata import TableMetadataV2
from pyiceberg.utils.concurrent import ExecutorFactory

from tests.simulation.alerting import InlinePool

__all__ = ["quicker"]

_model_copy = TableMetadataV2.model_copy
_get_schema = avro.AvroFileHeader.get_schema


class _Header(avro.AvroFileHeader):  # type: ignore[misc]  # pyiceberg is not looked into
    """A file's header, whose schema is read once for all files of it."""

    def get_schema(self) -> Any:
        return _schema_of(self.meta["avro.schema"])


@lru_cache(maxsize=256)
def _schema_of(text: str) -> Any:
    return _get_schema(avro.AvroFileHeader(b"", {"avro.schema": text}, b""))


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Have a reader made once for the same schemas and types."""
    made: dict[Any, tuple[Any, Any]] = {}

    def reader(*given: Any) -> Any:
        key = tuple(tuple(one.items()) if isinstance(one, dict) else id(one) for one in given)
        if key not in made:
            made[key] = make(*given), given  # what is kept has its id to itself
        return made[key][0]

    return reader


_resolve, _construct = _kept(avro.resolve_reader), _kept(avro.construct_reader)


def _shallow(self: Any, *, update: Any = None, deep: bool = False) -> Any:
    return _model_copy(self, update=update)


@contextmanager
def quicker() -> Iterator[None]:
    """Patch pyiceberg for as long: its threads too, which have nothing to wait for here."""
    with ExitStack() as patches:
        for module, name, new in (
            (avro, "AvroFileHeader", _Header),
            (avro, "resolve_reader", _resolve),
            (avro, "construct_reader", _construct),
            (TableMetadataV2, "model_copy", _shallow),
            (ExecutorFactory, "get_or_create", staticmethod(InlinePool)),
        ):
            patches.enter_context(mock.patch.object(module, name, new))
        yield
