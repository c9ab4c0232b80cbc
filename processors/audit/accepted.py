"""Keep what somebody has accepted as missing, with name and reason, in the ledger.

The ledger document `audit-accepted` has an entry for each acceptance: who, why, when, how many. The identities
themselves are an object in the bucket, because a large deletion would not fit into an item of 400 KB.

An acceptance is for what was missing then, at the hop where it was missing. It ends for what comes back: the audit that
sees it there takes it out of the acceptance, so that it is missing when it goes again. Foreign events have no names of
their own; see `presence` for what theirs is bound to.
"""

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from headwater.errors import UsageError
from headwater.lineage.origins import OriginSets
from headwater.processors.audit.presence import ForeignPresence
from headwater.processors.audit.report import Acknowledged, AuditReport, Evidence
from headwater.stores import DocumentReader, DocumentStore, ObjectStore

__all__ = ["DOCUMENT", "AcceptedGaps", "accept_missing", "accepted_gaps", "end_returned"]

DOCUMENT = "audit-accepted"
_MOST_BYTES = 350_000
"""Maximum size of the document: DynamoDB takes an item of 400 KB."""
_WHO, _WHY = 100, 300


@dataclass(frozen=True)
class AcceptedGaps:
    """Hold all that was accepted as missing so far."""

    missing: OriginSets = field(default_factory=OriginSets)
    """Processed, and not in the lake."""
    unprocessed: OriginSets = field(default_factory=OriginSets)
    """Told in receipts, and not processed."""
    foreign: int = 0
    """Foreign events by number alone, as acceptances of earlier versions have them."""
    presence: ForeignPresence | None = None
    """The foreign events that were there at the last acceptance of missing ones; it stands for all before it."""
    losses: Mapping[str, int] = field(default_factory=dict)
    by: tuple[Acknowledged, ...] = ()


def accepted_gaps(documents: DocumentReader, objects: ObjectStore) -> AcceptedGaps:
    """Return what was accepted as missing in the pipeline of these documents."""
    missing, unprocessed, foreign, losses, by = OriginSets(), OriginSets(), 0, dict[str, int](), list[Acknowledged]()
    presence = None
    for one in documents.document(DOCUMENT)[0].get("accepted", ()):
        for name, number in one["losses"].items():
            losses[name] = losses.get(name, 0) + int(number)
        by.append(Acknowledged(one["who"], one["why"], int(one["at_ms"]), int(one["events"])))
        if one.get("presence"):
            presence = ForeignPresence.loads(objects.get(one["presence"]))
        else:
            foreign += int(one["foreign"])
        if one["key"]:
            missing.update(_read(objects, one["key"]))
        # acceptances of earlier versions do not tell the hops apart
        key = one.get("unprocessed", one["key"])
        if key:
            unprocessed.update(_read(objects, key))
    return AcceptedGaps(missing, unprocessed, foreign, presence, losses, tuple(by))


def end_returned(pipeline: str, documents: DocumentStore, objects: ObjectStore, found: Evidence) -> None:
    """Take out of the acceptances what has come back: should it go missing again, it is missing."""
    if not found.returned.count() and found.foreign_returned is None:
        return
    for number, one in enumerate(documents.document(DOCUMENT)[0].get("accepted", ())):
        new: dict[str, str] = {}
        if one["key"]:
            new["key"] = _without(pipeline, objects, one["key"], found.returned)
        if one.get("presence") and found.foreign_returned is not None:
            presence = ForeignPresence.loads(objects.get(one["presence"])).with_returned(found.foreign_returned)
            new["presence"] = _put_body(pipeline, objects, presence.dumps())
        changed = {name: key for name, key in new.items() if key != one[name]}
        if changed:
            _replace(documents, number, one, changed)


def _replace(documents: DocumentStore, number: int, old: Mapping[str, Any], changed: Mapping[str, str]) -> None:
    """Give one acceptance other objects, unless somebody else has done so meanwhile."""

    def replaced(document: dict[str, Any]) -> dict[str, Any] | None:
        entries = list(document.get("accepted", ()))
        if number >= len(entries) or entries[number] != old:
            return None
        before = {"unprocessed": old["key"]} if "unprocessed" not in old else {}
        entries[number] = {**old, **before, **changed}
        return {**document, "accepted": entries}

    documents.change(DOCUMENT, replaced)


