"""Whatever of a wrong type is given to the public API is refused where it is written, in one line that names it.

The table below has a call that is right for every callable of `headwater.__all__` and for each of its parameters the
kind of value that it takes. A callable or parameter that is missing in it fails the test, so that none is forgotten.
"""

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import headwater
from headwater import (
    Aggregate,
    Contract,
    HeadwaterError,
    Pipeline,
    Producer,
    ProducerSettings,
    Reference,
    Window,
    above,
    count,
    load_contract,
    mean,
    tumbling,
)
from headwater.errors import UsageError
from tests.producer_stream import FakeStream

POOL: dict[str, Any] = {
    "None": None,
    "True": True,
    "5": 5,
    "1.5": 1.5,
    "Decimal": Decimal(3),
    "text": "~nothing/is named so~",
    "bytes": b"abc",
    "list": [],
    "list of numbers": [1, 2],
    "dict": {},
    "dict of numbers": {1: 2},
    "set": {"device"},
    "object": object(),
    "function": lambda: None,
    "class": int,
    "Path": Path("nowhere"),
    "table": pa.table({"a": [1]}),
    "window": tumbling("1m"),
    "aggregate": count(),
}
RIGHT: dict[str, set[str]] = {
    "text": set(),  # every text in the pool is no name of anything
    "free text": {"text"},
    "unit": {"None"},
    "numbers": {"list", "list of numbers"},
    "whole": {"5"},
    "number": {"5", "1.5"},
    "flag": {"True"},
    "bytes": {"bytes"},
    "texts": {"list"},
    "columns": {"dict"},
    "function": {"function", "class"},
    "client": {"function", "class"},
    "path": {"Path", "text"},
    "contract": {"Path"},
    "window": {"window"},
    "aggregate": {"aggregate"},
    "event": set(),
    "events": set(),
    "own": set(),
    "list of own": {"list"},
}
"""For each kind of parameter what in the pool it takes, besides None where that is the default."""
PLANT = Pipeline("plant", contract="telemetry").view("m", by=["device"], window=tumbling("1m"), mean=mean("value"))
DEVICES = Reference("devices", "devices.csv", key="device", columns={"site": "string"})
TELEMETRY = load_contract("telemetry")
_FIELD = {"field": "free text", "name": "free text", "where": "free text"}
_THRESHOLD = {"column": "free text", "limit": "number", "clear": "number"}
_SETTINGS = {
    one: "number" if one.endswith("_seconds") else "flag" if one in ("ordered", "receipts") else "whole"
    for one in inspect.signature(ProducerSettings).parameters
} | dict.fromkeys(("format", "when_full", "outbox_survives"), "text")

Call = tuple[Callable[..., Any], Mapping[str, Any], Mapping[str, str]]


def producer() -> Producer:
    return Producer("s", "telemetry", client=FakeStream())


