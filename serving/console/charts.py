"""Make the charts' options for ECharts. Pure. Times are UTC.

What comes from events is text: names of series and labels, with tooltips as rich text, never HTML. Colours are
variables of the style sheet where they are on the page's own ground.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.serving.console.formatting import legible, short
from headwater.serving.console.overview import ShardRow
from headwater.serving.console.spans import Span
from headwater.serving.console.theme import COLD, GRID, HOT, INK, PAPER, SERIES, UNKNOWN, WARM

__all__ = ["heat_colour", "heat_text", "rate_options", "shard_options", "view_options", "window_times"]

_FEW_SERIES = 8
_DIGITS = ".5g"
_RATES_MS = 900_000
_RATES = (
    ("events", "events read", {"width": 5, "opacity": 0.45}),
    ("lake", "rows committed", {"width": 2, "type": "dashed"}),
    ("published", "rows in the table", {"width": 2}),
)


def heat_colour(hottest: float | None) -> str:
    """Return a shard's colour by its share of the nearest limit."""
    return UNKNOWN if hottest is None else COLD if hottest < 0.5 else WARM if hottest < 0.8 else HOT


def shard_options(rows: Sequence[ShardRow]) -> dict[str, Any]:
    """Return the hash space from left to right: each open shard as wide as its share, coloured by its heat."""
    open_rows = [row for row in rows if row.open]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 8, "top": 8, "bottom": 8},
        "tooltip": _tooltip("item") | {"formatter": "{a}"},
        "xAxis": {"type": "value", "min": 0, "max": 1, "show": False},
        "yAxis": {"type": "category", "data": [""], "show": False},
        "series": [
            {
                "name": f"shard {legible(short(row.shard_id))}: {heat_text(row.hottest)}",
                "type": "bar",
                "stack": "space",
                "barWidth": 46,
                "data": [row.width],
                "itemStyle": {"color": heat_colour(row.hottest), "borderColor": PAPER, "borderWidth": 1},
                "label": {
                    "show": row.width > 0.04,
                    "formatter": f"{legible(short(row.shard_id))}\n{heat_text(row.hottest)}",
                    "color": "#fff",
                    "lineHeight": 15,
                },
            }
            for row in open_rows
        ],
    }


def heat_text(hottest: float | None) -> str:
    """Return a shard's share of its nearest limit as text.

    >>> heat_text(0.84)
    '84%'
    """
    return "–" if hottest is None else f"{hottest:.0%}"


def rate_options(points: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Return events and lake rows a second over the last minutes; the line breaks where no page was open."""
    now = points[-1][0] if points else 0
    return _lines(
        [
            {
                "name": title,
                "type": "line",
                "showSymbol": False,
                "color": SERIES[number],
                "lineStyle": style,
                "data": [[at, round(rate[name], 1) if rate else None] for at, rate in points],
            }
            for number, (name, title, style) in enumerate(_RATES)
        ],
        {"min": now - _RATES_MS, "max": now} if points else None,
    )


def window_times(rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Return when each row's window begins, in epoch ms; rows without a window have none."""
    starts = (row.get("window_start") for row in rows)
    return [round(datetime.fromisoformat(str(one)).timestamp() * 1000) for one in starts if one is not None]


def view_options(
    rows: Sequence[Mapping[str, object]], by: Sequence[str], value: str, span: Span | None = None
) -> dict[str, Any]:
    """Return one line for each of the first few keys, over the windows that begin in the span; None for all."""
    series: dict[str, list[tuple[str, Any]]] = {}
    for row in rows:
        key = legible(" | ".join(str(row[name]) for name in by)) or "all"
        if span is not None and not all(span[0] <= time <= span[1] for time in window_times([row])):
            continue
        if "window_start" in row and (key in series or len(series) < _FEW_SERIES):
            series.setdefault(key, []).append((str(row["window_start"]), _rounded(row.get(value))))
    return _lines(
        [
            {
                "name": key,
                "type": "line",
                "showSymbol": len(points) < 40,
                "color": SERIES[number],
                "data": sorted(points),
            }
            for number, (key, points) in enumerate(series.items())
        ]
    )


def _rounded(value: object) -> object:
    return float(format(value, _DIGITS)) if isinstance(value, float) else value


def _tooltip(trigger: str) -> dict[str, Any]:
    return {
        "trigger": trigger,
        "renderMode": "richText",
        "confine": True,
        "backgroundColor": PAPER,
        "textStyle": {"color": INK},
    }


def _lines(series: list[dict[str, Any]], limits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return lines over time, with the legend below; `limits` are those of the time axis."""
    return {
        "animation": False,
        "useUTC": True,
        "grid": {"left": 8, "right": 56, "top": 12, "bottom": 70, "containLabel": True},
        "dataZoom": [
            # the wheel alone scrolls the page
            {"type": "inside", "zoomOnMouseWheel": "ctrl", "moveOnMouseWheel": False, "filterMode": "none"},
            {"type": "slider", "bottom": 32, "height": 18, "filterMode": "none", "textStyle": {"color": INK}},
        ],
        "legend": {
            "type": "scroll",
            "bottom": 0,
            "itemWidth": 16,
            "textStyle": {"color": INK},
            "pageTextStyle": {"color": INK},
            "pageIconColor": INK,
        },
        "tooltip": _tooltip("axis"),
        "xAxis": {
            "type": "time",
            "name": "UTC",
            "nameLocation": "end",
            "nameGap": 24,
            "nameTextStyle": {"color": INK},
            **(limits or {}),
            "axisLabel": {"hideOverlap": True, "color": INK},
            "axisLine": {"lineStyle": {"color": INK}},
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            "axisLabel": {"color": INK},
            "splitLine": {"lineStyle": {"color": GRID}},
        },
        "series": series,
    }
