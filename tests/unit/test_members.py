"""Which rows of a table, sorted by identity, are in sets of identities."""

import numpy as np
import pyarrow as pa
import pytest

from headwater.lineage.members import member_slices, members
from headwater.lineage.origins import OriginSets

HIGHEST = (1 << 63) - 1


@pytest.mark.parametrize("coded", [False, True])
def test_rows_are_found_by_their_intervals(coded: bool) -> None:
    """Of an origin that has none, of one between, and up to the highest number; copies of a row are all in it."""
    sets = OriginSets()
    sets.add_intervals("b", [(2, 4), (5, 6), (8, 9)], 1)
    sets.add_intervals("c", [(HIGHEST, HIGHEST + 1), (-1, 0)], 1)
    rows = [("a", 2), ("b", 1), ("b", 2), ("b", 2), ("b", 3), ("b", 4), ("b", 7), ("b", 8), ("c", -1), ("c", HIGHEST)]
    origin = pa.array([name for name, _ in rows])
    table = pa.table({"_origin": origin.dictionary_encode() if coded else origin, "_seq": [seq for _, seq in rows]})
    assert list(member_slices(table, sets)) == [(2, 5), (7, 8), (8, 9), (9, 10)]
    assert np.flatnonzero(members(table, sets)).tolist() == [2, 3, 4, 7, 8, 9]
    assert list(member_slices(table.slice(0, 2), sets)) == []
    assert members(table.slice(0, 0), sets).tolist() == []
