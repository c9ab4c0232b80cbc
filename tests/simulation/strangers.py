"""Other engines on the same table: one appends files of its own, one puts files in place of ours."""

import io
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile

from headwater.sinks.lake.catalog import append_files
from headwater.sinks.lake.datafiles import describe
from headwater.sinks.lake.rewrite import replace_files
from tests.simulation.bucket import MEMORY, SimulatedObjects
from tests.simulation.catalog import CatalogSession, SimulatedTable
from tests.simulation.world import World

__all__ = ["STRANGE", "Strangers", "with_times"]

STRANGE = "stranger"
"""Origin of the rows of a writer that is not ours."""


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
    deleted: list[dict[str, Any]] = field(default_factory=list)
    """Rows that somebody has taken out of the table."""
    appended: int = 0

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
        tables = [pq.read_table(io.BytesIO(bodies[file.file_path.removeprefix(MEMORY)])) for file in some]
        joined = pa.concat_tables([one.cast(self.schema) for one in map(self._whole, tables)])
        if delete:
            gone = pc.equal(joined["device"], "d0")
            self.deleted += with_times(joined.filter(gone)).to_pylist()
            joined = joined.filter(pc.invert(gone))
        table = CatalogSession(self.table).load_table()
        uri = self._put(key, joined)
        new = [describe(table.io, table.metadata, uri, some[0].partition)] if joined.num_rows else []
        replace_files(table, some, new, {})
        self.world.fired["* rewrite"] += 1
        self.world.note(f"* rewrite of {len(some)} files{', and a deletion' if delete else ''}")

    def _whole(self, table: pa.Table) -> pa.Table:
        """The table with every column that the lake has by now."""
        for one in self.schema:
            if one.name not in table.column_names:
                table = table.append_column(one, pa.nulls(table.num_rows, one.type))
        return table.select(self.schema.names)
