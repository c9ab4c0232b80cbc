"""Rows of views' tables: values of every type in columns that hold them."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from headwater.aggregates import distinct, first, mean, quantile
from headwater.aggregates import max as max_of
from headwater.aggregates import sum as sum_of
from headwater.aggregates.merging import encode
from headwater.contract import parse_contract
from headwater.contract.iceberg import plain_columns
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.operators.aggregate import Partial, ViewState
from headwater.processors.rebuild.from_lake import fold
from headwater.processors.viewtables.rows import column_docs, table_columns, table_rows

TYPES = """
{name: c, version: 1, key: u, time: m, fields: [
  {name: u, type: uuid}, {name: m, type: timestamp_us}, {name: d, type: 'decimal(9, 2)'}, {name: t, type: time},
  {name: day, type: date}, {name: n, type: long}, {name: i, type: int}, {name: f, type: float},
  {name: b, type: boolean}, {name: s, type: string, required: false}]}
"""


def test_values_of_every_type_have_a_column_that_holds_them() -> None:
    """As keys and as values; what no column holds is null and named."""
    of = parse_contract(TYPES, "c")
    names = [one.name for one in of.fields]
    values: dict[str, Any] = {f"first_{name}": first(name) for name in names} | {
        f"max_{name}": max_of(name) for name in names
    }
    values |= {f"sum_{name}": sum_of(name) for name in ("d", "n", "i", "f", "b")}
    values |= {"mean_d": mean("d"), "distinct_u": distinct("u"), "p_n": quantile("n", 0.5)}
    view = Pipeline("p", contract=of).view("v", by=names, window=tumbling("1m"), table="v", **values).views[0]
    row = {
        "u": UUID(int=7),
        "m": datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC),
        "d": Decimal("12.30"),
        "t": time(3, 4, 5, 678_901),
        "day": date(2026, 3, 1),
        "n": 2**63 - 1,
        "i": -3,
        "f": 0.5,
        "b": True,
        "s": None,
    }
    rows = pa.table({one.name: pa.array([as_held(row[one.name])] * 2, one.arrow_type) for one in of.fields})
    state = ViewState(view, 0)
    fold(state, rows, Pipeline("p", contract=of), 1)
    columns = table_columns(view, of.arrow_schema)
    made, unfit = table_rows(view, columns, state.dirty(), 5)
    assert unfit == []
    (got,) = made.to_pylist()
    for name in names:
        for column in (name, f"first_{name}", f"max_{name}"):
            assert got[column] == as_held(row[name]), column
    sums = {"sum_d": Decimal("24.60"), "sum_n": 2 * (2**63 - 1), "sum_i": -6, "sum_f": 1.0, "sum_b": 2}
    assert {name: got[name] for name in sums} == sums
    assert (got["mean_d"], got["distinct_u"], got["_revision"]) == (12.3, 1, 5)
    plain_columns(columns, column_docs(view))
    wide = Partial(("k",), 0, 60_000, 0, "", encode([1, {"n": "1" + 40 * "0"}]))
    narrow = View("w", ("s",), (sum_of("d", "total"),), tumbling("1m"))
    made, unfit = table_rows(narrow, table_columns(narrow, of.arrow_schema), [wide], 1)
    assert (made["total"].to_pylist(), unfit) == ([None], ["total: 1" + 40 * "0"])


def as_held(value: object) -> object:
    return value.bytes if isinstance(value, UUID) else value
