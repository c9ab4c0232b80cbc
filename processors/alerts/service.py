"""Run the alerts service: judge the windows that have become final and publish the changes. Several may run; one leads.

The progress of a view's rules moves on as soon as their changes are stored; what is judged again after a crash gives
the same states and the same ids. The lease is renewed on the way, above all before each request: a service that has
lost it gets Fenced there and publishes nothing more.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TypeVar

from botocore.exceptions import ClientError

from headwater.clock import DAY_MS, HOUR_MS
from headwater.errors import UsageError
from headwater.lease import Lease, Stop, run_service
from headwater.processors.alerts.delivery import Delivery, Place
from headwater.processors.alerts.events import About, event_of
from headwater.processors.alerts.machine import CALM, Change, State, advance, close
from headwater.processors.alerts.progress import DOCUMENT, RuleProgress
from headwater.processors.alerts.publishers import Event, Publish
from headwater.processors.alerts.readings import WindowSpan, seen, starts
from headwater.processors.alerts.rules import Rule
from headwater.processors.alerts.store import AlertStore, Entry
from headwater.processors.generations import Serving
from headwater.processors.ports import PipelineStores, StreamClient
from headwater.processors.watermark import final_until
from headwater.sinks.views.store import ViewStore
from headwater.stream.shards import list_shards

__all__ = ["AlertPorts", "Alerts", "Turn"]

log = logging.getLogger("headwater.alerts")

_MOST_WINDOWS = 240
"""Most windows of a rule judged in a turn: bounds the readings in memory when there is much to catch up with."""
_AT_ONCE = 100
"""Entries read or stored between two looks at the lease."""
_MOST_WAITING = 1_000
"""Changes of a key; with so many a rule is judged no further until some are accepted. A document holds several times
that."""

_READ_AGAIN_MS = HOUR_MS
"""Time between a leader's readings of all that is stored; it removes then what is old."""
_KEPT_MS = 7 * DAY_MS
"""Event time for which the last episode of a key is kept when it has been cleared."""