def _without(pipeline: str, objects: ObjectStore, key: str, returned: OriginSets) -> str:
    """Return the key of an object without these identities; the same key where it has none of them."""
    old, kept = _read(objects, key), OriginSets()
    for name in old.origins():
        kept.add_intervals(name, old.get(name).difference(returned.get(name)), 0)
    return key if kept.count() == old.count() else _put(pipeline, objects, kept)


def accept_missing(
    pipeline: str,
    documents: DocumentStore,
    objects: ObjectStore,
    report: AuditReport,
    *,
    who: str,
    why: str,
    now_ms: int,
    origins: Sequence[str] = (),
) -> Acknowledged:
    """Write down that what the report calls missing or lost is accepted as such; return the acceptance.

    With `origins` only what is missing of these. Copies, and events of the lake that no shard has processed, cannot be
    accepted: there the lake is wrong, not short.

    Raises UsageError when nothing of it is missing, and for a name or a reason that is empty or too long.
    """
    _check("--who", who, _WHO)
    _check("--why", why, _WHY)
    missing, unprocessed = _missing(report, origins)
    foreign, losses = (0, {}) if origins else (report.foreign.missing, dict(report.losses))
    events = missing.count() + unprocessed.count() + foreign + sum(losses.values())
    if not events:
        named = f" of {', '.join(origins)}" if origins else ""
        raise UsageError(f"pipeline {pipeline}: nothing is missing{named}, so there is nothing to accept")
    # the objects first: a death before the document leaves objects that nothing names
    keys = {"key": _put(pipeline, objects, missing), "unprocessed": _put(pipeline, objects, unprocessed)}
    if foreign and report.evidence.foreign is not None:
        keys["presence"] = _put_body(pipeline, objects, report.evidence.foreign.dumps())
    entry = {"who": who, "why": why, "at_ms": now_ms, "events": events, "foreign": foreign, "losses": losses}

    def added(document: dict[str, Any]) -> dict[str, Any]:
        changed = {**document, "accepted": [*document.get("accepted", []), {**entry, **keys}]}
        if len(json.dumps(changed)) > _MOST_BYTES:
            raise UsageError(f"pipeline {pipeline} has as many acceptances as an item holds: no more are kept")
        return changed

    documents.change(DOCUMENT, added)
    return Acknowledged(who, why, now_ms, events)


def _check(option: str, text: str, most: int) -> None:
    if not text.strip():
        raise UsageError(f"{option} is empty: an acceptance says by whom and why")
    if len(text) > most:
        raise UsageError(f"{option} has {len(text)} characters, {most} at most are kept")


def _missing(report: AuditReport, origins: Sequence[str]) -> tuple[OriginSets, OriginSets]:
    """Return what is processed and not in the lake, and what is not processed."""
    lost, unprocessed = OriginSets(), OriginSets()
    for one in report.origins:
        if not origins or one.origin in origins:
            lost.add_intervals(one.origin, one.not_in_lake, 0)
            unprocessed.add_intervals(one.origin, one.not_processed, 0)
    if report.single is not None:
        for sets, names in ((lost, report.single.missing_origins), (unprocessed, report.single.unprocessed_origins)):
            for name in names:
                if not origins or name in origins:
                    sets.add_intervals(name, [(0, 1)], 0)
    return lost, unprocessed


def _read(objects: ObjectStore, key: str) -> OriginSets:
    return OriginSets.from_table(pa.ipc.open_stream(objects.get(key)).read_all())


def _put(pipeline: str, objects: ObjectStore, missing: OriginSets) -> str:
    if not missing.count():
        return ""
    sink, table = io.BytesIO(), missing.to_table()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _put_body(pipeline, objects, sink.getvalue())


def _put_body(pipeline: str, objects: ObjectStore, body: bytes) -> str:
    key = f"audit/{pipeline}/accepted/{uuid.uuid4().hex}.arrow"
    objects.put(key, body)
    return key
