"""Mistakes in the alerts service, to be planted: see `tests/simulation/bugs.py`."""

import uuid
from typing import Any

from headwater.lease import PASSING
from headwater.processors import watermark
from headwater.processors.alerts import publishers, service
from headwater.processors.alerts.delivery import Delivery
from headwater.processors.alerts.events import About, event_of
from headwater.processors.alerts.service import Alerts

__all__ = ["ALERT_BUGS"]

_request = Delivery._request
_judge = Alerts._judge


def _taken_for_accepted(self: Delivery, target: str, publish: Any, entries: Any, event: Any) -> Any:
    def hopeful(events: Any) -> Any:
        try:
            return publish(events)
        except PASSING:
            return {}

    return _request(self, target, hopeful, entries, event)


def _progress_first(self: Alerts, view: str, spans: Any) -> Any:
    self._progress.judged({About.of(rule): span[1] for rule, span in spans.items()})
    return _judge(self, view, spans)


def _named_anew(pipeline: str, about: Any, key: str, parts: Any, change: Any) -> dict[str, Any]:
    return {**event_of(pipeline, about, key, parts, change), "id": uuid.uuid4().hex}


def _any_mark(marks: Any) -> int | None:
    return max((mark for mark in marks if mark is not None), default=None)


ALERT_BUGS: dict[str, list[tuple[Any, str, Any]]] = {
    "a target's request that failed counts as accepted": [(Delivery, "_request", _taken_for_accepted)],
    "an alert that a target refused counts as accepted": [(publishers, "_failed", lambda _: {})],
    "a rule is judged further before its changes are stored": [(Alerts, "_judge", _progress_first)],
    "an alert that is sent again has another id": [(service, "event_of", _named_anew)],
    "a window is final when one shard has been read": [(watermark, "_least", _any_mark)],
}
