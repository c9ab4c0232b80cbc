"""Limit what a caller may write: a token bucket and a daily quota per key.

Only the body says how many events a request has, so both are taken in two steps. Before the body is read the caller has
to have something left, and one token is taken, which bounds how many requests are under way together. Once the events
are counted, and before any is written, all of them are taken at once, or the request is refused as a whole.

Buckets are this process's own. Quotas are reserved in a counter that all gateways share, a block at a time, so together
they never pass more than the quota; what a gateway has reserved and does not use it gives back.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Protocol

from headwater.clock import DAY_MS
from headwater.rates import Bucket
from headwater.web.auth import Principal
from headwater.web.problems import Problem

__all__ = ["Limits", "UsageCounter"]

_REMEMBERED = 10_000
_BLOCKS = 100
"""Parts of a quota that are reserved at a time: few enough that little is held idle, many events to one request."""


class UsageCounter(Protocol):
    """Count what keys use a day, for all gateways together, as `headwater.web.keys.KeyStore` does."""

    def reserve_usage(self, key_id: str, day: str, least: int, most: int, limit: int) -> int:
        """Count `most` events of a day, or `least` where `limit` allows no more, or none; return how many."""
        ...

    def add_usage(self, key_id: str, day: str, events: int) -> int:
        """Count events of a day, or give them back when the number is negative; return the day's sum."""
        ...


@dataclass
class _Reserved:
    """Hold events of a day's quota that the counter has counted and that this process has not used yet."""

    day: str
    left: int = 0
    is_idle: bool = False


class Limits:
    """Take tokens and quota for callers. Thread-safe. `reserve_quota`, `take_quota` and `sync` block: they may ask the
    counter, so they belong in a thread; without a counter there are no quotas."""

    def __init__(self, counter: UsageCounter | None = None) -> None:
        self._counter = counter
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._reserved: OrderedDict[str, _Reserved] = OrderedDict()
        self._lock = Lock()
        self._syncing = Lock()
        self._syncs = 0

    def take_token(self, caller: Principal, now_ms: int) -> None:
        """Take one token for a request whose events are not counted yet; Problem 429 when there is none."""
        if caller.events_per_second:
            with self._lock:
                bucket = self._bucket(caller, now_ms)
                wait = bucket.wait_seconds(now_ms)
                if wait:
                    raise _too_fast(caller, wait)
                bucket.take(1)

    def take_tokens(self, caller: Principal, events: int, now_ms: int) -> None:
        """Take the tokens of a request's events, of which `take_token` took one; Problem 429 when others came first.

        One request may take more than there are: the next ones wait until that is made up for.
        """
        if caller.events_per_second:
            with self._lock:
                bucket = self._bucket(caller, now_ms)
                bucket.take(-1)
                wait = bucket.wait_seconds(now_ms)
                bucket.take(1 if wait else max(1, events))
                if wait:
                    raise _too_fast(caller, wait)

    def has_quota(self, caller: Principal, events: int, now_ms: int) -> bool:
        """Say whether so many events are reserved for the caller already. Never blocks."""
        if not caller.events_per_day or self._counter is None:
            return True
        with self._lock:
            reserved = self._today(caller, now_ms)
            return reserved.left >= events and reserved.left > 0

    def reserve_quota(self, caller: Principal, events: int, now_ms: int) -> None:
        """Reserve quota until at least so many events are; Problem 429 when the day has fewer left. May block."""
        if self._counter is None or self.has_quota(caller, events, now_ms):
            return
        with self._lock:
            reserved = self._today(caller, now_ms)
            least = max(1, events - reserved.left)
        # outside of the lock, so that a slow counter holds up no other caller
        most = max(least, caller.events_per_day // _BLOCKS)
        before = self._syncs
        found = self._counter.reserve_usage(caller.id, reserved.day, least, most, caller.events_per_day)
        if not found and (self._syncing.locked() or self._syncs != before):
            with self._syncing:  # what `sync` is giving back just now was not in the counter yet
                found = self._counter.reserve_usage(caller.id, reserved.day, least, most, caller.events_per_day)
        if not found:
            detail = f"the quota of {caller.events_per_day} events a day does not have {least} more events left"
            raise Problem.retryable(429, "quota-exceeded", detail, (DAY_MS - now_ms % DAY_MS) / 1000)
        with self._lock:
            reserved.left += found
            reserved.is_idle = False

    def take_quota(self, caller: Principal, events: int, now_ms: int) -> None:
        """Take quota for events that are about to be written, all or none; Problem 429. May block."""
        # another request may take what this one reserves: then it reserves again
        while not self.take_reserved_quota(caller, events, now_ms):
            self.reserve_quota(caller, events, now_ms)

    def take_reserved_quota(self, caller: Principal, events: int, now_ms: int) -> bool:
        """Take quota that is reserved already; False, and nothing is taken, when it is not enough. Never blocks."""
        if not caller.events_per_day or self._counter is None:
            return True
        with self._lock:
            reserved = self._today(caller, now_ms)
            if reserved.left < events:
                return False
            reserved.left -= events
            reserved.is_idle = False
            return True

    def give_back_tokens(self, caller: Principal, events: int, now_ms: int) -> None:
        """Give back the tokens of events that were not written."""
        if caller.events_per_second:
            with self._lock:
                self._bucket(caller, now_ms).take(-events)

    def give_back_quota(self, caller: Principal, events: int, now_ms: int) -> None:
        """Give back the quota of events that were not written."""
        if caller.events_per_day and self._counter is not None:
            with self._lock:
                self._today(caller, now_ms).left += events

    def sync(self, *, all_of_it: bool = False) -> None:
        """Give back to the counter what was reserved and not touched since the last call, or all of it. Blocks."""
        if self._counter is None:
            return
        with self._syncing:
            self._give_back(self._counter, all_of_it)
            self._syncs += 1

    def _give_back(self, counter: UsageCounter, all_of_it: bool) -> None:
        with self._lock:
            due = [(key_id, one) for key_id, one in self._reserved.items() if one.left and (one.is_idle or all_of_it)]
            idle = [(key_id, one.day, one.left) for key_id, one in due]
            for _, one in due:
                one.left = 0
            for one in self._reserved.values():
                one.is_idle = True
        for key_id, day, left in idle:
            counter.add_usage(key_id, day, -left)

    def _bucket(self, caller: Principal, now_ms: int) -> Bucket:
        found = self._buckets.get(caller.id)
        burst = caller.burst or 10 * caller.events_per_second
        if found is None or (found.rate, found.burst) != (caller.events_per_second, burst):
            found = self._buckets[caller.id] = Bucket(caller.events_per_second, burst, burst, now_ms)
        self._buckets.move_to_end(caller.id)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return found

    def _today(self, caller: Principal, now_ms: int) -> _Reserved:
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
        found = self._reserved.get(caller.id)
        if found is None or found.day != day:
            # what is left of the day before is worth nothing today
            found = self._reserved[caller.id] = _Reserved(day)
            while len(self._reserved) > _REMEMBERED:
                self._reserved.popitem(last=False)
        return found


def _too_fast(caller: Principal, wait_seconds: float) -> Problem:
    detail = f"more than {caller.events_per_second:g} events/s; nothing was accepted"
    return Problem.retryable(429, "rate-limited", detail, wait_seconds)
