"""Store how far each rule has been judged: fields of the ledger document `alerts`, beside its leader's lease."""

from collections.abc import Mapping
from typing import Any

from headwater.lease import Lease
from headwater.processors.alerts.events import About
from headwater.stores import DocumentReader

__all__ = ["DOCUMENT", "RuleProgress", "known_rules"]

DOCUMENT = "alerts"


class RuleProgress:
    """Read and write the rules' progress under the lease. Writing raises Fenced when another service has taken it."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def rules(self) -> list[tuple[About, int]]:
        """Return the rules that were judged, each with the event time (epoch ms) up to which it was."""
        known = self._lease.document.get("rules", {})
        return [(About(name, one["view"], one["condition"], one["summary"]), one["to"]) for name, one in known.items()]

    def judged(self, reached: Mapping[About, int]) -> None:
        """Store how far these rules are judged."""
        new = {
            one.rule: {"to": to, "view": one.view, "condition": one.condition, "summary": one.summary}
            for one, to in reached.items()
        }
        self._lease.update(rules=self._known() | new)

    def drop(self, rule: str) -> None:
        """Remove the rule from the document."""
        self._lease.update(rules={name: one for name, one in self._known().items() if name != rule})

    def _known(self) -> dict[str, Any]:
        known: dict[str, Any] = self._lease.document.get("rules", {})
        return known


def known_rules(documents: DocumentReader) -> list[str]:
    """Return the names of the rules of which something may be stored."""
    return list(documents.document(DOCUMENT)[0].get("rules", {}))