Some = TypeVar("Some")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Turn:
    """Hold the counts of one turn."""

    raised: int = 0
    cleared: int = 0
    published: int = 0
    """Changes that all targets have accepted in this turn."""
    judged: int = 0
    """Windows judged, counted for each key and rule."""
    waiting: int = 0
    """Changes that some target has not accepted yet."""
    behind: int = 0
    """Rules that have final windows left."""

    def __add__(self, other: "Turn") -> "Turn":
        return Turn(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(frozen=True)
class AlertPorts:
    """Hold what alerts judge by, and where they keep what they found.

    A shard that has committed nothing for `idle_seconds` counts as read; 0 is never. `writers` threads write.
    """

    stores: PipelineStores
    stream: StreamClient
    views: ViewStore
    serving: Serving
    found: AlertStore
    idle_seconds: float
    writers: int


class Alerts:
    """Evaluate the rules of one pipeline, maybe none, while holding the lease."""

    def __init__(self, ports: AlertPorts, targets: Mapping[str, Publish], owner: str) -> None:
        stores = ports.stores
        self._pipeline = stores.pipeline
        if self._pipeline.alerts and not self._pipeline.pure:
            raise UsageError(
                f"pipeline {self._pipeline.name} writes its views after its commits (a function is not pure), so no "
                "row of a view is known to be final: alerts need pure functions"
            )
        self._ports, self._store, self._clock = ports, ports.found, stores.clock
        self._lease = Lease(stores.ledger, self._clock, DOCUMENT, owner)
        self._progress = RuleProgress(self._lease)
        self._delivery = Delivery(targets, self._clock)
        self._entries: dict[str, dict[str, Entry]] = {}
        """Entries by rule and key that are not calm or have a change waiting; others are read when needed."""
        self._read_ms = 0
        self._pool = ThreadPoolExecutor(ports.writers, thread_name_prefix="alerts")

    def run(self, stop: Stop, period: float) -> None:
        """Judge every `period` seconds until told to stop. A failed turn is logged and made again."""

        def turn() -> float:
            done = self.turn(lease_seconds=max(30.0, 3 * period))
            if done:
                log.info("alerts judged", extra=asdict(done))
            return 0.0 if done and done.behind else period

        run_service(stop, turn, self._lease, log, retry=period)

    def once(self) -> Turn | None:
        """Judge and publish all that is final by now, and let another lead."""
        done = Turn()
        try:
            while True:
                turn = self.turn()
                if turn is None:
                    return None
                done = replace(done + turn, behind=turn.behind, waiting=turn.waiting)
                if not turn.behind:
                    return done
        finally:
            self._lease.release()

    def turn(self, lease_seconds: float = 30.0) -> Turn | None:
        """Judge what has become final and publish what has changed; None while somebody else leads.

        What a target refuses waits for it and holds up nothing else. After an error the next turn reads all anew.
        """
        if not self._lease.acquire(lease_seconds):
            self._entries = {}  # the leader changes them from now on
            return None
        if self._lease.took_over:
            self._entries = {}
        try:
            return self._turn()
        except BaseException:  # what was stored by then is unknown, so memory must not be trusted
            self._entries = {}
            raise

    def _turn(self) -> Turn:
        """Do one turn under the lease: retire old rules, publish what waits, then judge view by view."""
        leaving, done = self._retire()
        rules = [rule for rule in self._pipeline.alerts if rule.name not in leaving]
        self._read(rules)
        done += self._publish(rules)
        mark = self._mark()
        for view in self._pipeline.views if mark is not None else ():
            spans, behind = self._spans([rule for rule in rules if rule.view == view.name], mark or 0)
            if spans:
                done += Turn(behind=behind) + self._judge(view.name, spans) + self._publish(rules)
        waiting = sum(len(entry.waiting) for known in self._entries.values() for entry in known.values())
        return replace(done, waiting=sum(leaving.values(), waiting))

    def _read(self, rules: Sequence[Rule]) -> None:
        """Load the entries of the rules that are not in memory, and delete those that are over for long."""
        now, reached = self._clock.now_ms(), {about.rule: to for about, to in self._progress.rules()}
        if now - self._read_ms >= _READ_AGAIN_MS:
            self._entries, self._read_ms = {}, now
        for rule in rules:
            if rule.name not in self._entries:
                found = self._held(partial(self._store.entries, rule.name)).values()
                old = [one for one in found if _is_over(one, reached.get(rule.name, 0) - _KEPT_MS)]
                list(self._each(self._store.remove, old))
                self._entries[rule.name] = _needed(found)

    def _mark(self) -> int | None:
        """Return the event time (epoch ms) up to which windows are final; None while nothing is."""
        entries, stream = self._ports.stores.ledger.shards(), self._ports.stream
        listed = {one.shard_id: one.parents for one in list_shards(stream.kinesis, stream.stream)}
        return final_until(self._pipeline, self._ports.idle_seconds, entries, listed, self._clock.now_ms())

    def _spans(self, rules: Sequence[Rule], mark_ms: int) -> tuple[dict[Rule, WindowSpan], int]:
        """Return, for each rule of a view, the windows to judge now, and how many rules have more left."""
        known = {about.rule: to for about, to in self._progress.rules()}
        spans, new, behind = dict[Rule, WindowSpan](), dict[About, int](), 0
        for rule in rules:
            every = rule.window.every_ms
            until = mark_ms // every * every
            if rule.name not in known:  # it looks back as far as it takes to fire
                known[rule.name] = new[About.of(rule)] = (until - rule.for_ms) // every * every - every
            after = known[rule.name]
            stop = min(until, after + _MOST_WINDOWS * every)
            full = any(len(entry.waiting) >= _MOST_WAITING for entry in self._entries[rule.name].values())
            if stop > after and not full:
                spans[rule] = after, stop
                behind += stop < until
        if new:  # before anything is stored of them, so that it is found when the rule is taken out
            self._progress.judged(new)
        return spans, behind

    def _judge(self, view: str, spans: Mapping[Rule, WindowSpan]) -> Turn:
        """Store what the windows change, and then how far the rules are."""
        spec, done = self._ports.serving.view(view).spec, Turn()
        rows = self._held(lambda: seen(self._ports.views.at(spec, starts(spans)), spec.by, spans))
        for rule, span in spans.items():
            known, readings = self._entries[rule.name], {}
            for key, one in rows.items():
                if found := one.readings.get(rule.name):
                    readings[key] = found
                    done += Turn(judged=sum(span[0] < reading.end_ms <= span[1] for reading in found))
            missing = [
                Entry(rule.name, key, rows[key].parts)
                for key, found in readings.items()
                if key not in known and advance(rule, CALM, found, *span)[0].is_kept
            ]
            before = {**known, **{one.key: one for one in self._each(self._stored, missing)}}
            decided = []
            for key, entry in before.items():
                if tuple(entry.parts) == spec.by:
                    decided.append((entry, *advance(rule, entry.state, readings.get(key, ()), *span)))
                else:  # of a version of the view that had other keys
                    decided.append((entry, *close(entry.state, span[0])))
            done += self._change(rule, decided)
        self._progress.judged({About.of(rule): span[1] for rule, span in spans.items()})
        return done

    def _change(self, rule: Rule, decided: Sequence[tuple[Entry, State, Sequence[Change]]]) -> Turn:
        """Store the states that have changed with their changes, and log the changes."""
        done = Turn()
        known = self._entries[rule.name] = _needed(entry for entry, _, _ in decided)
        changed = [
            (replace(entry, state=state, waiting=(*entry.waiting, *changes)), changes)
            for entry, state, changes in decided
            if state != entry.state
        ]
        for saved, (_, changes) in zip(self._each(self._save, [one for one, _ in changed]), changed, strict=True):
            if saved is None:
                continue
            known |= {saved.key: saved}
            done += Turn(**{kind: sum(one.kind == kind for one in changes) for kind in ("raised", "cleared")})
            for change in changes:
                self._tell(About.of(rule), saved, change)
        self._entries[rule.name] = _needed(known.values())
        return done

    def _retire(self) -> tuple[dict[str, int], Turn]:
        """Close what fires of rules that were taken out or moved to another view; forget them when all is published.

        Returns the rules that are not forgotten yet with the number of their waiting changes, and the counts.
        """
        defined = {(rule.name, rule.view) for rule in self._pipeline.alerts}
        leaving, done = dict[str, int](), Turn()
        for about, to in self._progress.rules():
            if (about.rule, about.view) in defined:
                continue
            entries = self._store.entries(about.rule)
            for saved in self._each(self._store.save, [_closed(one, to) for one in entries.values() if _fires(one)]):
                self._tell(about, saved, saved.waiting[-1])
                entries[saved.key] = saved
                done += Turn(cleared=1)
            sent = self._send(entries.values(), {about.rule: about})
            waiting = sum(len(entry.waiting) for entry in sent.values())
            if waiting:
                leaving[about.rule] = waiting
                continue
            list(self._each(self._store.remove, list(sent.values())))
            self._progress.drop(about.rule)
            self._entries.pop(about.rule, None)
            done += Turn(published=sum(len(entry.waiting) for entry in entries.values()))
        return leaving, done

    def _publish(self, rules: Sequence[Rule]) -> Turn:
        """Send all waiting changes of these rules."""
        waiting = [entry for known in self._entries.values() for entry in known.values() if entry.waiting]
        sent = self._send(waiting, {rule.name: About.of(rule) for rule in rules})
        for (rule, key), entry in sent.items():
            self._entries[rule][key] = entry
        self._entries = {rule: _needed(known.values()) for rule, known in self._entries.items()}
        left = sum(len(entry.waiting) for entry in sent.values())
        return Turn(published=sum(len(entry.waiting) for entry in waiting) - left)

    def _send(self, entries: Iterable[Entry], about: Mapping[str, About]) -> dict[Place, Entry]:
        def event(entry: Entry, change: Change) -> Event:
            return event_of(self._pipeline.name, about[entry.rule], entry.key, entry.parts, change)

        def keep(some: Sequence[Entry]) -> Sequence[Entry]:
            return list(self._pool.map(self._store.save, some))

        return self._delivery.send(entries, event, keep, self._lease.renew)

    def _stored(self, new: Entry) -> Entry:
        """Return the stored entry of a key that is not in memory; the new one when none is stored."""
        return self._store.entry(new.rule, new.key) or new

    def _save(self, entry: Entry) -> Entry | None:
        """Store an entry; return None, with a log line, when no item can hold it."""
        try:
            return self._store.save(entry)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            log.exception("an alert cannot be stored and is left out", extra={"rule": entry.rule, "key": entry.key})
            return None

    def _held(self, work: Callable[[], Some]) -> Some:
        """Run work in the pool and renew the lease until it is done, however long it takes."""
        doing = self._pool.submit(work)
        # a sixth of the lease: several renewals may fail before it runs out
        while not wait([doing], self._lease.seconds / 6).done:
            self._lease.renew()
        return doing.result()

    def _each(self, work: Callable[[Some], Other], of: Sequence[Some]) -> Iterator[Other]:
        """Run work for each item in the pool, and renew the lease before each group of items."""
        for at in range(0, len(of), _AT_ONCE):
            self._lease.renew()
            yield from self._pool.map(work, of[at : at + _AT_ONCE])

    def _tell(self, about: About, entry: Entry, change: Change) -> None:
        event = event_of(self._pipeline.name, about, entry.key, entry.parts, change)
        text = f"alert {entry.rule} {change.kind} for {entry.key!r} at {event['time']}: {about.condition}"
        log.warning(text, extra={"type": event["type"], "id": event["id"], **event["data"]})


def _fires(entry: Entry) -> bool:
    return entry.state.phase == "firing"


def _closed(entry: Entry, at_ms: int) -> Entry:
    """Return the entry of a rule that ends at this time."""
    state, changes = close(entry.state, at_ms)
    return replace(entry, state=state, waiting=(*entry.waiting, *changes))


def _is_over(entry: Entry, before_ms: int) -> bool:
    """Return True when the entry's last episode was cleared before then and all of it is published."""
    state = entry.state
    return state.phase == "calm" and not entry.waiting and state.last is not None and state.last.cleared_ms < before_ms


def _needed(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the entries to hold in memory: those that are not calm or have a change waiting."""
    return {one.key: one for one in entries if one.state.phase != "calm" or one.waiting}
