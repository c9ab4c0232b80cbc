"""What the charts show, as options of ECharts, and figures as words.

What comes from events is text: names of series and labels, with tooltips as rich text, never HTML.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from headwater.console.overview import Hop, ShardRow

__all__ = ["age", "flow_options", "moment", "rate_options", "shard_options", "short", "size", "view_options"]

_COLD, _WARM, _HOT = "#5b8def", "#e0a030", "#d64545"
_FEW_SERIES = 8
_RATES = (("events", "events read"), ("lake", "rows committed"), ("published", "rows in the table"))


def age(milliseconds: float | None) -> str:
    """A length of time in words that fit a table."""
    if milliseconds is None:
        return "–"
    seconds = max(0.0, milliseconds) / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def moment(milliseconds: int | None) -> str:
    """A point in time, UTC."""
    if milliseconds is None:
        return "–"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def heat_colour(hottest: float | None) -> str:
    """Of a shard, by the share of the limit that it is nearest to."""
    return "#9aa4b2" if hottest is None else _COLD if hottest < 0.5 else _WARM if hottest < 0.8 else _HOT


def flow_options(found: Sequence[Hop]) -> dict[str, Any]:
    """The flow as boxes and arrows: what a second, and how late."""
    places = {"stream": (0, 1), "processor": (1, 1), "lake files": (2, 1), "table": (3, 1), "dead letters": (2, 0)}
    arrows = [("stream", "processor"), ("processor", "lake files"), ("lake files", "table")]
    nodes = []
    for hop in found:
        x, y = places[hop.name]
        lag = f"\n{age(hop.lag_ms)} behind" if hop.lag_ms is not None else ""
        label = f"{hop.name}\n{hop.total:,}\n{hop.per_second:,.1f}/s{lag}\n{hop.note}"
        colour = _HOT if hop.name == "dead letters" and hop.total else _COLD
        nodes.append(
            {"name": hop.name, "x": 300 * x, "y": 130 * (1 - y), "itemStyle": {"color": colour}, "label": label}
        )
    return {
        "animation": False,
        "series": [
            {
                "type": "graph",
                "layout": "none",
                "silent": True,
                "symbol": "roundRect",
                "symbolSize": [170, 92],
                "left": 90,
                "right": 90,
                "top": 50,
                "bottom": 50,
                "edgeSymbol": ["none", "arrow"],
                "lineStyle": {"width": 2, "color": "#9aa4b2"},
                "data": [
                    {
                        **node,
                        "label": {
                            "show": True,
                            "formatter": node["label"],
                            "color": "#fff",
                            "fontSize": 12,
                            "lineHeight": 16,
                        },
                    }
                    for node in nodes
                ],
                "links": [{"source": a, "target": b} for a, b in [*arrows, ("processor", "dead letters")]],
            }
        ],
    }


def shard_options(rows: Sequence[ShardRow]) -> dict[str, Any]:
    """The hash space from left to right, each open shard as wide as its share, coloured by its heat."""
    open_rows = [row for row in rows if row.open]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 8, "top": 8, "bottom": 24},
        "tooltip": {"trigger": "item", "renderMode": "richText"},
        "xAxis": {"type": "value", "min": 0, "max": 1, "axisLabel": {"formatter": "{value}"}},
        "yAxis": {"type": "category", "data": [""], "show": False},
        "series": [
            {
                "name": short(row.shard_id),
                "type": "bar",
                "stack": "space",
                "barWidth": 46,
                "data": [row.width],
                "itemStyle": {"color": heat_colour(row.hottest), "borderColor": "#fff", "borderWidth": 1},
                "label": {"show": row.width > 0.04, "formatter": short(row.shard_id), "color": "#fff"},
            }
            for row in open_rows
        ],
    }


def rate_options(points: Sequence[tuple[int, dict[str, float]]]) -> dict[str, Any]:
    """Events and lake rows a second over the last minutes."""
    return {
        "animation": False,
        "grid": {"left": 56, "right": 12, "top": 28, "bottom": 24},
        "legend": {"top": 0, "textStyle": {"color": "#8a94a6"}},
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "xAxis": {"type": "time"},
        "yAxis": {"type": "value", "name": "per second"},
        "series": [
            {
                "name": title,
                "type": "line",
                "showSymbol": False,
                "data": [[at, round(rate[name], 2)] for at, rate in points],
            }
            for name, title in _RATES
        ],
    }


def view_options(rows: Sequence[dict[str, object]], by: Sequence[str], value: str) -> dict[str, Any]:
    """One line a key over the windows, of the first few keys."""
    series: dict[str, list[tuple[str, Any]]] = {}
    for row in rows:
        key = " | ".join(str(row[name]) for name in by) or "all"
        if "window_start" in row and (key in series or len(series) < _FEW_SERIES):
            series.setdefault(key, []).append((str(row["window_start"]), row.get(value)))
    return {
        "animation": False,
        "grid": {"left": 56, "right": 12, "top": 40, "bottom": 24},
        "legend": {"type": "scroll", "top": 0, "textStyle": {"color": "#8a94a6"}},
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "xAxis": {"type": "time"},
        "yAxis": {"type": "value", "scale": True},
        "series": [
            {"name": key, "type": "line", "showSymbol": len(points) < 40, "data": sorted(points)}
            for key, points in series.items()
        ],
    }


def short(shard_id: str) -> str:
    """A shard's number."""
    return shard_id.removeprefix("shardId-").lstrip("0") or "0"
