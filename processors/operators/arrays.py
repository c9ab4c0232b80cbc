"""Arrow columns as single arrays."""

import pyarrow as pa

__all__ = ["whole"]


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    one = column.combine_chunks()
    if isinstance(one, pa.ChunkedArray):
        return one.chunk(0) if one.num_chunks else pa.array([], one.type)
    return one
