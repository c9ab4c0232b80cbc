"""Audit the values of views: compute rows anew from the lake, and name each that is stored otherwise.

Views run ahead of the lake. So the ledger is read first, then the lake with the files that the ledger names, then the
rows. A row whose slots all lie at or below the positions of the ledger has exactly the events of that lake; another has
moved since and is not judged. What was not judged is counted, so that a check of a busy row never passes in silence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.aggregates.merging import iso_ms
from headwater.ledger import ShardEntry
from headwater.processors.audit.lake import LakeFiles
from headwater.processors.audit.places import Hashes, Place, Places, lowest, place_hash, places_of
from headwater.processors.audit.recount import Recount
from headwater.processors.audit.report import UnreadableFile
from headwater.processors.definition.parts import View
from headwater.processors.generations import Serving
from headwater.processors.ports import PipelineReader
from headwater.processors.rebuild.recompute import close_count, close_rank, equal_values
from headwater.sinks.views.rows import InspectedRow, ViewRows

__all__ = ["ViewAudit", "WrongValue", "agree", "audit_views"]

_ROWS_AT_ONCE = 200_000
"""Rows of a view that are recomputed in one pass over the lake."""
_SEQUENCE_DIGITS = 56
"""A slot's version begins with the padded sequence number of the last record in it."""
_EXPIRY_SLACK_MS = 60_000


@dataclass(frozen=True)
class WrongValue:
    """Name a stored value that is not what the lake's events give.

    `column` is empty where the whole row is missing or should not be there. `where` is `row` for what readers get,
    `attribute` for the plain attribute beside the slots.
    """

    view: str
    key: str
    window_start: str | None
    column: str
    stored: Any
    right: Any
    where: str = "row"


@dataclass(frozen=True)
class ViewAudit:
    """Hold the audit of one view: rows that were compared, rows that moved meanwhile, and what is wrong."""

    view: str
    checked: int
    moving: int
    wrong: tuple[WrongValue, ...]
    unreadable: tuple[UnreadableFile, ...] = ()

    @property
    def exact(self) -> bool:
        """Tell whether every row that was judged is right."""
        return not self.wrong and not self.unreadable


def audit_views(reader: PipelineReader, views: ViewRows, sample: int | None = 1_000) -> Iterator[ViewAudit]:
    """Yield the audit of each view that serves: of about `sample` rows of it, or of all when None.

    The same rows are sampled while the lake is the same. Memory is bounded by
    200,000 rows and one file of the lake; all rows of a larger view take several passes over the lake.
    """
    stores = reader.stores
    serving = Serving(stores.ledger, stores.pipeline, stores.clock)
    for name, view in serving.views().items():
        yield _ViewCheck(reader, views, name, view).run(sample)