def calls() -> dict[str, Call]:
    """Return for each callable a right call, and the kinds of its parameters."""
    fields = {"column": "v", "limit": 1.0}
    found: dict[str, Call] = {
        "Contract": (
            Contract,
            {"name": "a", "version": 1, "fields": TELEMETRY.fields, "key": "device", "time": "ts"},
            {"name": "text", "version": "whole", "fields": "own", "key": "text", "time": "text", "id": "own"}
            | {"description": "free text", "unknown": "text"},
        ),
        "load_contract": (load_contract, {"path": "telemetry"}, {"path": "text"}),
        "count": (count, {}, {"name": "free text", "where": "free text"}),
        "quantile": (headwater.quantile, {"field": "v", "q": 0.5}, _FIELD | {"q": "own"}),
        "tumbling": (tumbling, {"size": "1m"}, {"size": "text"}),
        "hopping": (headwater.hopping, {"size": "2m", "every": "1m"}, {"size": "text", "every": "text"}),
        "calendar": (headwater.calendar, {"unit": "day", "zone": "UTC"}, {"unit": "text", "zone": "text"}),
        "Window": (
            Window,
            {"size_ms": 5, "every_ms": 5},
            {"size_ms": "whole", "every_ms": "whole", "unit": "own", "zone": "free text"},
        ),
        "Aggregate": (
            Aggregate,
            {"name": "n", "function": "count"},
            {
                "name": "free text",
                "function": "free text",
                "field": "free text",
                "params": "numbers",
                "where": "free text",
            },
        ),
        "Aggregate.named": (count().named, {"name": "n"}, {"name": "free text"}),
        "Reference": (
            Reference,
            {"name": "devices", "source": "devices.csv", "key": "device", "columns": {"site": "string"}},
            {"name": "text", "source": "free text", "key": "free text", "columns": "columns"},
        ),
        "ProducerSettings": (ProducerSettings, {}, _SETTINGS),
        "absent": (headwater.absent, {}, {}),
        "above": (above, fields, _THRESHOLD),
        "below": (headwater.below, fields, _THRESHOLD),
        "rising": (headwater.rising, fields | {"per": "1m"}, _THRESHOLD | {"per": "text"}),
        "falling": (headwater.falling, fields | {"per": "1m"}, _THRESHOLD | {"per": "text"}),
    }
    for name in ("sum", "min", "max", "mean", "variance", "first", "last", "distinct"):
        found[name] = (getattr(headwater, name), {"field": "v"}, _FIELD)
    return found | of_pipelines() | of_producers()


def of_pipelines() -> dict[str, Call]:
    return {
        "Pipeline": (
            Pipeline,
            {"name": "p", "contract": "telemetry"},
            {"name": "text", "contract": "text", "allowed_lateness": "text", "max_future": "text"},
        ),
        "Pipeline.enrich": (
            PLANT.enrich,
            {"reference": DEVICES, "on": "device"},
            {"reference": "own", "on": "text", "prefix": "free text"},
        ),
        "Pipeline.map": (
            PLANT.map,
            {"function": lambda rows: rows, "adds": {"a": "int"}},
            {"function": "function", "adds": "columns", "pandas": "flag", "pure": "flag"},
        ),
        "Pipeline.decode": (PLANT.decode, {"decoder": lambda data: [data]}, {"decoder": "function"}),
        "Pipeline.where": (PLANT.where, {"function": lambda rows: rows}, {"function": "function"}),
        "Pipeline.view": (
            PLANT.view,
            {"name": "v", "by": ["device"], "n": count(), "window": tumbling("1m")},
            {"name": "text", "by": "texts", "window": "window", "keep": "text", "version": "whole", "spread": "whole"}
            | {"n": "aggregate", "table": "text"},
        ),
        "Pipeline.alert": (
            PLANT.alert,
            {"name": "a", "on": "m", "when": above("mean", 1)},
            {"name": "text", "on": "text", "when": "own", "for_": "text", "summary": "free text"},
        ),
        "Pipeline.to_stream": (
            PLANT.to_stream,
            {"stream": "s", "contract": TELEMETRY},
            {"stream": "text", "contract": "own", "where": "function"},
        ),
        "Pipeline.lake": (PLANT.lake, {"table": "t"}, {"table": "text", "partition": "unit", "buckets": "whole"}),
        "Pipeline.definition": (
            PLANT.definition,
            {"name": "m", "version": 1},
            {"name": "free text", "version": "whole"},
        ),
        "Pipeline.having": (PLANT.having, {"views": PLANT.views}, {"views": "list of own"}),
    }


def awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function as one that is called."""

    @functools.wraps(method)
    def call(**given: Any) -> Any:
        return asyncio.run(method(**given))

    return call


def of_producers() -> dict[str, Call]:
    event = {"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.0}
    return {
        "Producer": (
            Producer,
            {"stream": "s", "contract": TELEMETRY, "client": FakeStream()},
            {"stream": "text", "contract": "text", "client": "client", "settings": "own", "outbox": "path"}
            | {"on_delivery": "function", "runtime": "own", "control_key": "bytes"},
        ),
        "Producer.put": (producer().put, {"event": event}, {"event": "event"}),
        "Producer.put_batch": (
            producer().put_batch,
            {"events": pa.Table.from_pylist([], schema=TELEMETRY.arrow_schema)},
            {"events": "events"},
        ),
        "Producer.flush": (producer().flush, {}, {"timeout": "number"}),
        "Producer.close": (producer().close, {}, {}),
        "Producer.aput": (awaited(producer().aput), {"event": event}, {"event": "event"}),
        "Producer.aflush": (awaited(producer().aflush), {}, {"timeout": "number"}),
        "Producer.aclose": (awaited(producer().aclose), {}, {}),
    }


CALLS = calls()
RESULTS = {"Receipt", "ProducerStats"}
"""What the library gives out, and nobody makes."""
SETTINGS = {"Settings"}
"""Pydantic checks these, and its error names each field: see test_cli."""


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every callable of the import root, and the public methods of its classes."""
    for name in headwater.__all__:
        found = getattr(headwater, name)
        if name == "__version__" or name in RESULTS | SETTINGS:
            continue
        if not isinstance(found, type):
            yield name, found
        elif not issubclass(found, Exception):
            yield name, found
            yield from _methods(name, found)


def _methods(name: str, of: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    inspected = of in (Pipeline, Producer, Aggregate)
    for method, found in vars(of).items() if inspected else ():
        if inspect.isfunction(found) and not method.startswith("_"):
            yield f"{name}.{method}", found


def test_every_callable_and_parameter_is_in_the_table() -> None:
    """What is added to the API is added here, else this fails."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for name, function in public():
        wanted = {
            one.name
            for one in inspect.signature(function).parameters.values()
            if one.kind not in kinds and one.name != "self"
        }
        assert name in CALLS, f"{name} is in no line of the table"
        missing = wanted - set(CALLS[name][2])
        assert not missing, f"{name}: the table does not say what {missing} take"


@pytest.mark.parametrize("name", CALLS)
def test_the_right_call_is_right(name: str) -> None:
    """Else a wrong one would be refused for another reason."""
    function, right, _ = CALLS[name]
    function(**right)


def wrong() -> Iterator[Any]:
    for name, (function, _, kinds) in CALLS.items():
        signature = inspect.signature(function)
        for parameter, kind in kinds.items():
            default = getattr(signature.parameters.get(parameter), "default", inspect.Parameter.empty)
            for label, value in POOL.items():
                if label not in RIGHT[kind] and not (value is None and default is None):
                    yield pytest.param(name, parameter, value, id=f"{name}-{parameter}-{label}")


@pytest.mark.parametrize(("name", "parameter", "value"), wrong())
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, parameter: str, value: object, tmp_path: Path) -> None:
    """One line of our own errors; never an AttributeError from inside, never silence."""
    function, right, _ = CALLS[name]
    with pytest.raises((HeadwaterError, TypeError)) as raised:
        function(**{**right, parameter: value})
    said = str(raised.value)
    assert "\n" not in said
    assert said.strip()
    if isinstance(raised.value, TypeError):
        assert parameter in said


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["block_seconds", "receipt_seconds", "delivery_seconds"])
def test_a_time_that_is_none_is_refused(name: str, value: float) -> None:
    """A number that no wait can have."""
    with pytest.raises(UsageError, match=name):
        ProducerSettings(**{name: value})  # type: ignore[arg-type]  # by a name that is given


@pytest.mark.parametrize("name", ["", " ", "a/b", "@names", "-a", "a" * 256, "ä", "a\nb", ".."])
def test_odd_names_are_refused(name: str) -> None:
    """They become S3 keys, ledger items and table names."""
    for make in (
        lambda: Pipeline(name, contract="telemetry"),
        lambda: PLANT.lake(name),
        lambda: Reference(name, "a.csv", key="a", columns={}),
    ):
        with pytest.raises(UsageError, match="cannot be named"):
            make()
    with pytest.raises(UsageError, match="cannot be named"):
        PLANT.lake("Readings")


def test_the_table_walks_dataclasses_too() -> None:
    """A dataclass of the import root checks its fields when it is made."""
    made = [one for _, one in public() if isinstance(one, type) and is_dataclass(one)]
    assert {Aggregate, Contract, ProducerSettings, Reference, Window} <= set(made)
