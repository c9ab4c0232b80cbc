"""A view's rows as its rules need them: which windows are read, and what is held of them. No I/O."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from processors.alerts.machine import Reading
from processors.alerts.rules import Rule
from sinks.viewitems import key_text

__all__ = ["Seen", "Span", "seen", "starts"]

Span = tuple[int, int]
"""Windows that end in `(after, until]`, epoch ms."""


@dataclass
class Seen:
    """A key by its columns, and its readings by rule."""

    parts: Mapping[str, object]
    readings: dict[str, list[Reading]]


def starts(spans: Mapping[Rule, Span]) -> Sequence[int]:
    """When the windows begin that rules of one view need to judge their spans."""
    size, every = next(iter(spans)).window.size_ms, next(iter(spans)).window.every_ms
    first = min((after - rule.lookback_ms) // every * every for rule, (after, _) in spans.items())
    last = max(until for _, until in spans.values())
    return range(max(0, first - size), last - size + 1, every)


def seen(rows: Iterable[Mapping[str, object]], by: Sequence[str], spans: Mapping[Rule, Span]) -> dict[str, Seen]:
    """By key as text. Of the windows before a span, `absent` needs the last alone, and no more is held of them."""
    found: dict[str, Seen] = {}
    for row in rows:
        end = round(datetime.fromisoformat(str(row["window_end"])).timestamp() * 1000)
        parts = {column: row.get(column) for column in by}
        one = found.setdefault(key_text(list(parts.values())), Seen(parts, {}))
        for rule, (after, _) in spans.items():
            mine = one.readings.setdefault(rule.name, [])
            _add(rule, mine, Reading(end, _number(row.get(rule.when.column))), after)
    return found


def _add(rule: Rule, mine: list[Reading], new: Reading, after: int) -> None:
    if rule.when.kind != "absent":
        if new.end_ms > after - rule.lookback_ms:
            mine.append(new)
    elif new.end_ms > after:
        mine.append(new)
    elif not mine or mine[0].end_ms > after:
        mine.insert(0, new)
    elif new.end_ms > mine[0].end_ms:
        mine[0] = new


def _number(value: Any) -> float | None:
    """As the machine takes it: NaN, infinities and texts say nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
