"""Format a change of an alert as a CloudEvents event (structured mode, JSON).

The event's id follows from the change alone, so whoever sends it again sends it under the same id.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from headwater.aggregates.merging import iso_ms
from headwater.processors.alerts.machine import Change
from headwater.processors.alerts.rules import Rule

__all__ = ["TYPE", "About", "episode_id", "event_of"]

TYPE = "headwater.alert."
"""Prefix of an event's `type`, before `raised` or `cleared`."""


@dataclass(frozen=True)
class About:
    """Hold what events say of their rule.

    It is stored beside the rule's progress, because a rule that was taken out of the pipeline still has events to send.
    """

    rule: str
    view: str
    condition: str
    summary: str

    @classmethod
    def of(cls, rule: Rule) -> "About":
        """Return the description of a rule."""
        return cls(rule.name, rule.view, str(rule), rule.summary)


def episode_id(pipeline: str, rule: str, key: str, since_ms: int) -> str:
    """Return the id of an episode: the same in every process and after every restart.

    >>> len(episode_id("plant", "hot", "d1", 0))
    32
    """
    # a JSON array, so that ("a", "bc") and ("ab", "c") do not run together
    return hashlib.sha256(json.dumps([pipeline, rule, key, since_ms]).encode()).hexdigest()[:32]


def event_of(pipeline: str, about: About, key: str, parts: Mapping[str, object], change: Change) -> dict[str, Any]:
    """Return a change as an event by https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md.

    `key` is the key as text. An event of the empty key has no subject, because the specification allows no empty one.
    """
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
