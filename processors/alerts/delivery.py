"""Deliver waiting changes to the targets: each change to every target, and the changes of a key in their order.

A request holds at most one change of a key; the next one of that key is sent once it has been accepted. What a target
accepted is stored before the next request. So an event comes twice only when the process dies between the two, and then
under the same id. A target that refuses holds up no other target.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.processors.alerts.machine import Change
from headwater.processors.alerts.publishers import BATCH, Event, Publish, Refused
from headwater.processors.alerts.store import Entry

__all__ = ["Delivery", "Place"]

log = logging.getLogger("headwater.alerts")

Place = tuple[str, str]
"""A rule and a key."""

_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 10_000, 300_000


class Delivery:
    """Send waiting changes to all targets, and pause for a target or a key that was refused.

    Without any target, waiting changes are done with at once. A refused event is sent again after a pause that doubles
    from 10 s up to five minutes and holds up nothing else. A target that fails a whole request, or refuses all
    events of one that has several, is paused as a whole.
    """

    def __init__(self, targets: Mapping[str, Publish], clock: Clock) -> None:
        self._targets, self._clock = targets, clock
        self._pauses: dict[Hashable, tuple[int, int]] = {}
        """Map from a target, or a target and place, to the pause in ms, and when it ends (epoch ms)."""

    def send(
        self,
        entries: Iterable[Entry],
        event: Callable[[Entry, Change], Event],
        keep: Callable[[Sequence[Entry]], Sequence[Entry]],
        hold: Callable[[], None],
    ) -> dict[Place, Entry]:
        """Send what is due and return the entries as they are stored afterwards.

        `keep` stores entries and returns them as stored. `hold` is called before each request, to renew the lease; what
        it raises ends the sending.
        """
        found = {(one.rule, one.key): one for one in entries}
        # a target that was taken out of the settings must not keep a change waiting for ever
        unsettled = [one for one in found.values() if one.settled(self._targets) != one]
        for at in range(0, len(unsettled), BATCH):
            hold()
            found |= _placed(keep([one.settled(self._targets) for one in unsettled[at : at + BATCH]]))
        for target, publish in self._targets.items():
            queue = deque(at for at, one in found.items() if one.next_for(target) and self._is_due((target, at)))
            while queue and self._is_due(target):
                hold()
                some = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
                accepted = self._request(target, publish, [found[at] for at in some], event)
                found |= _placed(keep([one.accepted_by(target).settled(self._targets) for one in accepted]))
                # the next change of a key goes to the end of the queue: a request never holds two of one key
                queue.extend(at for at in _placed(accepted) if found[at].next_for(target))
        return found

    def _request(
        self, target: str, publish: Publish, entries: Sequence[Entry], event: Callable[[Entry, Change], Event]
    ) -> list[Entry]:
        """Send one request and return the entries whose change the target has accepted."""
        changes = [(one, one.next_for(target)) for one in entries]
        try:
            refused: Refused = publish([event(one, change) for one, change in changes if change])
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            # nobody knows what was accepted: all of it is sent again, under the same ids
            self._pause(target, f"{type(error).__name__}: {error}")
            return []
        for at, code in refused.items():
            self._pause((target, (entries[at].rule, entries[at].key)), code)
        accepted = [one for at, one in enumerate(entries) if at not in refused]
        for one in accepted:
            self._pauses.pop((target, (one.rule, one.key)), None)
        if accepted:
            self._pauses.pop(target, None)
        elif len(entries) > 1:  # one refused event may be the event's fault, several are the target's
            self._pause(target, ", ".join(sorted(set(refused.values()))))
        return accepted

    def _is_due(self, what: Hashable) -> bool:
        """Return True unless this target, or this key at this target, is paused."""
        return what not in self._pauses or self._pauses[what][1] <= self._clock.now_ms()

    def _pause(self, what: Hashable, reason: str) -> None:
        """Pause a target, or a key at a target, for twice as long as the last time."""
        pause = min(_LONGEST_PAUSE_MS, 2 * self._pauses[what][0] if what in self._pauses else _FIRST_PAUSE_MS)
        self._pauses[what] = pause, self._clock.now_ms() + pause
        target, place = what if isinstance(what, tuple) else (what, None)
        about = {} if place is None else {"rule": place[0], "key": place[1]}
        log.warning(
            f"{target} refused {'an event' if place else 'events'}: {reason}; sent again in {pause / 1000:g} s",
            extra={"target": target, "reason": reason, **about},
        )


def _placed(entries: Iterable[Entry]) -> dict[Place, Entry]:
    """Return the entries by rule and key."""
    return {(one.rule, one.key): one for one in entries}
