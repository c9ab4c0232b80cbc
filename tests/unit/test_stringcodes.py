"""StringCodes against a dictionary, few and many of them, and when their hashes collide."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import stringcodes as module
from headwater.stringcodes import StringCodes

texts = st.one_of(st.text(max_size=5), st.integers(0, 5_000).map(lambda n: f"origin-{n}"))


def _few(some: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Hashes that several names share."""
    return np.array([8 * (hash(one) % 4_999) for one in some.to_pylist()], np.int64)


@settings(max_examples=100)
@given(st.booleans(), st.booleans(), st.lists(st.lists(texts, max_size=30), max_size=12))
def test_numbers_in_order_of_appearance(many: bool, collide: bool, batches: list[list[str]]) -> None:
    """The same whichever way they are looked up."""
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(module, "_hashes", _few)
        names, known = StringCodes(), dict[str, int]()
        if many:
            batches = [[f"origin-{n}" for n in range(0, 3_000, 2)], *batches]
        for batch in batches:
            codes = names.codes(pa.array(batch, pa.string()))
            for text in batch:
                known.setdefault(text, len(known))
            assert codes.tolist() == [known[text] for text in batch]
        assert len(names) == len(known)
        assert names.array().to_pylist() == list(known)
        for text, code in known.items():
            assert names[code] == text
            assert names.get(text) == code
        assert names.get("nobody") is None


def test_many_at_once_then_one_by_one() -> None:
    """Batches that bring their own, then single names, old and new."""
    names = StringCodes()
    for start in range(0, 200_000, 50_000):
        part = pa.array([f"n{n}" for n in range(start, start + 50_000)])
        assert names.codes(part).tolist() == list(range(start, start + 50_000))
    for n in (199_999, 0, 77, 200_000, 200_000, 200_001):
        assert names.codes(pa.array([f"n{n}"])).tolist() == [n]
    sliced = pa.array(["x", "n5", "é", "", "n6", "é"]).slice(1)
    assert names.codes(sliced).tolist() == [5, 200_002, 200_003, 6, 200_002]
    assert (names[200_002], names[200_003]) == ("é", "")
