"""Take a key out of the tables of views: they are dropped with all their objects, and written anew from the lake.

So roll-ups lose the key's share, too. Called once the lake's own rows are gone. A table that `lake maintain` makes anew
meanwhile has new objects; those of before are listed before the drop, and no other is deleted.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.contract.keyvalues import KeyValue
from headwater.processors.erasure.ports import ErasurePorts

__all__ = ["drop_view_tables", "left_in_view_tables"]


def drop_view_tables(ports: ErasurePorts) -> list[str]:
    """Drop the tables of all views that the pipeline has or had, with the objects that are there; return their names.

    Those of views that it has come back at the next round of `lake maintain`.
    """
    objects, names = ports.stores.objects, ports.view_tables()
    for name in names:
        found = list(objects.list(f"lake/{name}/"))
        ports.drop_table(name)
        for key in found:
            objects.delete(key)
    return names


def left_in_view_tables(ports: ErasurePorts, key: KeyValue) -> list[str]:
    """Return which objects of these tables have the key, by decoding each: one that was written meanwhile may."""
    objects, left = ports.stores.objects, list[str]()
    for name in ports.view_tables():
        for one in [one for one in objects.list(f"lake/{name}/data/") if one.endswith(".parquet")]:
            file = pq.ParquetFile(pa.BufferReader(objects.get(one)))
            if key.column in file.schema_arrow.names:
                rows = pc.sum(key.among(file.read([key.column])[key.column])).as_py()
                left += [f"{rows} rows in {objects.uri(one)}: call it again"] if rows else []
    return left
