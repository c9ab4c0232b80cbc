"""A pipeline's definition: options and aggregates that there are not are refused where they are written."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater import aggregates as agg
from headwater.aggregates import Aggregate
from headwater.aggregates.columns import Columns
from headwater.contract import Contract, parse_contract
from headwater.contract.types import TYPES
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling

CONTRACT = parse_contract(
    "name: every\nversion: 1\nkey: string\ntime: timestamp\nfields:\n"
    + "\n".join(f"  - {{name: '{kind}', type: {kind}}}" for kind in TYPES),
    "every",
)
OF_A_COLUMN: dict[str, Callable[[str], Aggregate]] = {
    "sum": agg.sum,
    "min": agg.min,
    "max": agg.max,
    "mean": agg.mean,
    "variance": agg.variance,
    "first": agg.first,
    "last": agg.last,
    "distinct": agg.distinct,
    "quantile": lambda column: agg.quantile(column, 0.5),
}
VALUES: dict[str, list[Any]] = {
    "string": ["a", "b"],
    "boolean": [True, False],
    "timestamp": [0, 1],
    "date": [0, 1],
    "json": ['{"a": 1}', "2"],
    "uuid": [b"0123456789abcdef", b"fedcba9876543210"],
    "binary": [b"a", b"b"],
}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"alowed_lateness": "10m"}, "'alowed_lateness': did you mean 'allowed_lateness'?"),
        ({"max_futur": "5m"}, "'max_futur': did you mean 'max_future'?"),
        ({"steps": ()}, "'steps': it has name, contract, allowed_lateness, max_future"),
    ],
)
def test_an_unknown_option_of_a_pipeline_is_refused(options: dict[str, Any], named: str) -> None:
    """A misspelt option is no default in silence."""
    with pytest.raises(UsageError, match="pipeline t has no option") as raised:
        Pipeline("t", contract="telemetry", **options)
    assert named in str(raised.value)


def test_what_is_no_aggregate_is_refused_with_the_nearest_option() -> None:
    """A misspelt option of a view is taken for an aggregate by Python, and by nobody else."""
    with pytest.raises(UsageError, match="view v has no option 'windw': did you mean 'window'"):
        Pipeline("t", "telemetry").view("v", by=[], windw=tumbling("1m"), n=agg.count())  # type: ignore[arg-type]  # which is what is refused


def test_durations_of_a_pipeline_are_its_own() -> None:
    """Both durations are options, and survive what is added to the pipeline."""
    made = Pipeline("t", "telemetry", allowed_lateness="10m", max_future="5m").lake("t")
    assert (made.lateness_ms, made.max_future_ms) == (600_000, 300_000)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("function", OF_A_COLUMN)
def test_an_aggregate_is_refused_exactly_when_its_state_could_not_take_the_column_in(function: str, kind: str) -> None:
    """What passes the definition never stops a shard, and nothing that would work is refused."""
    made = OF_A_COLUMN[function](kind)
    column = pa.array(VALUES.get(kind, [1, 2]), TYPES[kind])
    try:
        state = Columns([made])
        state.grow(1)
        state.fold(np.zeros(2, np.int64), pa.table({kind: column}), np.zeros(2, np.int64))
        folds = True
    except UsageError:
        folds = False
    if folds:
        assert Pipeline("t", CONTRACT).view("v", by=[], x=made).views
    else:
        with pytest.raises(UsageError) as raised:
            Pipeline("t", CONTRACT).view("v", by=[], x=made)
        named = "string" if kind == "json" else kind  # JSON is a text once it is read
        for part in ("view v", f"x={function}({kind!r})", "numbers or booleans", f"{kind!r} is {named}"):
            assert part in str(raised.value)


def test_a_contract_is_read_where_the_pipeline_is_defined() -> None:
    """A contract that there is not is refused at once, not when the first shard starts."""
    with pytest.raises(UsageError, match="no such contract file"):
        Pipeline("t", "no-such-contract")
    assert isinstance(Pipeline("t", "telemetry").contract, Contract)


@pytest.mark.parametrize("function", OF_A_COLUMN)
def test_an_aggregate_of_a_column_that_is_not_there_is_refused_by_name(function: str) -> None:
    """The commonest slip: it was a KeyError, or the shard's first record."""
    with pytest.raises(UsageError, match=r"view v: x=\w+\('valu'\) has no column 'valu'.*did you mean 'value'\?"):
        Pipeline("t", contract="telemetry").view("v", by=["device"], x=OF_A_COLUMN[function]("valu"))


def test_keys_are_a_list() -> None:
    with pytest.raises(UsageError, match=r"by must be a list of columns, such as \['device'\], not the text 'device'"):
        Pipeline("t", contract="telemetry").view("v", by="device", x=agg.count())
