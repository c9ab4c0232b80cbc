"""What is known of each rule and key, in the ledger's table: a document a key that ever was about to fire.

A change is stored together with the event that tells of it, in one conditional write; the event leaves the document
when it has been published. Who dies in between leaves it there, and the next turn publishes it under the same id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headwater.aggregates import iso_ms
from headwater.ledger import Ledger
from processors.alerts.events import episode_id
from processors.alerts.machine import State
from processors.alerts.rules import Rule

__all__ = ["AlertStore", "Entry", "alert_rows"]


@dataclass(frozen=True)
class Entry:
    """One key of a rule. `waiting` are the events not known to be published, oldest first."""

    rule: str
    key: str
    state: State = field(default_factory=State)
    waiting: Sequence[Mapping[str, Any]] = ()
    rev: int = 0


class AlertStore:
    """The entries of a pipeline's rules. A write is conditional on the revision: Fenced when somebody else wrote."""

    def __init__(self, client: Any, table: str, pipeline: str) -> None:
        self._client, self._table, self._pipeline = client, table, pipeline

    def entries(self, rule: str) -> dict[str, Entry]:
        """Of one rule, by key."""
        return {
            key: Entry(rule, key, State(**doc["state"]), doc["waiting"], rev)
            for key, (doc, rev) in self._ledger(rule).documents().items()
        }

    def save(self, entry: Entry) -> Entry:
        """Store it if its revision is still the one it was read with."""
        doc = {"state": asdict(entry.state), "waiting": list(entry.waiting)}
        return replace(entry, rev=self._ledger(entry.rule).put_document(entry.key, doc, entry.rev))

    def published(self, entry: Entry) -> Entry:
        """Nothing waits any more."""
        return self.save(replace(entry, waiting=()))

    def _ledger(self, rule: str) -> Ledger:
        # partitions of their own, so that many alerts at once leave the shards' commits their throughput
        return Ledger(self._client, self._table, f"{self._pipeline}/alerts/{rule}")


def alert_rows(pipeline: str, rules: Sequence[Rule], store: AlertStore) -> list[dict[str, object]]:
    """Every key that fires, is about to, or has fired: these in this order, the latest first."""
    order = ("firing", "pending", "calm")
    found = [
        (rule, entry)
        for rule in rules
        for entry in store.entries(rule.name).values()
        if entry.state.phase != "calm" or entry.state.since_ms
    ]
    found.sort(key=lambda one: (order.index(one[1].state.phase), -one[1].state.since_ms, one[0].name, one[1].key))
    return [_row(pipeline, rule, entry) for rule, entry in found]


def _row(pipeline: str, rule: Rule, entry: Entry) -> dict[str, object]:
    state = entry.state
    return {
        "alert": rule.name,
        "key": entry.key,
        "state": "cleared" if state.phase == "calm" else state.phase,
        "since": iso_ms(state.since_ms),
        "cleared": iso_ms(state.through_ms) if state.phase == "calm" else None,
        "value": state.value,
        "condition": str(rule),
        "view": rule.view,
        "summary": rule.summary,
        "episode": episode_id(pipeline, rule.name, entry.key, state.since_ms),
        "unpublished": len(entry.waiting),
    }
