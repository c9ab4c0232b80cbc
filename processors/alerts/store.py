"""Store what is known of each rule and key: one ledger document for each key that fires, is about to, or has fired.

A change is stored together with the state that it led to, in one conditional write, and leaves the document when every
target has accepted it. After a crash in between it is still there, and the next turn publishes it under the same id.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from headwater.aggregates.merging import iso_ms
from headwater.contract.keyvalues import KeyValue
from headwater.errors import Fenced
from headwater.ledger import Ledger
from headwater.processors.alerts.events import episode_id
from headwater.processors.alerts.machine import Change, Episode, State
from headwater.processors.alerts.rules import Rule

__all__ = ["AlertStore", "Entry", "alert_rows"]


@dataclass(frozen=True)
class Entry:
    """Hold what is known of one key of a rule.

    `waiting` are the changes that some target has not accepted, oldest first.
    """

    rule: str
    key: str
    parts: Mapping[str, object]
    """The key by its columns."""
    state: State = field(default_factory=State)
    waiting: tuple[Change, ...] = ()
    accepted: Mapping[str, int] = field(default_factory=dict)
    """Number by target of the waiting changes that it has accepted, counted from the oldest."""
    rev: int = 0

    @property
    def is_needed(self) -> bool:
        """Return True when there is something to store."""
        return self.state.is_kept or bool(self.waiting)

    def next_for(self, target: str) -> Change | None:
        """Return the oldest change that the target has not accepted; None when it has accepted all."""
        at = self.accepted.get(target, 0)
        return self.waiting[at] if at < len(self.waiting) else None

    def accepted_by(self, target: str) -> "Entry":
        """Return the entry after the target has accepted its next change."""
        return replace(self, accepted={**self.accepted, target: self.accepted.get(target, 0) + 1})

    def settled(self, targets: Collection[str]) -> "Entry":
        """Return the entry without the changes that all of these targets have accepted.

        Counts of targets that are no longer configured are dropped too.
        """
        counts = {target: self.accepted.get(target, 0) for target in targets}
        done = min(counts.values(), default=len(self.waiting))
        left = {target: count - done for target, count in counts.items() if count > done}
        return replace(self, waiting=self.waiting[done:], accepted=left)


class AlertStore:
    """Read and write the entries of a pipeline's rules.

    Every write is conditional on the entry's revision and raises Fenced when somebody else has written in between.
    """

    def __init__(self, client: Any, table: str, pipeline: str) -> None:
        self._client, self._table, self._pipeline = client, table, pipeline

    def entries(self, rule: str) -> dict[str, Entry]:
        """Return the entries of one rule, by key."""
        found = (_entry(rule, doc, rev) for doc, rev in self._ledger(rule).documents().values())
        return {entry.key: entry for entry in found}

    def entry(self, rule: str, key: str) -> Entry | None:
        """Return the entry of a key; None when nothing is stored of it."""
        doc, rev = self._ledger(rule).document(_name(key))
        return _entry(rule, doc, rev) if rev else None

    def save(self, entry: Entry) -> Entry:
        """Store it if its revision is still the one it was read with; remove it when there is nothing to remember."""
        if not entry.is_needed:
            self.remove(entry)
            return replace(entry, rev=0)
        doc = {
            "key": entry.key,
            "parts": dict(entry.parts),
            "state": asdict(entry.state),
            "waiting": [astuple(change) for change in entry.waiting],
            "accepted": dict(entry.accepted),
        }
        return replace(entry, rev=self._ledger(entry.rule).put_document(_name(entry.key), doc, entry.rev))

    def remove(self, entry: Entry) -> None:
        """Delete an entry; raise Fenced when its revision is no longer the one it was read with."""
        if not entry.rev:  # never stored
            return
        try:
            self._client.delete_item(
                TableName=self._table,
                Key={"pipeline": {"S": self._ledger(entry.rule).pipeline}, "item": {"S": f"doc#{_name(entry.key)}"}},
                ConditionExpression="rev = :r OR attribute_not_exists(rev)",
                ExpressionAttributeValues={":r": {"N": str(entry.rev)}},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            raise Fenced(f"alert {entry.rule}: what is known of a key was changed by somebody else") from None

    def having(self, rules: Iterable[str], key: KeyValue) -> list[Entry]:
        """Return the entries whose key column has this value."""
        found = (entry for rule in rules for entry in self.entries(rule).values())
        return [entry for entry in found if key.matches(entry.parts.get(key.column))]

    def _ledger(self, rule: str) -> Ledger:
        # partitions of their own, so that many alerts at once leave the shards' commits their throughput
        return Ledger(self._client, self._table, f"{self._pipeline}/alerts/{rule}")


def alert_rows(pipeline: str, rules: Sequence[Rule], store: AlertStore) -> list[dict[str, object]]:
    """Return a row for each key that is firing, pending or cleared: in this order, the latest first in each."""
    order = ("firing", "pending", "cleared")
    found = [
        _row(pipeline, rule, entry)
        for rule in rules
        for entry in store.entries(rule.name).values()
        if entry.state.is_kept
    ]
    # three stable sorts, the least important first
    found.sort(key=lambda row: (str(row["alert"]), str(row["key"])))
    found.sort(key=lambda row: str(row["since"]), reverse=True)
    return sorted(found, key=lambda row: order.index(str(row["state"])))


def _row(pipeline: str, rule: Rule, entry: Entry) -> dict[str, object]:
    """Return the row of one entry; a pending key has no episode id, because it may never have an episode."""
    state, last = entry.state, entry.state.last
    over = last if state.phase == "calm" else None
    since = over.since_ms if over else state.since_ms
    return {
        "alert": rule.name,
        "key": entry.key,
        "state": "cleared" if over else state.phase,
        "since": iso_ms(since),
        "cleared": iso_ms(over.cleared_ms) if over else None,
        "value": over.value if over else state.value,
        "condition": str(rule),
        "view": rule.view,
        "summary": rule.summary,
        "episode": "" if state.phase == "pending" else episode_id(pipeline, rule.name, entry.key, since),
        "unpublished": len(entry.waiting),
    }


def _name(key: str) -> str:
    """Return the name of a key's document: a hash, since a key may be longer than a DynamoDB sort key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _entry(rule: str, doc: Mapping[str, Any], rev: int) -> Entry:
    last = doc["state"]["last"]
    state = State(**{**doc["state"], "last": last and Episode(**last)})
    return Entry(
        rule, doc["key"], doc["parts"], state, tuple(Change(*one) for one in doc["waiting"]), doc["accepted"], rev
    )
