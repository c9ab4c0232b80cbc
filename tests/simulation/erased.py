"""What a forgetting takes away, and what it must leave: by where events lie in the stream."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.system import System
from tests.simulation.workload import WINDOW_MS, Event

__all__ = ["ErasedViews", "taken_away"]

Places = Mapping[int, Sequence[tuple[str, int]]]
Found = list[str]


def taken_away(system: System, places: Places) -> dict[int, tuple[int, int]]:
    """How often each event of the forgotten key has been taken away, at least and at most.

    What was read before the call began is gone. What was read while it went on may be; what came later is there.
    """
    eraser = system.eraser
    if eraser is None or eraser.after is None:
        return {}
    found = {}
    for n, event in system.truth.events.items():
        if event.device == eraser.key:
            before = [number <= eraser.before.get(shard, -1) for shard, number in places.get(n, ())]
            behind = [number > eraser.after.get(shard, -1) for shard, number in places.get(n, ())]
            found[n] = _taken(system, event, before, behind)
    return found


def _taken(system: System, event: Event, before: Sequence[bool], behind: Sequence[bool]) -> tuple[int, int]:
    several = event.n in system.foreign or event.n in system.truth.doubled
    if all(behind):
        return 0, 0
    if system.flavour.own:  # the key is the origin: a copy that is read afterwards is new
        return int(all(before)), 1
    if not several:
        return int(any(before)), 1
    sure = sum(before) if event.n not in system.foreigners.aggregated else int(all(before))
    return sure, len(before) - sum(behind)


class ErasedViews:
    """Judge the views' rows of a forgotten key, of which nobody knows whether what was read meanwhile is in them."""

    def __init__(self, system: System, places: Places) -> None:
        self._system, self._taken = system, taken_away(system, places)
        self.key = system.eraser.key if self._taken and system.eraser else ""
        self._sure, self._most = Counter[int](), Counter[int]()
        for n, (least, most) in self._taken.items():
            event = system.truth.events[n]
            if event.kept and least < max(most, len(places.get(n, ()))):
                self._most[event.ts // WINDOW_MS * WINDOW_MS] += max(most, len(places.get(n, ())))
        self._events = sum(max(1, len(places.get(n, ()))) for n in self._taken)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in a row that the lake has, or had until somebody deleted it."""
        if row["device"] == self.key and self._taken[row["n"]] == (0, 0):
            self._sure[row["ts"] // WINDOW_MS * WINDOW_MS] += 1

    def judged(self, name: str, want: dict[Any, Any], got: dict[Any, Any]) -> Found:
        """Take the key's rows out of both, and say which of them have too few events or too many."""
        found, there = list[str](), Counter[int | None]()
        for rows in (want, got) if self.key else ():
            for at in [at for at in rows if at == self.key or (isinstance(at, tuple) and self.key in at)]:
                value = rows.pop(at)
                window = at[1] if name == "by_time" else None
                if rows is got:
                    there[window] += value if isinstance(value, int) else value[0]
        if not self.key or (self._system.eraser and self._system.eraser.is_undone()):
            return found  # undone in the last act, when nobody can call it again any more
        sure = self._sure if name == "by_time" else Counter({None: sum(self._sure.values())})
        most = self._most if name == "by_time" else Counter({None: sum(self._most.values())})
        return [
            f"{name} of {self.key} at {window}: {there[window]} events, not {sure[window]} to {most[window]}"
            for window in {*sure, *there}
            if not sure[window] <= there[window] <= max(sure[window], most[window])
        ]

    def kept(self, want: Mapping[int | None, int], got: Mapping[Any, Any]) -> Found:
        """A view by other columns keeps the key's share: no row has less than the lake, nor all together too much."""
        found = [f"by_zone {at}: {got.get(at)}, less than {want[at]}" for at in want if got.get(at, 0) < want[at]]
        most = sum(want.values()) + self._events
        return found + ([f"by_zone: {sum(got.values())} events, more than {most}"] if sum(got.values()) > most else [])
