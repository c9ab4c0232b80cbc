"""Draw small pictures as SVG: a rate over the last minutes, and the heat of the hash space over time. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from headwater.serving.console.charts import heat_colour, heat_text
from headwater.serving.console.formatting import clock_time, legible, short
from headwater.serving.console.overview import HeatPoint

__all__ = ["heat_changes", "heat_picture", "sparkline"]

_WIDE, _HIGH = 90, 16
_MOST_BOXES = 2_000
"""Boxes of the picture of heat: about 250 kB. Of more shards and changes, fewer minutes are shown."""
_MOST_CHANGES = 5


def sparkline(values: Sequence[float | None]) -> str:
    """Return a line from the oldest value to the newest, as high as the greatest; it breaks at None.

    >>> sparkline([0, 2, None, 1])[-33:]
    '<path d="M0,16L30,0M90,8"/></svg>'
    """
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = _WIDE / max(1, len(values) - 1)
    parts, goes_on = [], False
    for at, value in enumerate(values):
        if value is not None:
            parts.append(f"{'L' if goes_on else 'M'}{at * step:.3g},{_HIGH * (1 - value / top):.3g}")
        goes_on = value is not None
    head = f'<svg viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none" aria-hidden="true" class="spark">'
    return f'{head}<path d="{"".join(parts)}"/></svg>'


def heat_picture(points: Sequence[HeatPoint]) -> str:
    """Return the hash space from left to right and time from top to bottom, the newest on top, coloured by heat.

    A shard that was split or merged ends where its children begin.
    """
    boxes = list(_boxes(points))
    while len(boxes) > _MOST_BOXES and len(points) > 1:
        points = points[len(points) // 2 :]
        boxes = list(_boxes(points))
    drawn = "".join(
        f'<rect x="{1000 * start:.5g}" y="{top}" width="{1000 * width:.5g}" height="{height}" '
        f'fill="{heat_colour(hottest)}"><title>{escape(title)}</title></rect>'
        for start, width, top, height, hottest, title in boxes[:_MOST_BOXES]
    )
    height = max(1, len(points))
    return f'<svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" aria-hidden="true" class="heat">{drawn}</svg>'


def _boxes(points: Sequence[HeatPoint]) -> Iterator[tuple[float, float, int, int, float | None, str]]:
    """Yield left, width, top, height, heat and text of each box: a shard for as long as its colour stays."""
    last = len(points) - 1
    under: Mapping[tuple[str, str], tuple[int, float | None]] = {}
    for at, (time, shards) in enumerate(points):
        following = points[at + 1][1] if at < last else {}
        here = {}
        for shard, (start, width, hottest) in shards.items():
            since, most = under.get((shard, heat_colour(hottest)), (at, hottest))
            most = max((one for one in (most, hottest) if one is not None), default=None)
            goes_on = shard in following and heat_colour(following[shard][2]) == heat_colour(hottest)
            if goes_on:
                here[shard, heat_colour(hottest)] = since, most
            else:
                text = f"shard {legible(short(shard))}: {heat_text(most)}, up to {clock_time(time)}"
                yield start, width, last - at, at - since + 1, most, text
        under = here


def heat_changes(points: Sequence[HeatPoint]) -> list[str]:
    """Return the last splits and merges that were seen, the newest first.

    >>> heat_changes([(0, {"shardId-0": (0.0, 1.0, None)}), (1, {"shardId-1": (0.0, 0.5, None)})])
    ['00:00:00 UTC: 0 became 1']
    """
    found = []
    for (_, before), (time, after) in pairwise(points):
        gone, came = before.keys() - after.keys(), after.keys() - before.keys()
        if before and gone and came:
            names = (", ".join(sorted(legible(short(one)) for one in some)) for some in (gone, came))
            found.append(f"{clock_time(time)}: {' became '.join(names)}")
    return found[::-1][:_MOST_CHANGES]