@dataclass
class _ViewCheck:
    """Check one view, as of one reading of the ledger."""

    reader: PipelineReader
    rows: ViewRows
    name: str
    view: View
    files: LakeFiles = field(init=False)
    entries: Sequence[ShardEntry] = field(init=False)

    def __post_init__(self) -> None:
        # in this order, see above
        self.entries = self.reader.stores.ledger.shards()
        self.files = LakeFiles(self.reader.open_table())
        self._tasks = self.files.tasks()
        self._positions = {entry.shard_id: entry.position for entry in self.entries}
        self._now_ms = self.reader.stores.clock.now_ms()

    def run(self, sample: int | None) -> ViewAudit:
        if sample is not None:
            chosen = {place_hash(place): place for place in self._sampled(sample)}
            return self._report([self._compared(dict(chosen), self._stored_at(chosen))])
        bounds = self._bounds()
        return self._report([self._compared_range(low, high) for low, high in pairwise(bounds)])

    def _report(self, parts: Sequence["_ViewsOutcome"]) -> ViewAudit:
        return ViewAudit(
            self.name,
            sum(one.checked for one in parts),
            sum(one.moving for one in parts),
            tuple(wrong for one in parts for wrong in one.wrong),
            tuple({one.uri: one for one in self.files.unreadable}.values()),
        )

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[pa.Table, Places, np.ndarray[Any, Any]]]:
        """Yield the rows of the lake as of the ledger, with their places and event times."""
        contract, schema = self.reader.stores.pipeline.contract, self.reader.stores.pipeline.schema
        live = {task.file.file_path for task in self._tasks}
        pending = [file for entry in self.entries for file in entry.pending if file.uri not in live]
        names = list(dict.fromkeys([contract.time, *self.view.by, *columns]))
        wanted = pa.schema([schema.field(name) for name in names])
        batches = (self.files.live(self._tasks, names), self.files.pending(pending, names))
        for batch in (one for source in batches for one in source):
            if contract.time not in batch.schema.names:
                continue
            rows = pa.table(
                {
                    one.name: batch[one.name].cast(one.type, safe=False)
                    if one.name in batch.schema.names
                    else pa.nulls(batch.num_rows, one.type)
                    for one in wanted
                }
            )
            rows = rows.filter(rows[contract.time].is_valid())
            ts_ms = rows[contract.time].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()).to_numpy()
            yield rows, places_of(self.view, rows, ts_ms), ts_ms

    def _sampled(self, count: int) -> list[Place]:
        """Return the places of lowest hash that events belong to, and of a tenth of the keys that the view has."""
        found: dict[int, Place] = {}
        for _, places, _ in self._batches([]):
            for number in lowest(places.hash, count):
                place = places.place(number)
                if not self._has_expired(place):
                    found[int(places.hash[number])] = place
            found = dict(sorted(found.items())[:count])
        known = list(found.values())
        for key in islice(self.rows.keys(self.view.spec), max(1, count // 10)):
            known += [_place(row) for row in islice(self.rows.inspect(self.view.spec, key), 10)]
        return known

    def _stored_at(self, chosen: Mapping[int, Place]) -> dict[int, InspectedRow]:
        stored = {}
        for number, (key, start) in chosen.items():
            stop = None if start is None else start + 1
            for row in self.rows.inspect(self.view.spec, key, start, stop):
                stored[number] = row
        return stored

    def _bounds(self) -> list[int]:
        """Return hashes that cut all places into ranges of about as many as fit into memory."""
        kept = np.zeros(0, np.uint64)
        most = 4_096
        for _, places, _ in self._batches([]):
            kept = np.unique(np.concatenate([kept, places.hash]))[:most]
        rows = len(kept) if len(kept) < most else int((most - 1) / (float(kept[-1]) / 2**64))
        parts = max(1, -(-rows // _ROWS_AT_ONCE))
        return [2**64 * at // parts for at in range(parts + 1)]

    def _compared_range(self, low: int, high: int) -> "_ViewsOutcome":
        stored = {}
        for key in self.rows.keys(self.view.spec):
            for row in self.rows.inspect(self.view.spec, key):
                number = place_hash(_place(row))
                if low <= number < high:
                    stored[number] = row
        return self._compared({}, stored, (low, high))

    def _compared(
        self, chosen: dict[int, Place], stored: Mapping[int, InspectedRow], span: tuple[int, int] | None = None
    ) -> "_ViewsOutcome":
        """Compute the chosen places, or all whose hash is in the span, and compare them with what is stored."""
        recount = Recount(self.view.aggregates, {number: row.row for number, row in stored.items()})
        wanted = np.sort(np.array(list(chosen), np.uint64))
        fields = [name for one in self.view.aggregates for name in one.reads]
        for rows, places, ts_ms in self._batches(fields):
            inside = _between(places.hash, span) if span else np.isin(places.hash, wanted)
            at = np.flatnonzero(inside)
            if span:
                _, first = np.unique(places.hash[at], return_index=True)
                for number in at[first].tolist():
                    chosen.setdefault(int(places.hash[number]), places.place(number))
            taken = places.at[at]
            recount.take(places.hash[at], rows.take(pa.array(taken)), ts_ms[taken])
        return self._judged(recount, chosen, stored)

    def _judged(
        self, recount: Recount, chosen: Mapping[int, Place], stored: Mapping[int, InspectedRow]
    ) -> "_ViewsOutcome":
        outcome = _ViewsOutcome()
        pure = self.reader.stores.pipeline.pure
        positions = self._positions if pure else self._unmoved()
        lags = not pure and len(positions) < len(self._positions)
        for number in {**chosen, **stored}:
            row = stored.get(number)
            place = chosen[number] if row is None else _place(row)
            if (row is not None and not _is_settled(row, positions)) or (row is None and lags):
                outcome.moving += 1
            elif row is not None or (recount.has(number) and not self._has_expired(place)):
                outcome.checked += 1
                outcome.wrong += self._wrong(recount, number, place, row)
        return outcome

    def _unmoved(self) -> Mapping[str, str]:
        """Return the positions of shards that have not moved: views of a pipeline that is not pure follow a commit."""
        now = {entry.shard_id: entry.position for entry in self.reader.stores.ledger.shards()}
        return {shard_id: at for shard_id, at in self._positions.items() if now.get(shard_id) == at}

    def _wrong(self, recount: Recount, number: int, place: Place, row: InspectedRow | None) -> list[WrongValue]:
        key, start = place
        window = None if start is None else iso_ms(start)
        if row is None:
            return [WrongValue(self.name, key, window, "", None, "a row")]
        if not recount.has(number):
            return [WrongValue(self.name, key, window, "", "a row", None)]
        wrong = []
        for one in self.view.aggregates:
            right = recount.value(number, one)
            for where, values in (("row", row.row), ("attribute", row.stored)):
                if values is not None and not agree(one, right, values.get(one.name)):
                    wrong.append(WrongValue(self.name, key, window, one.name, values.get(one.name), right, where))
        return wrong

    def _has_expired(self, place: Place) -> bool:
        keep, window = self.view.keep_ms, self.view.window
        if keep is None or window is None or place[1] is None:
            return False
        return window.end(place[1]) + keep <= self._now_ms + _EXPIRY_SLACK_MS


@dataclass
class _ViewsOutcome:
    checked: int = 0
    moving: int = 0
    wrong: list[WrongValue] = field(default_factory=list)


def _place(row: InspectedRow) -> Place:
    start = row.row.get("window_start")
    if start is None:
        return row.key, None
    return row.key, round(datetime.fromisoformat(str(start)).astimezone(UTC).timestamp() * 1000)


def _between(hashes: Hashes, span: tuple[int, int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    low, last = np.uint64(span[0]), np.uint64(span[1] - 1)
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = (hashes >= low) & (hashes <= last)
    return mask


def _is_settled(row: InspectedRow, positions: Mapping[str, str]) -> bool:
    """Tell whether no slot of the row has anything beyond the positions; a rebuild's slots are before all of them."""
    for name, version in row.versions.items():
        shard_id = name.partition("/")[0]
        if shard_id not in ("lake", "stream") and version[:_SEQUENCE_DIGITS] > positions.get(shard_id, ""):
            return False
    return True


def agree(one: Aggregate, right: Any, got: Any) -> bool:
    """Tell whether a stored value is what the recount says, up to a sketch's error and the rounding of sums of floats.

    >>> from headwater.aggregates import count
    >>> agree(count(), 3, 3), agree(count(), 3, 4)
    (True, False)
    """
    if one.function == "distinct":
        return close_count(right, got)
    if one.function == "quantile":
        if right is None or got is None:
            return right is None and got is None
        return close_rank(one.params[0], *right)
    return equal_values(right, got)
