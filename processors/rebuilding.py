"""A view built anew beside the one that serves, and the switch.

Processors begin the new generation at a commit of theirs each, and keep it from there on. What the shards had
committed by then is folded from the lake (or read from the stream again), into slots of its own. So an event is in the
one or in the others, whatever is killed when. Then one conditional write of the ledger document `views` names the new
generation as the one that serves, and the rows of the old one are dropped.

The ledger document `rebuild.<view>` says how far it is: called again, it goes on there.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headwater import sequence
from headwater.errors import Fenced, HeadwaterError, UsageError
from headwater.ledger import ShardEntry
from processors.generations import DOCUMENT, NOTES, Generations, generations, with_entry
from processors.jobs import Advance, Cancelled
from processors.pipeline import View
from processors.services import Services
from processors.worker import ShardWorker, StateStore, unique_events

__all__ = ["Build", "Past", "Rebuild", "Rebuilt", "snapshots"]

log = logging.getLogger("headwater.rebuild")

_PAUSE_SECONDS = 1.0
_FRESH_MS = 600_000
"""For so long what was noted before the beginning is good."""
_PATIENCE_MS = 10_000
"""Beyond a commit's time: then the shards that do not begin are named."""
_RACES = 20


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did: `events` are those before the shards began the new generation, `dropped` items of the old."""

    view: str
    generation: int
    version: int
    events: int
    shards: int
    dropped: int


@dataclass(frozen=True)
class Build:
    """What is to be built: the definition by the name that its rows are stored under, up to these positions."""

    view: View
    positions: Mapping[str, str]
    events: Mapping[str, int]
    """By shard, how many events there were up to there, copies aside."""
    now_ms: int
    """When it was pinned: rows that had expired by then are left out."""


def snapshots(services: Services, stored: str) -> str:
    """Where the sources keep what they go on from: keys that begin so."""
    return f"state/{services.pipeline.name}/rebuild/{stored}"


class Past(Protocol):
    """Where the events before the positions come from. What `before`, `pin` and `fill` note is `fill`'s again."""

    source: str
    """Its name: what one has begun, another cannot go on with."""

    def before(self) -> Mapping[str, Any]:
        """Notes from before any processor has begun."""
        ...

    def pin(self) -> Mapping[str, Any]:
        """Notes from when all have."""
        ...

    def fill(self, build: Build, notes: Mapping[str, Any], save: Callable[[Mapping[str, Any]], None]) -> int:
        """Write the slots; how many events are in them. HeadwaterError when not every event is there any more."""
        ...


