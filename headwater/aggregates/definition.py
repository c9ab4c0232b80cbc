"""What a pipeline may ask for, and the parts of state it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from headwater.errors import UsageError

__all__ = [
    "Aggregate",
    "Part",
    "count",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "plan",
    "quantile",
    "sum",
    "variance",
]

DIGEST_K = 200
DISTINCT_LG_K = 11


@dataclass(frozen=True)
class Aggregate:
    """One named value of a view. Nulls are skipped; of no values at all the answer is null (of `count`, 0)."""

    name: str
    function: str
    field: str | None = None
    params: tuple[float, ...] = ()

    def named(self, name: str) -> "Aggregate":
        """The same under another name."""
        return Aggregate(name, self.function, self.field, self.params)


@dataclass(frozen=True)
class Part:
    """A piece of state. Aggregates over one field share parts: two quantiles keep one digest, a mean its sum."""

    function: str
    field: str | None
    size: int = 0

    @property
    def key(self) -> str:
        return f"{self.function}({self.field or ''}{f',{self.size}' if self.size else ''})"


def count(name: str = "count") -> Aggregate:
    """The number of rows, nulls included."""
    return Aggregate(name, "count")


def sum(field: str, name: str | None = None) -> Aggregate:
    """Exact for integers; floats are added in row order, and exactly across slots."""
    return Aggregate(name or f"{field}_sum", "sum", field)


def min(field: str, name: str | None = None) -> Aggregate:
    return Aggregate(name or f"{field}_min", "min", field)


def max(field: str, name: str | None = None) -> Aggregate:
    return Aggregate(name or f"{field}_max", "max", field)


def mean(field: str, name: str | None = None) -> Aggregate:
    return Aggregate(name or f"{field}_mean", "mean", field)


def variance(field: str, name: str | None = None) -> Aggregate:
    """The sample variance (n - 1), as in pandas and SQL; null below two values."""
    return Aggregate(name or f"{field}_variance", "variance", field)


def first(field: str, name: str | None = None) -> Aggregate:
    """The value with the smallest event time; of several the smallest value."""
    return Aggregate(name or f"{field}_first", "first", field)


def last(field: str, name: str | None = None) -> Aggregate:
    """The value with the largest event time; of several the largest value."""
    return Aggregate(name or f"{field}_last", "last", field)


def distinct(field: str, name: str | None = None) -> Aggregate:
    """The number of different values, approximate: relative standard error 2.3 %, near exact up to some hundred."""
    return Aggregate(name or f"{field}_distinct", "distinct", field)


def quantile(field: str, q: float, name: str | None = None) -> Aggregate:
    """The q-quantile; exact, interpolated linearly, while no slot has more than 255 values, else by t-digest.

    Measured over 20,000 normal values, the t-digest's rank is off by up to 2 % at the median and 0.1 % at the 99th.
    """
    if not 0 <= q <= 1:
        raise UsageError(f"quantile of {field!r}: q must lie between 0 and 1, not {q}")
    return Aggregate(name or f"{field}_p{q * 100:g}", "quantile", field, (q,))


_PARTS: dict[str, tuple[tuple[str, int], ...]] = {
    "sum": (("n", 0), ("sum", 0)),
    "min": (("n", 0), ("min", 0)),
    "max": (("n", 0), ("max", 0)),
    "mean": (("n", 0), ("sum", 0)),
    "variance": (("moments", 0),),
    "first": (("n", 0), ("first", 0)),
    "last": (("n", 0), ("last", 0)),
    "distinct": (("distinct", DISTINCT_LG_K),),
    "quantile": (("digest", DIGEST_K),),
}


@lru_cache(maxsize=1024)
def parts_of(aggregate: Aggregate) -> tuple[Part, ...]:
    """The parts the aggregate's value is computed from; the last one holds the value itself."""
    if aggregate.function == "count":
        return (Part("rows", None),)
    if aggregate.function not in _PARTS or aggregate.field is None:
        raise UsageError(f"aggregate {aggregate.name!r}: there is no function {aggregate.function!r} of a field")
    return tuple(Part(function, aggregate.field, size) for function, size in _PARTS[aggregate.function])


def plan(aggregates: Sequence[Aggregate]) -> tuple[Part, ...]:
    """All parts, each once, in the order in which partials list them."""
    return _plan(tuple(aggregates))


@lru_cache(maxsize=256)
def _plan(aggregates: tuple[Aggregate, ...]) -> tuple[Part, ...]:
    names = [aggregate.name for aggregate in aggregates]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two aggregates are named {name!r}; give one another name")
    return tuple(dict.fromkeys(part for aggregate in aggregates for part in parts_of(aggregate)))
