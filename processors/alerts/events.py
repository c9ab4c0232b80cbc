"""A change of an alert as a CloudEvents event (structured, JSON), under an id that follows from what has changed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from headwater.aggregates import iso_ms
from processors.alerts.machine import Change
from processors.alerts.rules import Rule

__all__ = ["TYPE", "About", "episode_id", "event_of"]

TYPE = "headwater.alert."
"""The `type` of an event is this and `raised` or `cleared`."""


@dataclass(frozen=True)
class About:
    """What events say of their rule. It is kept beside what the rule has found, for when the rule is taken out."""

    rule: str
    view: str
    condition: str
    summary: str

    @classmethod
    def of(cls, rule: Rule) -> "About":
        return cls(rule.name, rule.view, str(rule), rule.summary)


def episode_id(pipeline: str, rule: str, key: str, since_ms: int) -> str:
    """The same for everybody who finds this episode, at any time."""
    return hashlib.sha256(json.dumps([pipeline, rule, key, since_ms]).encode()).hexdigest()[:32]


def event_of(pipeline: str, about: About, key: str, parts: Mapping[str, object], change: Change) -> dict[str, Any]:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md. `key` is the key as text; an empty one is no
    subject, which the specification says is not empty."""
    episode = episode_id(pipeline, about.rule, key, change.since_ms)
    return {
        "specversion": "1.0",
        "id": f"{episode}.{change.kind}",
        "source": f"/headwater/{quote(pipeline)}/alerts/{quote(about.rule)}",
        "type": TYPE + change.kind,
        **({"subject": key} if key else {}),
        "time": iso_ms(change.at_ms),
        "datacontenttype": "application/json",
        "data": {
            "episode": episode,
            "pipeline": pipeline,
            "rule": about.rule,
            "condition": about.condition,
            "summary": about.summary,
            "view": about.view,
            "key": dict(parts),
            "since": iso_ms(change.since_ms),
            "at": iso_ms(change.at_ms),
            "value": change.value,
        },
    }
