"""Hold events on their way through a pipeline's steps: a table and what the engine knows of each row. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, coded
from headwater.processors.definition.parts import Step
from headwater.processors.operators.dedupe import Identities

__all__ = ["EventRows", "concat_rows"]


@dataclass(frozen=True)
class EventRows:
    """Hold events, all columns of one length: `record` is the index of each one's record in the call, `row` its place
    in the record, and `max_ts_before` the highest event time in the records before its own.
    """

    table: pa.Table
    identities: Identities
    record: Ints
    row: Ints
    arrived: Ints
    max_ts_before: Ints

    def at(self, mask: Mask) -> "EventRows":
        """Return the events where the mask is true."""
        if mask.all():
            return self
        keep = pa.array(mask)
        i = self.identities
        return EventRows(
            self.table.filter(keep),
            Identities(i.origin.filter(keep), i.seq[mask], i.codes[mask]),
            self.record[mask],
            self.row[mask],
            self.arrived[mask],
            self.max_ts_before[mask],
        )

    def with_table(self, table: pa.Table) -> "EventRows":
        """Return the same events with other columns."""
        return replace(self, table=table)

    def empty_after(self, step: Step) -> "EventRows":
        """Return no events, with the columns that the step adds."""
        table = self.at(np.zeros(self.table.num_rows, np.bool_)).table if self.table.num_rows else self.table
        for added in step.adds():
            table = table.append_column(added, pa.array([], added.type))
        return self.at(np.zeros(self.table.num_rows, np.bool_)).with_table(table)

    def halves(self) -> tuple["EventRows", "EventRows"]:
        """Return the events in two parts."""
        first = np.arange(self.table.num_rows) < self.table.num_rows // 2
        return self.at(first), self.at(~first)


def concat_rows(parts: Sequence[EventRows]) -> EventRows:
    """Concatenate parts into one."""
    if len(parts) == 1:
        return parts[0]
    return EventRows(
        pa.concat_tables([part.table for part in parts], promote_options="permissive")
        .unify_dictionaries()
        .combine_chunks(),
        Identities(
            coded(pa.chunked_array([part.identities.origin for part in parts])),
            np.concatenate([part.identities.seq for part in parts]),
            np.concatenate([part.identities.codes for part in parts]),
        ),
        np.concatenate([part.record for part in parts]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.arrived for part in parts]),
        np.concatenate([part.max_ts_before for part in parts]),
    )
