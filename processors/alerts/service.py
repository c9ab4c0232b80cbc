"""The alerts service: looks at the windows that have become final, and tells what has changed. Several may run, one
leads.

The ledger document `alerts` holds the leader's lease and, by rule, up to where windows have been judged. It moves on
only after the changes are stored; whatever is judged again after a crash gives the same states and the same ids.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import Fenced, HeadwaterError, UsageError
from headwater.ledger import watermark_of
from processors.alerts.events import event_of
from processors.alerts.machine import CALM, Reading, advance
from processors.alerts.publishers import BATCH, Publish
from processors.alerts.rules import Rule
from processors.alerts.store import Entry
from processors.services import Services
from processors.shards.service import Stop
from sinks.viewitems import key_text

__all__ = ["Alerts", "Turn"]

log = logging.getLogger("headwater.alerts")

_DOCUMENT = "alerts"
_MOST_WINDOWS = 240
"""Judged in a turn: bounds the rows in memory when there is much to catch up with."""
_MARKED = 100
"""Entries whose events are published before they are marked: so many may be published again after a crash."""

Row = Mapping[str, object]


@dataclass(frozen=True)
class Turn:
    """What one turn did."""

    raised: int = 0
    cleared: int = 0
    published: int = 0
    judged: int = 0
    """Windows of keys, by rule."""
    behind: int = 0
    """Rules that have final windows left."""

    def __add__(self, other: "Turn") -> "Turn":
        return Turn(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


class Alerts:
    """The rules of one pipeline, maybe none, evaluated by whoever holds the lease."""

    def __init__(self, services: Services, publish: Publish, owner: str) -> None:
        self._pipeline = services.pipeline
        if self._pipeline.alerts and not self._pipeline.pure:
            raise UsageError(
                f"pipeline {self._pipeline.name} writes its views after its commits (a function is not pure), so no "
                "row of a view is known to be final: alerts need pure functions"
            )
        self._services, self._publish, self._owner = services, publish, owner
        self._store = services.alerts
        self._entries: dict[str, dict[str, Entry]] = {}
        self._pool = ThreadPoolExecutor(services.settings.view_writers, thread_name_prefix="alerts")

    def run(self, stop: Stop, period: float) -> None:
        """Until stopped. What fails is logged and done again at the next turn."""
        while True:
            turn = None
            try:
                turn = self.turn(lease_seconds=max(30.0, 3 * period))
                if turn:
                    log.info("alerts judged", extra=asdict(turn))
            except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
                self._entries = {}
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
            if stop.wait(0.0 if turn and turn.behind else period):
                self._release()
                return

    def once(self) -> Turn | None:
        """Judge and publish all that is final by now, and let another lead."""
        done = Turn()
        while True:
            turn = self.turn()
            if turn is None:
                return None
            done = replace(done + turn, behind=turn.behind)
            if not turn.behind:
                self._release()
                return done

    def turn(self, lease_seconds: float = 30.0) -> Turn | None:
        """Judge what has become final and publish what has changed; None while somebody else leads.

        While events of an earlier turn cannot be published nothing new is judged: it waits in the views.
        """
        ledger, now = self._services.ledger, self._services.clock.now_ms()
        doc, rev = ledger.document(_DOCUMENT)
        if doc.get("owner") != self._owner:
            self._entries = {}
            if doc.get("until_ms", 0) > now:
                return None
        lease = {"through": {}, **doc, "owner": self._owner, "until_ms": now + round(lease_seconds * 1000)}
        try:
            rev = ledger.put_document(_DOCUMENT, lease, rev)
        except Fenced:
            return None
        for rule in self._pipeline.alerts:
            if rule.name not in self._entries:
                self._entries[rule.name] = self._store.entries(rule.name)
        done = Turn(published=self._publish_waiting())
        idle = round(self._services.settings.alerts_idle_seconds * 1000)
        mark = watermark_of(ledger.shards(), now - idle if idle else None)
        if mark is not None:
            judged, through = self._judge_all(lease["through"], mark)
            done += judged
            if through != lease["through"]:
                ledger.put_document(_DOCUMENT, {**lease, "through": through}, rev)
            done += Turn(published=self._publish_waiting())
        return done

    def _judge_all(self, through: Mapping[str, int], mark_ms: int) -> tuple[Turn, dict[str, int]]:
        """All rules up to the watermark; how far each is then."""
        done, reached = Turn(), dict(through)
        for view in self._pipeline.views:
            spans = {}
            for rule in (rule for rule in self._pipeline.alerts if rule.view == view.name):
                every = rule.window.every_ms
                until = mark_ms // every * every
                # a new rule looks back as far as it takes to fire
                after = through.get(rule.name, (until - rule.for_ms) // every * every - every)
                stop = min(until, after + _MOST_WINDOWS * every)
                if stop > after:
                    spans[rule] = after, stop
                    reached[rule.name] = stop
                    done += Turn(behind=int(stop < until))
            if spans:
                rows = self._rows(view.name, spans)
                done = sum((self._judge(rule, rows, *span) for rule, span in spans.items()), done)
        return done, reached

    def _rows(self, name: str, spans: Mapping[Rule, tuple[int, int]]) -> dict[str, list[tuple[int, Row]]]:
        """The view's rows that the rules need, with the ends of their windows, by key."""
        size, every = next(iter(spans)).window.size_ms, next(iter(spans)).window.every_ms
        first = min((after - rule.lookback_ms) // every * every for rule, (after, _) in spans.items())
        last = max(stop for _, stop in spans.values())
        starts = range(max(0, first - size), last - size + 1, every)
        spec = self._services.view_specs[name]
        found: dict[str, list[tuple[int, Row]]] = defaultdict(list)
        for row in self._services.views.at(spec, starts):
            end = round(datetime.fromisoformat(str(row["window_end"])).timestamp() * 1000)
            found[key_text([row.get(column) for column in spec.by])].append((end, row))
        return found

    def _judge(self, rule: Rule, rows: Mapping[str, Sequence[tuple[int, Row]]], after: int, until: int) -> Turn:
        entries, changed, done = self._entries[rule.name], [], Turn()
        for key, found in rows.items():
            entry = entries.get(key, Entry(rule.name, key, CALM))
            readings = [Reading(end, _number(row.get(rule.when.column))) for end, row in found]
            state, changes = advance(rule, entry.state, readings, after, until)
            done += Turn(judged=sum(after < end <= until for end, _ in found))
            if state == entry.state:
                continue
            parts = {column: found[0][1].get(column) for column in self._services.view_specs[rule.view].by}
            events = [event_of(self._pipeline.name, rule, key, parts, change) for change in changes]
            changed.append(replace(entry, state=state, waiting=events))
        for entry in self._pool.map(self._store.save, changed):
            entries[entry.key] = entry
            done += self._tell(entry)
        return done

    def _tell(self, entry: Entry) -> Turn:
        """Log what waits to be published; how much of it there is."""
        for event in entry.waiting:
            log.warning(event["type"], extra={"id": event["id"], "key": entry.key, **event["data"]})
        raised = sum(event["type"].endswith("raised") for event in entry.waiting)
        return Turn(raised=raised, cleared=len(entry.waiting) - raised)

    def _publish_waiting(self) -> int:
        """Every event that is not known to be published, in order for each key."""
        waiting = [entry for known in self._entries.values() for entry in known.values() if entry.waiting]
        for at in range(0, len(waiting), _MARKED):
            some = waiting[at : at + _MARKED]
            events = [event for entry in some for event in entry.waiting]
            for first in range(0, len(events), BATCH):
                self._publish(events[first : first + BATCH])
            for entry in self._pool.map(self._store.published, some):
                self._entries[entry.rule][entry.key] = entry
        return sum(len(entry.waiting) for entry in waiting)

    def _release(self) -> None:
        """Let another lead at once."""
        try:
            doc, rev = self._services.ledger.document(_DOCUMENT)
            if doc.get("owner") == self._owner:
                self._services.ledger.put_document(_DOCUMENT, {**doc, "until_ms": 0}, rev)
        except (HeadwaterError, ClientError, BotoCoreError) as error:
            log.warning("the lease is kept until it runs out", extra={"reason": str(error)})


def _number(value: Any) -> float | None:
    """As the machine takes it: NaN, infinities and texts say nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
