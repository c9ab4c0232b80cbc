"""Turn a view's rows into the readings that its rules need: which windows to read, and what to keep. No I/O."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headwater.processors.alerts.machine import Reading
from headwater.processors.alerts.rules import Rule
from headwater.sinks.views.items import key_text

__all__ = ["Seen", "WindowSpan", "seen", "starts"]

WindowSpan = tuple[int, int]
"""Windows that end in `(after, until]`, epoch ms."""


@dataclass
class Seen:
    """Hold the columns of a key and its readings by rule."""

    parts: Mapping[str, object]
    readings: dict[str, list[Reading]]


def starts(spans: Mapping[Rule, WindowSpan]) -> Sequence[int]:
    """Return the starts (epoch ms) of the windows that rules of one view need to judge their spans."""
    size, every = next(iter(spans)).window.size_ms, next(iter(spans)).window.every_ms
    first = min((after - rule.lookback_ms) // every * every for rule, (after, _) in spans.items())
    last = max(until for _, until in spans.values())
    return range(max(0, first - size), last - size + 1, every)


def seen(rows: Iterable[Mapping[str, object]], by: Sequence[str], spans: Mapping[Rule, WindowSpan]) -> dict[str, Seen]:
    """Return what the rows say of each key, by key as text.

    Of the windows before a span, `absent` needs only the last one of each key, so only that one is kept.
    """
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
    """Add a reading to a rule's readings unless the rule does not need it."""
    # rows come in any order, so for `absent` the one reading before the span is kept at the front, the latest so far
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
    """Return the value as a number, a decimal's nearest; None for NaN, infinities and booleans, which say nothing."""
    if isinstance(value, str):  # a decimal, or a number that an item cannot hold as one
        try:
            value = float(value)
        except ValueError:
            return None
    # bool is an int to Python; true is no measured value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
