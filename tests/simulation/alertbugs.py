"""Mistakes in the alerts service, to be planted: see `tests/simulation/bugs.py`."""

from typing import Any

from headwater.processors import watermark

__all__ = ["ALERT_BUGS"]


def _any_mark(marks: Any) -> int | None:
    return max((mark for mark in marks if mark is not None), default=None)


ALERT_BUGS: dict[str, list[tuple[Any, str, Any]]] = {
    "a window is final when one shard has been read": [(watermark, "_least", _any_mark)],
}
