"""How much a caller may write: a token bucket and a daily quota per key. Pure but for the counter of a day's events.

Both are charged after a body is read, for only then is it known how many events it has: a bucket may go into debt by
one request, and the next ones wait until it is paid. What the buckets know is this process's alone; the quota is
summed over all gateways, a few seconds late.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from headwater.rates import Bucket
from headwater.web.auth import Principal
from headwater.web.problems import Problem

__all__ = ["Bucket", "Limits"]

_REMEMBERED = 10_000
_DAY_MS = 86_400_000


@dataclass
class _Usage:
    day: str
    summed: int = 0
    """What the counter last said, of all gateways."""
    unsent: int = 0


class Limits:
    """Thread-safe. `add_usage(key id, day, events)` counts a day's events and answers with their sum; it may block,
    so `sync` and `prepare` belong in a thread."""

    def __init__(self, add_usage: Callable[[str, str, int], int] | None = None) -> None:
        self._add_usage = add_usage
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._usage: OrderedDict[str, _Usage] = OrderedDict()
        self._lock = Lock()

    def is_prepared(self, who: Principal, now_ms: int) -> bool:
        """Whether the caller's usage of this day is known."""
        with self._lock:
            return not who.events_per_day or self._add_usage is None or self._today(who.id, now_ms) is not None

    def prepare(self, who: Principal, now_ms: int) -> None:
        """Ask how much of the quota is used."""
        if self._add_usage is not None:
            summed = self._add_usage(who.id, _day(now_ms), 0)
            with self._lock:
                if self._today(who.id, now_ms) is None:
                    self._usage[who.id] = _Usage(_day(now_ms), summed)

    def check(self, who: Principal, now_ms: int) -> None:
        """Problem 429 when the caller may not write now."""
        with self._lock:
            if who.events_per_day:
                usage = self._today(who.id, now_ms)
                if usage is not None and usage.summed + usage.unsent >= who.events_per_day:
                    detail = f"the quota of {who.events_per_day} events a day is used up"
                    raise Problem.later(429, "quota-exceeded", detail, (_DAY_MS - now_ms % _DAY_MS) / 1000)
            if who.events_per_second:
                wait = self._bucket(who, now_ms).wait_seconds(now_ms)
                if wait:
                    raise Problem.later(429, "rate-limited", f"more than {who.events_per_second:g} events/s", wait)

    def charge(self, who: Principal, events: int, now_ms: int) -> None:
        """The caller wrote so many events; a request without any counts as one."""
        with self._lock:
            if who.events_per_second:
                self._bucket(who, now_ms).take(max(1, events))
            if who.events_per_day:
                usage = self._today(who.id, now_ms)
                if usage is None:
                    usage = self._usage[who.id] = _Usage(_day(now_ms))
                usage.unsent += events

    def sync(self) -> None:
        """Tell the counter what was used since, and learn what other gateways counted."""
        if self._add_usage is None:
            return
        with self._lock:
            due = [(key_id, usage) for key_id, usage in self._usage.items() if usage.unsent]
        for key_id, usage in due:
            sent = usage.unsent
            summed = self._add_usage(key_id, usage.day, sent)
            with self._lock:
                usage.unsent -= sent
                usage.summed = summed

    def _bucket(self, who: Principal, now_ms: int) -> Bucket:
        found = self._buckets.get(who.id)
        burst = who.burst or 10 * who.events_per_second
        if found is None or (found.rate, found.burst) != (who.events_per_second, burst):
            found = self._buckets[who.id] = Bucket(who.events_per_second, burst, burst, now_ms)
        self._buckets.move_to_end(who.id)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return found

    def _today(self, key_id: str, now_ms: int) -> _Usage | None:
        found = self._usage.get(key_id)
        if found is not None and found.day != _day(now_ms) and not found.unsent:
            del self._usage[key_id]
            return None
        return found


def _day(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
