"""Put back the columns of a table that others have dropped, each under its number.

Files name columns by number. One that was dropped and is made anew gets another: what files have under the first would
be read by nobody, and a file that still waits for the table would fit it no more.
"""

import logging
from collections.abc import Mapping, Sequence

from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import AddSchemaUpdate, AssertCurrentSchemaId, AssertTableUUID, SetCurrentSchemaUpdate
from pyiceberg.types import NestedField

from headwater.errors import UsageError

__all__ = ["put_back"]

log = logging.getLogger("headwater.lake")


def put_back(table: Table, name: str, wanted: Schema, was: Mapping[str, Sequence[str]]) -> None:
    """Put back those columns of `wanted` that the table had earlier and has under no name now.

    `was` has earlier names of columns. Raise UsageError when the table has one by a name that `wanted` does not know:
    it goes on under that name, and a second one beside it would have only what is written from here on. Raise
    CommitFailedException when another writer was faster.
    """
    present = table.schema()
    there, ours = {one.name for one in present.fields}, {one.name for one in wanted.fields}
    dropped = []
    for field in wanted.fields:
        former = None if there & {field.name, *was.get(field.name, ())} else _former(table, field.name)
        if former is None:
            continue
        now = present.find_column_name(former.field_id)
        if now is None:
            dropped.append(former)
        elif now not in ours:
            raise UsageError(
                f"lake table {name}: somebody has renamed the contract's column {field.name} to {now}: rename it back"
            )
    if not dropped:
        return
    # optional: files that were rewritten meanwhile are without it
    back = [one.model_copy(update={"required": False}) for one in dropped]
    number = 1 + max(table.schemas())
    schema = Schema(*present.fields, *back, schema_id=number, identifier_field_ids=present.identifier_field_ids)
    known = table.metadata
    table.catalog.commit_table(
        table,
        (AssertTableUUID(uuid=known.table_uuid), AssertCurrentSchemaId(current_schema_id=known.current_schema_id)),
        (AddSchemaUpdate(schema=schema), SetCurrentSchemaUpdate(schema_id=-1)),
    )
    table.refresh()
    log.warning("columns that were dropped are put back", extra={"table": name, "columns": [one.name for one in back]})


def _former(table: Table, name: str) -> NestedField | None:
    """Return the column that had the name in the newest of the table's earlier schemas that has one."""
    earlier = sorted(table.schemas().values(), key=lambda one: -one.schema_id)
    return next((one for schema in earlier for one in schema.fields if one.name == name), None)
