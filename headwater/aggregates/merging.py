"""Merge partials, and read the final values out of them.

A partial is a small JSON document, readable wherever it turns up. No numpy and no state: a reader of views needs this
module alone.
"""

import base64
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from headwater.aggregates import exact, sketches
from headwater.aggregates.definition import Aggregate, StatePart, parts_of, plan

__all__ = ["is_nothing", "iso_ms", "merge", "nothing", "values"]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(parts: Sequence[Any]) -> bytes:
    """Encode the values of the parts, in plan order, as a partial."""
    return _encode(parts).encode()


def decode(aggregates: Sequence[Aggregate], partial: bytes) -> dict[StatePart, Any]:
    """Decode a partial into its parts. Raise ValueError when it was made by other aggregates."""
    parts = plan(aggregates)
    document = json.loads(partial)
    if not isinstance(document, list) or len(document) != len(parts):
        raise ValueError(f"a partial of {len(parts)} parts was expected: were the view's aggregates changed?")
    return dict(zip(parts, document, strict=True))


def nothing(aggregates: Sequence[Aggregate]) -> bytes:
    """Return the partial of no rows, which merges with others as if it were not there.

    >>> from headwater.aggregates import count
    >>> is_nothing(nothing((count(),))), merge((count(),), [nothing((count(),)), b"[2]"])
    (True, b'[2]')
    """
    # with a space before it, which `encode` never makes: rows that all lack a value have nulls in every part as well
    return b" " + encode([None] * len(plan(aggregates)))


def is_nothing(partial: bytes) -> bool:
    """Return True for the partial of no rows."""
    return partial.startswith(b" ")


def merge(aggregates: Sequence[Aggregate], partials: Sequence[bytes]) -> bytes:
    """Merge partials into one of all their rows. Commutative and associative to the bit; sums are kept without
    rounding.

    Sketches are kept side by side, in a canonical order, and united only when read: uniting t-digests depends on the
    order. The result grows by that, so store the partials of slots, not merges of them.
    """
    if not partials:
        raise ValueError("nothing to merge")
    if len(partials) == 1:
        return partials[0]
    decoded = [decode(aggregates, partial) for partial in partials]
    return encode([_merge_part(part, [one[part] for one in decoded]) for part in plan(aggregates)])


def values(aggregates: Sequence[Aggregate], partial: bytes) -> dict[str, object]:
    """Return the final values by name: int, float, str, bool or None; times and dates as ISO text, decimals as
    text without an exponent.

    >>> from headwater.aggregates import count, mean
    >>> view = (count(), mean("value"))
    >>> one, other = (b"[2,2,4.0]", b"[1,1,5.0]")
    >>> values(view, merge(view, [one, other]))
    {'count': 3, 'value_mean': 3.0}
    """
    parts = decode(aggregates, partial)
    return {aggregate.name: _value(aggregate, parts) for aggregate in aggregates}


@lru_cache(maxsize=4096)
def iso_ms(ms: int) -> str:
    """Format milliseconds since the epoch as ISO text in UTC, of fixed width; outside the years 1 to 9999 `<signed
    ms>ms`.

    >>> iso_ms(0)
    '1970-01-01T00:00:00.000Z'
    """
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms:+020d}ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _merge_part(part: StatePart, found: list[Any]) -> Any:
    found = [one for one in found if one is not None]
    return _MERGE[part.function](found) if len(found) > 1 else (found[0] if found else None)


def _order(value: Any) -> Any:
    """Return what to compare by: timestamps, dates and decimals are one-entry objects."""
    if isinstance(value, dict) and "n" in value:
        return Decimal(value["n"])
    return next(iter(value.values())) if isinstance(value, dict) else value


def _extreme(found: list[Any], choose: Callable[..., Any]) -> Any:
    for one in found:
        if isinstance(one, float) and math.isnan(one):
            return one
    best = choose(found, key=_order)
    # 1 and 1.0 are equal: the float wins whatever the order
    return float(best) if any(isinstance(one, float) for one in found) else best


def _edge(found: list[Any], choose: Callable[..., Any]) -> Any:
    time = choose(one[0] for one in found)
    return [time, _extreme([one[1] for one in found if one[0] == time], choose)]


def _moments(found: list[Any]) -> Any:
    """Turn [n, shift, sum, sum of squares] of values less the shift into {n, s, q} of the values, exactly."""
    raw = [_unshifted(one) for one in found]
    return {
        "n": sum(one["n"] for one in raw),
        "s": exact.add(one["s"] for one in raw),
        "q": exact.add(one["q"] for one in raw),
    }


def _unshifted(moments: Any) -> dict[str, Any]:
    if isinstance(moments, dict):
        return moments
    n, shift, total, squares = moments
    if not all(math.isfinite(one) for one in (shift, total, squares)):
        return {"n": n, "s": math.nan, "q": math.nan}
    k, s, q = (exact.fraction(one) for one in (shift, total, squares))
    return {"n": n, "s": exact.number(n * k + s), "q": exact.number(q + 2 * k * s + n * k * k)}


def _variance(moments: Any) -> float | None:
    raw = _unshifted(moments)
    n = raw["n"]
    if n < 2:
        return None
    if any(isinstance(raw[one], float) and not math.isfinite(raw[one]) for one in "sq"):
        return math.nan
    s, q = exact.fraction(raw["s"]), exact.fraction(raw["q"])
    # rounding within a slot can leave a sum of squares just under the least possible
    return max(0.0, exact.rounded((q - s * s / n) / (n - 1)))


def _mean(total: Any, n: int) -> float:
    if isinstance(total, str | dict):
        return exact.rounded(exact.fraction(total) / n)
    return float(total / n)


def _readable(value: Any) -> object:
    if not isinstance(value, dict):
        result: object = value
        return result
    ((kind, number),) = value.items()
    if kind == "n":
        return number
    if kind == "t":
        return iso_ms(number)
    try:
        return (date(1970, 1, 1) + timedelta(days=number)).isoformat()
    except OverflowError:
        return f"{number:+020d}d"


def _value(aggregate: Aggregate, parts: dict[StatePart, Any]) -> object:
    needed = parts_of(aggregate)
    state = parts[needed[-1]]
    function = aggregate.function
    if state is None:
        return 0 if function in ("count", "distinct") else None
    if function == "sum":
        return exact.rounded(exact.fraction(state)) if isinstance(state, str) else _readable(state)
    if function == "mean":
        return _mean(state, parts[needed[0]])
    if function == "variance":
        return _variance(state)
    if function == "distinct":
        return sketches.distinct_of([base64.b64decode(one) for one in state], needed[-1].size)
    if function == "quantile":
        return sketches.quantile_of(state, aggregate.params[0], needed[-1].size)
    return _readable(state[1] if function in ("first", "last") else state)


_MERGE: dict[str, Callable[[list[Any]], Any]] = {
    "rows": sum,
    "n": sum,
    "sum": exact.add,
    "min": lambda found: _extreme(found, min),
    "max": lambda found: _extreme(found, max),
    "first": lambda found: _edge(found, min),
    "last": lambda found: _edge(found, max),
    "moments": _moments,
    "distinct": lambda found: sorted({sketch for one in found for sketch in one}),
    "digest": lambda found: sorted((digest for one in found for digest in one), key=_encode),
}
