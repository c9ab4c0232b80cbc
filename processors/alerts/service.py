"""The alerts service: looks at the windows that have become final, and tells what has changed. Several may run, one
leads.

How far a view's rules are judged moves on as soon as their changes are stored; whatever is judged again after a crash
gives the same states and the same ids. The lease is renewed on the way, before anything is published above all: who
has lost it is Fenced there.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import HeadwaterError, UsageError
from processors.alerts.delivery import Delivery, Place
from processors.alerts.events import About, event_of
from processors.alerts.lease import Lease
from processors.alerts.machine import CALM, Change, State, advance, close
from processors.alerts.publishers import Event, Publish
from processors.alerts.readings import Span, seen, starts
from processors.alerts.rules import Rule
from processors.alerts.store import Entry
from processors.finality import final_until
from processors.runners.embedded import list_shards
from processors.services import Services
from processors.shards.service import Stop

__all__ = ["Alerts", "Turn"]

log = logging.getLogger("headwater.alerts")

_MOST_WINDOWS = 240
"""Judged in a turn: bounds the readings in memory when there is much to catch up with."""
_AT_ONCE = 100
"""Entries read or stored between two looks at the lease."""
_MOST_WAITING = 1_000
"""Changes of a key; with so many a rule is judged no further until some are accepted. A document holds several times
that."""

_READ_AGAIN_MS = 3_600_000
"""How often a leader reads all that is stored, and removes what is old."""
_KEPT_MS = 7 * 86_400_000
"""How long, in event time, the last episode of a key is kept when it has been cleared."""

Some = TypeVar("Some")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Turn:
    """What one turn did."""

    raised: int = 0
    cleared: int = 0
    published: int = 0
    """Changes that all targets have accepted now."""
    judged: int = 0
    """Windows of keys, by rule."""
    waiting: int = 0
    """Changes that some target has not accepted yet."""
    behind: int = 0
    """Rules that have final windows left."""

    def __add__(self, other: "Turn") -> "Turn":
        return Turn(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


class Alerts:
    """The rules of one pipeline, maybe none, evaluated by whoever holds the lease."""

    def __init__(self, services: Services, targets: Mapping[str, Publish], owner: str) -> None:
        self._pipeline = services.pipeline
        if self._pipeline.alerts and not self._pipeline.pure:
            raise UsageError(
                f"pipeline {self._pipeline.name} writes its views after its commits (a function is not pure), so no "
                "row of a view is known to be final: alerts need pure functions"
            )
        self._services, self._store = services, services.alerts
        self._lease = Lease(services.ledger, services.clock, owner)
        self._delivery = Delivery(targets, services.clock)
        self._entries: dict[str, dict[str, Entry]] = {}
        """By rule and key, those that fire, are about to, or have something waiting; others are read when needed."""
        self._read_ms = 0
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
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
            if stop.wait(0.0 if turn and turn.behind else period):
                self._release()
                return

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
            self._release()

    def turn(self, lease_seconds: float = 30.0) -> Turn | None:
        """Judge what has become final and publish what has changed; None while somebody else leads.

        What a target refuses waits for it and holds up nothing else. After an error the next turn reads all anew.
        """
        is_new = self._lease.take(lease_seconds)
        if is_new is None:
            self._entries = {}
            return None
        if is_new:
            self._entries = {}
        try:
            return self._turn()
        except BaseException:
            self._entries = {}
            raise

    def _turn(self) -> Turn:
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
        now, reached = self._services.clock.now_ms(), {about.rule: to for about, to in self._lease.rules()}
        if now - self._read_ms >= _READ_AGAIN_MS:
            self._entries, self._read_ms = {}, now
        for rule in rules:
            if rule.name not in self._entries:
                found = self._held(partial(self._store.entries, rule.name)).values()
                old = [one for one in found if _is_over(one, reached.get(rule.name, 0) - _KEPT_MS)]
                list(self._each(self._store.remove, old))
                self._entries[rule.name] = _needed(found)

    def _mark(self) -> int | None:
        services = self._services
        entries = services.ledger.shards()
        listed = {one.shard_id: one.parents for one in list_shards(services.kinesis, services.settings.stream)}
        return final_until(self._pipeline, services.settings, entries, listed, services.clock.now_ms())

    def _spans(self, rules: Sequence[Rule], mark_ms: int) -> tuple[dict[Rule, Span], int]:
        """The windows of a view that are to be judged now, and how many rules have more."""
        known = {about.rule: to for about, to in self._lease.rules()}
        spans, new, behind = dict[Rule, Span](), dict[About, int](), 0
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
            self._lease.judged(new)
        return spans, behind

    def _judge(self, view: str, spans: Mapping[Rule, Span]) -> Turn:
        """Store what the windows change, and then how far the rules are."""
        spec, done = self._services.view_specs[view], Turn()
        rows = self._held(lambda: seen(self._services.views.at(spec, starts(spans)), spec.by, spans))
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
        self._lease.judged({About.of(rule): span[1] for rule, span in spans.items()})
        return done

    def _change(self, rule: Rule, decided: Sequence[tuple[Entry, State, Sequence[Change]]]) -> Turn:
        """Store what was decided, where it is another state, and say so."""
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
        """Close what fires of rules that the pipeline has no more, or over another view, and forget them when that is
        published; those that are not forgotten yet, and how many changes of them wait."""
        defined = {(rule.name, rule.view) for rule in self._pipeline.alerts}
        leaving, done = dict[str, int](), Turn()
        for about, to in self._lease.rules():
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
            self._lease.drop(about.rule)
            self._entries.pop(about.rule, None)
            done += Turn(published=sum(len(entry.waiting) for entry in entries.values()))
        return leaving, done

    def _publish(self, rules: Sequence[Rule]) -> Turn:
        """Whatever waits."""
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

        return self._delivery.send(entries, event, keep, self._lease.hold)

    def _stored(self, new: Entry) -> Entry:
        """What is stored of a key that is not in memory."""
        return self._store.entry(new.rule, new.key) or new

    def _save(self, entry: Entry) -> Entry | None:
        """None when no item can hold it."""
        try:
            return self._store.save(entry)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            log.exception("an alert cannot be stored and is left out", extra={"rule": entry.rule, "key": entry.key})
            return None

    def _held(self, work: Callable[[], Some]) -> Some:
        """Under the lease however long it takes, and whatever it waits for."""
        doing = self._pool.submit(work)
        while not wait([doing], self._lease.seconds / 6).done:
            self._lease.hold()
        return doing.result()

    def _each(self, work: Callable[[Some], Other], of: Sequence[Some]) -> Iterator[Other]:
        """In the pool, some at a time, under the lease."""
        for at in range(0, len(of), _AT_ONCE):
            self._lease.hold()
            yield from self._pool.map(work, of[at : at + _AT_ONCE])

    def _tell(self, about: About, entry: Entry, change: Change) -> None:
        event = event_of(self._pipeline.name, about, entry.key, entry.parts, change)
        text = f"alert {entry.rule} {change.kind} for {entry.key!r} at {event['time']}: {about.condition}"
        log.warning(text, extra={"type": event["type"], "id": event["id"], **event["data"]})

    def _release(self) -> None:
        """Let another lead at once."""
        try:
            self._lease.release()
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            log.warning("the lease is kept until it runs out", extra={"reason": str(error)})


def _fires(entry: Entry) -> bool:
    return entry.state.phase == "firing"


def _closed(entry: Entry, at_ms: int) -> Entry:
    """Of a rule that ends there."""
    state, changes = close(entry.state, at_ms)
    return replace(entry, state=state, waiting=(*entry.waiting, *changes))


def _is_over(entry: Entry, before_ms: int) -> bool:
    """Whether its last episode was cleared before then, and is published."""
    state = entry.state
    return state.phase == "calm" and not entry.waiting and state.last is not None and state.last.cleared_ms < before_ms


def _needed(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Those that fire, are about to, or have something waiting."""
    return {one.key: one for one in entries if one.state.phase != "calm" or one.waiting}