class Rebuild:
    """One view's, from where an earlier call left it."""

    def __init__(
        self,
        services: Services,
        name: str,
        past: Past,
        advance: Advance,
        *,
        take_over: str | None = None,
    ) -> None:
        """`take_over` is an owner by whose name shards that no processor touches are claimed, to begin there."""
        services.serving.view(name)  # UsageError for one that is not there
        self._services, self._name, self._past, self._advance = services, name, past, advance
        self._take_over = take_over
        self._note = f"{NOTES}{name}"

    def run(self, version: int | None = None) -> Rebuilt:
        """Build, switch, drop. `version` None is the highest that the pipeline has.

        Raises Cancelled when the job is, and what was built is then given up; Fenced when another call goes on with
        it; any other error leaves it to be gone on with, and the old generation serving.
        """
        entry = self._entry()
        if entry.building is None and any(number < entry.serving.number for number in entry.retired):
            return self._ended(*self._notes()[:1])  # killed after the switch
        self._drop()
        self._begin(version)
        begun = self._entry()
        try:
            self._wait()
            notes = self._fill()
        except Cancelled:
            self._advance = lambda _events, _done: None
            self.give_up()
            raise
        self._change(lambda one: one.switched(self._services.clock.now_ms()), begun)
        return self._ended(notes)

    def give_up(self) -> int:
        """End what is being built: the old generation goes on serving. How many items were dropped."""
        entry = self._entry()
        if entry.building is None and not entry.retired:
            raise UsageError(f"view {self._name} is not being built")
        if entry.building is not None:
            self._change(lambda one: one.given_up(self._services.clock.now_ms()), entry)
        return self._drop()

    def _begin(self, version: int | None) -> None:
        """Pin what is before, and have processors begin; nothing when that is under way."""
        entry = self._entry()
        wanted = version or max(one.version for one in self._services.pipeline.definitions if one.name == self._name)
        if entry.building is not None:
            if version not in (None, entry.building.version):
                raise UsageError(
                    f"view {self._name} is being built in version {entry.building.version}: go on with that one, or "
                    "give it up"
                )
            source = self._notes()[0]["source"]
            if source != self._past.source:
                raise UsageError(f"view {self._name} is being built from the {source}: go on so, or give it up")
            return
        begun = entry.begun(wanted)
        assert begun.building is not None
        begun.building.of(self._services.pipeline, self._name)  # UsageError for a version that is not there
        found, revision = self._notes()
        notes = {"generation": begun.last, "source": self._past.source}
        now = self._services.clock.now_ms()
        if found != found | notes or now - found["now_ms"] > _FRESH_MS:  # else it is of a call killed just here
            notes |= {"now_ms": now, "past": dict(self._past.before())}
            self._services.ledger.put_document(self._note, notes, revision)
        self._change(lambda one: one.begun(wanted), entry)

    def _wait(self) -> None:
        """Until every shard that is not read to its end has begun, then pin the positions."""
        notes, revision = self._notes()
        if "shards" in notes:
            return
        stored = self._view().name
        begun: dict[str, dict[str, Any]] = {}
        looked: dict[str, ShardEntry] = {}
        patience = self._services.clock.now_ms() + self._services.settings.commit_seconds * 1000 + _PATIENCE_MS
        while True:
            entries = self._services.ledger.shards()
            for entry in entries:
                if entry.shard_id not in begun and looked.get(entry.shard_id) != entry:
                    looked[entry.shard_id] = entry
                    found = self._begun(entry, stored)
                    if found is not None:
                        begun[entry.shard_id] = found
            left = [entry for entry in entries if entry.shard_id not in begun]
            if not left:
                break
            if self._services.clock.now_ms() > patience:
                begun |= self._claimed(left)
                patience += 60_000
            self._advance(0, 0)
            self._services.clock.sleep(_PAUSE_SECONDS)
        pinned = {**notes["past"], **self._past.pin()}
        self._services.ledger.put_document(self._note, {**notes, "shards": begun, "past": pinned}, revision)

    def _claimed(self, left: Sequence[ShardEntry]) -> dict[str, dict[str, Any]]:
        """Begin on these shards, where that is wanted: a processor that has one is fenced, and claims it again."""
        if self._take_over is None:
            log.warning(
                "shards have not begun: processors with this version of the view have to run, or call with --take-over",
                extra={"view": self._name, "shards": [entry.shard_id for entry in left]},
            )
            return {}
        found = {}
        services = self._services
        for entry in left:
            if entry.position == sequence.NONE:  # whoever claims it after this begins at its beginning
                services.ledger.claim(entry.shard_id, self._take_over, None, services.clock.now_ms())
                found[entry.shard_id] = {"position": sequence.NONE, "events": 0}
                continue
            worker = ShardWorker(
                services.pipeline, entry.shard_id, services.ports, services.settings, services.clock, self._take_over
            )
            worker.claim()
            worker.commit()
        return found

    def _begun(self, entry: ShardEntry, stored: str) -> dict[str, Any] | None:
        """Where the shard began the generation; one read to its end without, at its end."""
        state = StateStore(self._services.pipeline, self._services.objects).load(entry)
        if stored in state.begun:
            return state.begun[stored]
        return {"position": entry.position, "events": unique_events(entry.counts)} if entry.closed else None

    def _fill(self) -> Mapping[str, Any]:
        notes, revision = self._notes()
        if "events" in notes:
            return notes
        shards = notes["shards"]
        positions = {shard_id: str(one["position"]) for shard_id, one in shards.items()}
        counts = {shard_id: int(one["events"]) for shard_id, one in shards.items()}
        build = Build(self._view(), positions, counts, int(notes["now_ms"]))

        def save(past: Mapping[str, Any]) -> None:
            nonlocal notes, revision
            notes = {**notes, "past": {**notes["past"], **past}}
            revision = self._services.ledger.put_document(self._note, notes, revision)

        events = self._past.fill(build, notes["past"], save)
        notes = {**notes, "events": events}
        self._services.ledger.put_document(self._note, notes, revision)
        return notes

    def _ended(self, notes: Mapping[str, Any]) -> Rebuilt:
        events, shards = int(notes.get("events", 0)), len(notes.get("shards", {}))
        dropped, serving = self._drop(events), self._entry().serving
        return Rebuilt(self._name, serving.number, serving.version, events, shards, dropped)

    def _drop(self, events: int = 0) -> int:
        """Delete the rows of what is retired, once processors have had the time to hear of it."""
        entry, clock = self._entry(), self._services.clock
        if not entry.retired:
            return 0
        heard_ms = entry.retired_ms + (self._services.settings.commit_seconds + 2) * 1000
        while clock.now_ms() < heard_ms:
            self._advance(events, 0)
            clock.sleep(_PAUSE_SECONDS)
        dropped = 0
        for number in entry.retired:
            stored = self._name if number == 1 else f"{self._name}@{number}"
            for count in self._services.views.drop(stored):
                dropped += count
                self._advance(events, dropped)
        for key in list(self._services.objects.list(snapshots(self._services, f"{self._name}@"))):
            self._services.objects.delete(key)
        gone = set(entry.retired)
        self._change(lambda one: one.dropped(gone), entry)
        return dropped

    def _view(self) -> View:
        building = self._entry().building
        if building is None:
            raise Fenced(f"view {self._name} is not being built any more: another call gave it up, or has switched")
        return building.of(self._services.pipeline, self._name)

    def _entry(self) -> Generations:
        document, _ = self._services.ledger.document(DOCUMENT)
        return generations(document, self._services.pipeline)[self._name]

    def _change(self, change: Callable[[Generations], Generations], expected: Generations) -> None:
        """One conditional write of this view's entry; Fenced when it is not what is expected."""
        ledger, pipeline = self._services.ledger, self._services.pipeline
        for _ in range(_RACES):
            document, revision = ledger.document(DOCUMENT)
            found = generations(document, pipeline)[self._name]
            if found != expected:
                raise Fenced(f"view {self._name} is being rebuilt by another call: let one run at a time")
            try:
                ledger.put_document(DOCUMENT, with_entry(document, self._name, change(found)), revision)
                return
            except Fenced:
                continue  # another view's entry, or this one's: looked at again
        raise HeadwaterError("the document of the views keeps changing; try again")

    def _notes(self) -> tuple[dict[str, Any], int]:
        return self._services.ledger.document(self._note)
