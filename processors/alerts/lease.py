"""Who leads, and how far each rule has been judged: the ledger document `alerts`."""

from collections.abc import Mapping
from typing import Any, Protocol

from headwater.clock import Clock
from headwater.errors import Fenced
from processors.alerts.events import About

__all__ = ["DOCUMENT", "Lease", "known_rules"]

DOCUMENT = "alerts"


class _Documents(Protocol):
    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int: ...


class Lease:
    """Held by one service at a time. Every write is conditional on nobody having written since, so whoever was
    overtaken meets Fenced at the next one: stop, publish nothing more, drop what is in memory."""

    def __init__(self, documents: _Documents, clock: Clock, owner: str) -> None:
        self._documents, self._clock, self._owner = documents, clock, owner
        self._doc: dict[str, Any] = {}
        self._rev = self._held_ms = self._written_ms = 0

    def take(self, seconds: float) -> bool | None:
        """Lead for so long from now, or go on leading. None while somebody else leads; True when another has led, or
        could have, since this one last did."""
        self._doc, self._rev = self._documents.document(DOCUMENT)
        is_new = self._doc.get("owner") != self._owner
        if is_new and self._doc.get("until_ms", 0) > self._clock.now_ms():
            return None
        self._held_ms = round(seconds * 1000)
        try:
            self._write()
        except Fenced:
            return None
        return is_new

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self._held_ms / 1000

    def hold(self) -> None:
        """To be called often: renews the lease when a third of it has passed. Fenced when another has taken it."""
        if self._clock.now_ms() - self._written_ms >= self._held_ms // 3:
            self._write()

    def release(self) -> None:
        """Let another lead at once, if nobody does yet."""
        self._doc, self._rev = self._documents.document(DOCUMENT)
        if self._doc.get("owner") == self._owner:
            self._documents.put_document(DOCUMENT, {**self._doc, "until_ms": 0}, self._rev)

    def rules(self) -> list[tuple[About, int]]:
        """Those that were judged, and up to where."""
        known = self._doc.get("rules", {})
        return [(About(name, one["view"], one["condition"], one["summary"]), one["to"]) for name, one in known.items()]

    def judged(self, reached: Mapping[About, int]) -> None:
        """Store how far these are."""
        new = {
            one.rule: {"to": to, "view": one.view, "condition": one.condition, "summary": one.summary}
            for one, to in reached.items()
        }
        self._doc = {**self._doc, "rules": self._doc.get("rules", {}) | new}
        self._write()

    def drop(self, rule: str) -> None:
        """Nothing is known of this rule any more."""
        self._doc = {**self._doc, "rules": {name: one for name, one in self._doc["rules"].items() if name != rule}}
        self._write()

    def _write(self) -> None:
        now = self._clock.now_ms()
        self._doc = {**self._doc, "owner": self._owner, "until_ms": now + self._held_ms}
        self._rev = self._documents.put_document(DOCUMENT, self._doc, self._rev)
        self._written_ms = now


def known_rules(documents: _Documents) -> list[str]:
    """The names of the rules that something may be kept of."""
    return list(documents.document(DOCUMENT)[0].get("rules", {}))
