"""Begin a change of a lake table that is sent to the catalog once.

pyiceberg sends a commit that was overtaken again, on top of the state that overtook it, as often as the table's
properties say; and the table is open to others, who may set them for commits of their own. A file would be added twice
so, and rows come back that were deleted while their file was rewritten. So what the table says of it is not heard.
"""

from pyiceberg.table import Table, TableProperties, Transaction

__all__ = ["begin"]


def begin(table: Table) -> Transaction:
    """Return a transaction on exactly the state that `table` is: overtaken, it raises CommitFailedException."""
    known = table.metadata
    own = {**known.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    # of this object alone: what is committed is made from the catalog's state, and replaces it
    table.metadata = known.model_copy(update={"properties": own})
    return table.transaction()
