"""A change of an alert as a CloudEvents event (structured, JSON), under an id that follows from what has changed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from headwater.aggregates import iso_ms
from processors.alerts.machine import Change
from processors.alerts.rules import Rule

__all__ = ["TYPE", "episode_id", "event_of"]

TYPE = "headwater.alert."
"""The `type` of an event is this and `raised` or `cleared`."""


def episode_id(pipeline: str, rule: str, key: str, since_ms: int) -> str:
    """The same for everybody who finds this episode, at any time."""
    return hashlib.sha256(json.dumps([pipeline, rule, key, since_ms]).encode()).hexdigest()[:32]


def event_of(pipeline: str, rule: Rule, key: str, parts: Mapping[str, object], change: Change) -> dict[str, Any]:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. `key` is the key as text."""
    episode = episode_id(pipeline, rule.name, key, change.since_ms)
    return {
        "specversion": "1.0",
        "id": f"{episode}.{change.kind}",
        "source": f"/headwater/{quote(pipeline)}/alerts/{quote(rule.name)}",
        "type": TYPE + change.kind,
        "subject": key,
        "time": iso_ms(change.at_ms),
        "datacontenttype": "application/json",
        "data": {
            "episode": episode,
            "pipeline": pipeline,
            "rule": rule.name,
            "condition": str(rule),
            "summary": rule.summary,
            "view": rule.view,
            "key": dict(parts),
            "since": iso_ms(change.since_ms),
            "at": iso_ms(change.at_ms),
            "value": change.value,
        },
    }
