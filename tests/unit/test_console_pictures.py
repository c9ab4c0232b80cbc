"""The console's pictures: rates as lines, and the heat of the hash space over time, with splits and merges."""

import re
from dataclasses import replace
from xml.etree import ElementTree

from headwater.serving.console.overview import Hop, heat_point, shard_rows
from headwater.serving.console.pictures import heat_changes, heat_picture, sparkline
from headwater.serving.console.shards import heat_summary
from headwater.serving.console.theme import COLD, HOT
from tests.unit.test_console import FOUND

ONE = {"shardId-0": (0.0, 1.0, 0.1)}
TWO = {"shardId-1": (0.0, 0.5, 0.9), "shardId-2": (0.5, 0.5, 0.1)}
POINTS = [(0, ONE), (10_000, ONE), (20_000, TWO), (30_000, TWO)]
SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(picture.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    return [dict(one.attrib, title=str(one[0].text)) for one in root.iter(f"{SVG}rect")]


def test_a_split_is_a_box_above_which_others_lie() -> None:
    """Time goes up, the newest on top; a shard is one box for as long as its colour stays."""
    found = {one["title"]: one for one in boxes(heat_picture(POINTS))}
    parent = found["shard 0: 10%, up to 00:00:10 UTC"]
    left = found["shard 1: 90%, up to 00:00:30 UTC"]
    right = found["shard 2: 10%, up to 00:00:30 UTC"]
    assert len(found) == 3
    assert [parent[name] for name in ("x", "y", "width", "height", "fill")] == ["0", "2", "1000", "2", COLD]
    assert [left[name] for name in ("x", "y", "width", "height", "fill")] == ["0", "0", "500", "2", HOT]
    assert [right[name] for name in ("x", "y", "width", "fill")] == ["500", "0", "500", COLD]
    assert heat_changes(POINTS) == ["00:00:20 UTC: 0 became 1, 2"]
    assert heat_changes([*POINTS, (40_000, {}), (50_000, ONE)]) == ["00:00:20 UTC: 0 became 1, 2"]
    assert heat_summary([*POINTS, (60_000, ONE)]).endswith("00:01:00 UTC: 1, 2 became 0. 00:00:20 UTC: 0 became 1, 2.")


def test_a_colour_that_changes_begins_a_box() -> None:
    hotter = {"shardId-0": (0.0, 1.0, 0.95)}
    found = boxes(heat_picture([(0, ONE), (10_000, hotter), (20_000, hotter)]))
    assert [(one["y"], one["height"], one["fill"]) for one in found] == [("2", "1", COLD), ("0", "2", HOT)]


def test_pictures_are_bounded_and_their_names_are_text() -> None:
    """However many shards change their colour however often."""
    many = [
        (at, {f"<b>{number}": (number / 256, 1 / 256, 0.9 if (at + number) % 2 else 0.1) for number in range(256)})
        for at in range(90)
    ]
    picture = heat_picture(many)
    assert "<b>" not in picture
    assert 256 <= len(boxes(picture)) <= 2_000
    assert len(picture) < 500_000
    assert heat_picture([]).count("<rect") == 0
    (row, *_) = (one for one in shard_rows(FOUND) if one.open)
    rows = [replace(row, shard_id=str(number)) for number in range(257)]
    assert heat_point(7, rows) == (7, {})
    assert len(heat_point(7, rows[:256])[1]) == 256


def test_a_line_breaks_where_nothing_was_read() -> None:
    assert re.findall("[ML]", sparkline([1, 2, None, 3, 4])) == ["M", "L", "M", "L"]
    assert sparkline([]).endswith('<path d=""/></svg>')
    assert "nan" not in sparkline([0.0, 0.0])


def test_a_place_is_amiss_before_it_is_late() -> None:
    assert Hop("a", None, None, None).state == "well"
    assert Hop("a", None, None, 59_999).state == "well"
    assert Hop("a", None, None, 60_000).state == "late"
    assert Hop("a", None, None, 60_000, needs_attention=True).state == "amiss"
