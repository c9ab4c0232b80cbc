"""Brings what waits to the targets: to each of them every change once, a key's in their order, whatever others refuse.

A request holds one change a key, and the next of that key goes when it has been accepted. What was accepted is stored
before the next request, so a death in between is all that makes an event come twice, under the same id.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from processors.alerts.machine import Change
from processors.alerts.publishers import BATCH, Event, Publish, Refused
from processors.alerts.store import Entry

__all__ = ["Delivery", "Place"]

log = logging.getLogger("headwater.alerts")

Place = tuple[str, str]
"""A rule and a key."""

_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 10_000, 300_000


class Delivery:
    """To all targets, maybe none: then what waits is done with. What a target refuses is given to it again after a
    pause that doubles up to five minutes, which holds up nothing else; a target that takes no request at all, or
    nothing of one, is left alone so."""

    def __init__(self, targets: Mapping[str, Publish], clock: Clock) -> None:
        self._targets, self._clock = targets, clock
        self._pauses: dict[Hashable, tuple[int, int]] = {}
        """By target, or target and place: the pause, and when it ends."""

    def send(
        self,
        entries: Iterable[Entry],
        event: Callable[[Entry, Change], Event],
        keep: Callable[[Sequence[Entry]], Sequence[Entry]],
        hold: Callable[[], None],
    ) -> dict[Place, Entry]:
        """What has become of the entries. `keep` stores some and returns them as stored; `hold` is called before each
        request, and what it raises ends the sending."""
        found = {(one.rule, one.key): one for one in entries}
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
                queue.extend(at for at in _placed(accepted) if found[at].next_for(target))
        return found

    def _request(
        self, target: str, publish: Publish, entries: Sequence[Entry], event: Callable[[Entry, Change], Event]
    ) -> list[Entry]:
        """Those whose change the target has accepted."""
        changes = [(one, one.next_for(target)) for one in entries]
        try:
            refused: Refused = publish([event(one, change) for one, change in changes if change])
        except (HeadwaterError, ClientError, BotoCoreError, OSError) as error:
            self._pause(target, f"{type(error).__name__}: {error}")
            return []
        for at, code in refused.items():
            self._pause((target, (entries[at].rule, entries[at].key)), code)
        accepted = [one for at, one in enumerate(entries) if at not in refused]
        for one in accepted:
            self._pauses.pop((target, (one.rule, one.key)), None)
        if accepted:
            self._pauses.pop(target, None)
        elif len(entries) > 1:
            self._pause(target, ", ".join(sorted(set(refused.values()))))
        return accepted

    def _is_due(self, what: Hashable) -> bool:
        return what not in self._pauses or self._pauses[what][1] <= self._clock.now_ms()

    def _pause(self, what: Hashable, reason: str) -> None:
        pause = min(_LONGEST_PAUSE_MS, 2 * self._pauses[what][0] if what in self._pauses else _FIRST_PAUSE_MS)
        self._pauses[what] = pause, self._clock.now_ms() + pause
        target, place = what if isinstance(what, tuple) else (what, None)
        about = {} if place is None else {"rule": place[0], "key": place[1]}
        log.warning(
            f"{target} refused {'an event' if place else 'events'}: {reason}; sent again in {pause / 1000:g} s",
            extra={"target": target, "reason": reason, **about},
        )


def _placed(entries: Iterable[Entry]) -> dict[Place, Entry]:
    return {(one.rule, one.key): one for one in entries}
