"""Other engines on the same table: one appends, one rewrites, one expires and turns the table back."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import ancestors_of
from pyiceberg.table.update import SetSnapshotRefUpdate

from headwater.sinks.lake.catalog import append_files
from headwater.sinks.lake.datafiles import describe
from headwater.sinks.lake.rewrite import replace_files
from headwater.sinks.lake.standing import digest
from tests.simulation.bucket import MEMORY, SimulatedObjects
from tests.simulation.catalog import CatalogSession, SimulatedTable
from tests.simulation.world import World

__all__ = ["STRANGE", "Strangers", "with_times"]

STRANGE = "stranger"
"""Origin of the rows of a writer that is not ours."""
Row = dict[str, Any]
Identity = tuple[str, int]
_SURE_MS = 1_000
"""What came to the table later than so long ago has left no ledger: see `headwater.sinks.lake.publisher`."""


def with_times(table: pa.Table) -> pa.Table:
    """The table with its event times in epoch ms."""
    at = table.column_names.index("ts")
    return table.set_column(at, "ts", table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()))


@dataclass
class Strangers:
    """Whoever else writes to the table."""

    world: World
    table: SimulatedTable
    objects: SimulatedObjects
    schema: pa.Schema
    """Of the lake."""
    pending: Callable[[], set[str]]
    """Files that the ledger has."""
    quarantined: Callable[[], set[str]]
    taken: dict[Identity, Row] = field(default_factory=dict)
    """Rows that somebody has taken out of the table. A rollback may bring some of them back."""
    appended: int = 0
    _rows: dict[bytes, dict[Identity, Row]] = field(default_factory=dict)
    """What has been read of files, by their bytes."""

    @property
    def deleted(self) -> list[Row]:
        """Rows that are not there: taken out by somebody, or of files that are quarantined."""
        there, held = self.rows_of(self.table.files), self.rows_of(self.quarantined())
        return [row for at, row in {**held, **self.taken}.items() if at not in there]

    def rows_of(self, uris: Iterable[str]) -> dict[Identity, Row]:
        """Our rows in these files, by identity."""
        found: dict[Identity, Row] = {}
        for body in [self.objects.bodies.get(uri.removeprefix(MEMORY)) for uri in uris]:
            if body is not None and body not in self._rows:
                table = self._whole(pq.ParquetFile(io.BytesIO(body)).read()).cast(self.schema)
                self._rows[body] = {(row["_origin"], row["_seq"]): row for row in with_times(table).to_pylist()}
            found |= self._rows[body] if body is not None else {}
        return {at: row for at, row in found.items() if at[0] != STRANGE}

    def append(self) -> None:
        """Somebody appends to the table now and then."""
        session = CatalogSession(self.table, self.world)
        for _ in range(self.world.random.randint(3, 12)):
            self.world.sleep(self.world.random.randint(500, 15_000))
            number, self.appended = self.appended, self.appended + 1
            uri = self._put(f"strange/{number}.parquet", self._row(number))
            try:
                table = session.load_table()
                self.world.sleep(self.world.random.randint(1, 900))
                append_files(table, [describe(table.io, table.metadata, uri)])
                self.world.fired["* stranger"] += 1
            except (CommitFailedException, ClientError, BotoCoreError) as error:
                self.world.note(f"the stranger gives up: {type(error).__name__}")

    def _row(self, number: int) -> pa.Table:
        row = {"device": "strange", "ts": self.world.now, "value": 1, "n": -1 - number, "id": 0, "weight": 0}
        own = {"_origin": STRANGE, "_seq": number, "_arrived_at": self.world.now}
        return pa.Table.from_pylist([{**row, **own}], schema=self.schema)

    def _put(self, key: str, table: pa.Table) -> str:
        body = io.BytesIO()
        pq.write_table(table, body)
        return self.objects.put(key, body.getvalue())

    def rewrite(self) -> None:
        """Somebody puts one file in place of some of ours, at any moment, and may leave rows out."""
        random = self.world.random
        for number in range(14):
            self.world.sleep(random.randint(500, 15_000))
            # what was undone by now is not there to be rewritten
            ours = sorted(self.table.data_files(), key=lambda file: file.file_path)
            ours = [file for file in ours if "strange/" not in file.file_path]
            if ours and random.random() < 0.3:
                partition = random.choice(ours).partition
                ours = [file for file in ours if file.partition == partition]
                some = random.sample(ours, min(len(ours), random.randint(1, 3)))
                self._replace(some, f"rewritten/{number}.parquet", random.random() < 0.3)

    def _replace(self, some: list[DataFile], key: str, delete: bool) -> None:
        bodies = self.objects.bodies
        tables = [pq.ParquetFile(io.BytesIO(bodies[file.file_path.removeprefix(MEMORY)])).read() for file in some]
        joined = pa.concat_tables([one.cast(self.schema) for one in map(self._whole, tables)])
        if delete:
            gone = pc.equal(joined["device"], "d0")
            for row in with_times(joined.filter(gone)).to_pylist():
                self.taken[row["_origin"], row["_seq"]] = row
            joined = joined.filter(pc.invert(gone))
        table = CatalogSession(self.table).load_table()
        uri = self._put(key, joined)
        new = [describe(table.io, table.metadata, uri, some[0].partition)] if joined.num_rows else []
        replace_files(table, some, new, {})
        self.world.fired["* rewrite"] += 1
        self.world.note(f"* rewrite of {len(some)} files{', and a deletion' if delete else ''}")

    def turn_back(self) -> None:
        """Somebody expires snapshots, rolls the table back, or puts another branch in place of main."""
        random = self.world.random
        for number in range(3):
            self.world.sleep(random.randint(5_000, 40_000))
            for _ in range(random.choice([0, 60])):  # the moment at which most can go wrong
                if self._fresh():
                    break
                self.world.sleep(300)
            table = CatalogSession(self.table).load_table()
            earlier = list(ancestors_of(table.current_snapshot(), table.metadata))[1:]
            what = random.choice(["expire", "rollback", "replace"])
            if not earlier:
                continue
            if what == "expire":
                kept = random.randint(0, 3)
                gone = [one.snapshot_id for one in earlier[kept:]]
                if gone:
                    table.maintenance.expire_snapshots().by_ids(gone).commit()
            else:
                self._set(table, random.choice(earlier[:3]).snapshot_id, f"strange/branch-{number}.parquet", what)
            self.world.fired[f"* {what}"] += 1
            self.world.note(f"* {what} of snapshots")

    def _fresh(self) -> set[str]:
        """Files that nobody can have found twice, a second apart: they are pending still, and are added again."""
        since = self.world.now - _SURE_MS
        return {uri for uri in self.pending() if self.table.added_ms.get(digest(uri), since) > since}

    def _set(self, table: Table, snapshot_id: int, branch: str, what: str) -> None:
        """Set the table to an earlier snapshot, or to what a stranger has built on it."""
        before, sure = self.rows_of(self.table.files), self.rows_of(self._fresh())
        back = SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id)
        table.catalog.commit_table(table, (), (back,))
        if what == "replace":
            row = self._row(1_000 + self.appended)
            self.appended += 1
            table = CatalogSession(self.table).load_table()
            append_files(table, [describe(table.io, table.metadata, self._put(branch, row))])
        after = self.rows_of(self.table.files)
        self.taken |= {at: row for at, row in before.items() if at not in after and at not in sure}

    def _whole(self, table: pa.Table) -> pa.Table:
        """The table with every column that the lake has by now."""
        for one in self.schema:
            if one.name not in table.column_names:
                table = table.append_column(one, pa.nulls(table.num_rows, one.type))
        return table.select(self.schema.names)
