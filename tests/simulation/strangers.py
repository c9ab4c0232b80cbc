"""Other engines on the same table: one appends files of its own, one puts files in place of ours."""

import io
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.errors import HeadwaterError
from headwater.testing.objects import MemoryObjects
from tests.simulation.catalog import SimulatedTable, TableSession
from tests.simulation.world import World

__all__ = ["STRANGE", "Strangers", "with_times"]

STRANGE = "s3://strange/"
"""Files of a writer that is not ours."""


def with_times(table: pa.Table) -> pa.Table:
    """The table with its event times in epoch ms."""
    at = table.column_names.index("ts")
    return table.set_column(at, "ts", table["ts"].cast(pa.timestamp("ms", "UTC")).cast(pa.int64()))


@dataclass
class Strangers:
    """Whoever else writes to the table."""

    world: World
    table: SimulatedTable
    objects: MemoryObjects
    deleted: list[dict[str, Any]] = field(default_factory=list)
    """Rows that somebody has taken out of the table."""

    def append(self) -> None:
        """Somebody appends to the table now and then."""
        session = TableSession(self.table)
        for number in range(self.world.random.randint(3, 12)):
            self.world.sleep(self.world.random.randint(500, 15_000))
            try:
                session.read()
                self.world.sleep(self.world.random.randint(1, 900))
                session.add([f"{STRANGE}{number}"])
                self.world.fired["* stranger"] += 1
            except HeadwaterError as error:
                self.world.note(f"the stranger was too slow: {error}")

    def rewrite(self) -> None:
        """Somebody puts one file in place of some of ours, at any moment, and may leave rows out."""
        random = self.world.random
        for number in range(14):
            self.world.sleep(random.randint(500, 15_000))
            # what was undone by now is not there to be rewritten
            ours = sorted(uri for uri in self.table.load().files if not uri.startswith(STRANGE))
            if ours and random.random() < 0.3:
                some = random.sample(ours, min(len(ours), random.randint(1, 3)))
                self._replace(some, f"rewritten/{number}.parquet", random.random() < 0.3)

    def _replace(self, some: list[str], key: str, delete: bool) -> None:
        bodies = self.objects.bodies
        tables = [pq.read_table(io.BytesIO(bodies[uri.removeprefix("s3://memory/")])) for uri in some]
        table = pa.concat_tables(tables, promote_options="default")
        if delete:
            gone = pc.equal(table["device"], "d0")
            self.deleted += with_times(table.filter(gone)).to_pylist()
            table = table.filter(pc.invert(gone))
        body = io.BytesIO()
        pq.write_table(table, body)
        self.table.replace(some, self.objects.put(key, body.getvalue()))
        self.world.fired["* rewrite"] += 1
        self.world.note(f"* rewrite of {len(some)} files{', and a deletion' if delete else ''}")
