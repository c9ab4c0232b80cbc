"""Choose and shape the events that go on to another stream. Pure.

What goes is decided event by event: by the stream's `where`, by its contract, and by size. An event that should go and
cannot is a dead letter; it stays in the lake and in the views all the same.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, whole
from headwater.contract import conform
from headwater.contract.nestedcolumns import nested_sizes
from headwater.processors.definition.parts import ToStream, Where
from headwater.processors.operators.enrich import apply_where

__all__ = ["MAX_EVENT_BYTES", "Outputs", "chosen", "outputs"]

MAX_EVENT_BYTES = 900_000
"""Largest event that goes on, in bytes of its values: a record of Kinesis holds 1 MiB
(https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html), with the batch's own schema."""


@dataclass(frozen=True)
class Outputs:
    """Hold the events of a call that go on to one stream, in the stream's contract."""

    stream: str
    table: pa.Table
    record: Ints
    """For each event the index of its record in the call."""


def outputs(step: ToStream, table: pa.Table, record: Ints) -> tuple[Outputs, dict[int, str]]:
    """Return what goes on of events that are to go, and for each of the others, by row, why it cannot."""
    wanted = table.select(step.contract.arrow_schema.names)
    found = conform(step.contract, wanted)
    refused = {int(one.index): one.reason for one in found.invalid}
    kept = np.setdiff1d(np.arange(table.num_rows), np.array(sorted(refused), np.int64))
    sizes = _sizes(found.table)
    too_large = np.flatnonzero(sizes > MAX_EVENT_BYTES)
    for at in too_large.tolist():
        refused[int(kept[at])] = (
            f"its {int(sizes[at]):,} bytes are more than the {MAX_EVENT_BYTES:,} that a record holds"
        )
    fits = sizes <= MAX_EVENT_BYTES
    return Outputs(step.stream, found.table.filter(pa.array(fits)), record[kept[fits]]), refused


def _sizes(table: pa.Table) -> Ints:
    """Return the bytes of each row's values; zeros where all rows together are small enough."""
    if table.nbytes <= MAX_EVENT_BYTES:
        return np.zeros(table.num_rows, np.int64)
    none = np.zeros(table.num_rows, np.int64)
    return sum((nested_sizes(whole(column)) for column in table.columns), none)


def chosen(where: Where | None, table: pa.Table) -> tuple[Mask, dict[int, str]]:
    """Return which events a function lets go on, and for each on which it fails, by row, what it raised."""
    if where is None:
        return np.ones(table.num_rows, np.bool_), {}
    try:
        return apply_where(table, where), {}
    except Exception as error:  # a user's function may raise anything
        if table.num_rows == 1:
            return np.zeros(1, np.bool_), {0: f"{type(error).__name__}: {error}"}
    half = table.num_rows // 2
    (first, failed), (second, more) = chosen(where, table.slice(0, half)), chosen(where, table.slice(half))
    return np.concatenate([first, second]), failed | {half + at: why for at, why in more.items()}
