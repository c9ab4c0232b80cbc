"""Build a view anew beside the one that serves, and switch.

Processors begin the new generation at a commit of theirs each, and keep it from there on. What the shards had
committed by then is folded from the lake (or read from the stream again), into slots of its own. So an event is in the
one or in the others, whatever is killed when. Then one conditional write of the ledger document `views` names the new
generation as the one that serves, and the rows of the old one are dropped.

The ledger document `rebuild.<view>` says how far it is: called again, it goes on there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from headwater.errors import Fenced, UsageError
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import (
    DOCUMENT,
    NOTES,
    Generation,
    Generations,
    Serving,
    generations,
    with_entry,
)
from headwater.processors.jobs import Cancelled, NoProgress, Progress
from headwater.processors.rebuild.beginnings import Beginnings
from headwater.processors.rebuild.generation_rows import WatchedProgress, drop
from headwater.processors.rebuild.ports import RebuildPorts

__all__ = ["Build", "Past", "Rebuild", "Rebuilt", "snapshots"]

_PAUSE_SECONDS = 1.0
_FRESH_MS = 600_000
"""For so long what was noted before the beginning is good."""


@dataclass(frozen=True)
class Rebuilt:
    """Report what a rebuild did: `events` before the shards began the new generation, `dropped` items of the old.

    `only_dropped`: an earlier call had built it all and switched, and ended before the old rows were dropped.
    """

    view: str
    generation: int
    version: int
    events: int
    shards: int
    dropped: int
    only_dropped: bool = False


@dataclass(frozen=True)
class Build:
    """Hold what is to be built: the view by the name that its rows are stored under, up to these positions."""

    view: View
    positions: Mapping[str, str]
    events: Mapping[str, int]
    """The number of events of each shard up to there, copies aside."""
    now_ms: int
    """When it was pinned: rows that had expired by then are left out."""
    foreign_excluded: int | None = 0
    """The number of events without an identity of their own that were not to be in the lake; None when a shard has no
    count of them."""


def snapshots(pipeline: Pipeline, stored: str) -> str:
    """Return the prefix of the keys under which the sources keep what they go on from."""
    return f"state/{pipeline.name}/rebuild/{stored}"


class Past(Protocol):
    """Give the events before the positions. What `before`, `pin` and `fill` note is given to the next `fill`."""

    source: str
    """Its name: what one has begun, another cannot go on with."""

    def before(self, view: View, /) -> Mapping[str, Any]:
        """Return notes from before any processor has begun. UsageError where this view cannot be had from here."""
        ...

    def pin(self) -> Mapping[str, Any]:
        """Return notes from when all processors have begun."""
        ...

    def fill(
        self,
        build: Build,
        notes: Mapping[str, Any],
        save: Callable[[Mapping[str, Any]], None],
        progress: Progress,
    ) -> int:
        """Write the slots and return how many events are in them.

        `progress` is called about once a second, and ends the work by raising. HeadwaterError when not every event is
        there any more.
        """
        ...


class Rebuild:
    """Rebuild one view, from where an earlier call left it."""

    def __init__(
        self,
        ports: RebuildPorts,
        name: str,
        past: Past,
        progress: Progress,
        *,
        take_over: str | None = None,
    ) -> None:
        """Raise UsageError for a view that is not there.

        `take_over` is an owner in whose name shards that no processor touches are claimed, to begin there.
        """
        stores = ports.stores
        Serving(stores.ledger, stores.pipeline, stores.clock).view(name)
        self._ports, self._stores, self._name, self._past, self._progress = ports, stores, name, past, progress
        self._take_over = take_over
        self._note = f"{NOTES}{name}"

    def run(self, version: int | None = None) -> Rebuilt:
        """Build, switch, drop. `version` None is the highest that the pipeline has.

        Where an earlier call ended between the switch to this version and the end, only the dropping is left.

        Raises Cancelled when the job is, and what was built is then given up; Fenced when another call goes on with
        it, or gave it up; any other error leaves it to be gone on with, and the old generation serving.
        """
        entry, wanted = self._entry(), self._wanted(version)
        if entry.has_switched and wanted == entry.serving.version:
            return self._ended(self._notes()[0], only_dropped=True)
        self._drop(sweep=True)
        self._begin(version, wanted)
        begun = self._entry()
        assert begun.building is not None
        try:
            self._wait()
            notes = self._fill()
            self._progress.phase("switching", final=True)
            self._change(lambda one: one.switched(self._stores.clock.now_ms()), begun)
        except Cancelled:
            self._progress = NoProgress()
            self.give_up()
            raise
        except Fenced:
            self._clear(begun.building)
            raise
        return self._ended(notes)

    def give_up(self) -> int:
        """End what is being built: the old generation goes on serving. How many items were dropped.

        UsageError when nothing is being built, and when it has switched already.
        """
        entry = self._entry()
        if entry.building is not None:
            self._change(lambda one: one.given_up(self._stores.clock.now_ms()), entry)
        elif entry.has_switched:
            raise UsageError(
                f"view {self._name} has switched already: version {entry.serving.version} serves; call it without "
                "--give-up to drop the old rows"
            )
        elif not entry.retired:
            raise UsageError(f"view {self._name} is not being built")
        return self._drop()

    def _wanted(self, version: int | None) -> int:
        """Return the version to build, the highest by default; raise UsageError for one that is not there."""
        known = [one.version for one in self._stores.pipeline.definitions if one.name == self._name]
        wanted = max(known) if version is None else version
        Generation(1, wanted).of(self._stores.pipeline, self._name)
        return wanted

    def _begin(self, version: int | None, wanted: int) -> None:
        """Pin what is before, and have processors begin; nothing when that is under way."""
        entry, pipeline = self._entry(), self._stores.pipeline
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
        if not self._stores.ledger.shards():
            raise UsageError(f"pipeline {pipeline.name} has read nothing yet: its processor has to run first")
        begun = entry.begun(wanted)
        assert begun.building is not None
        before = dict(self._past.before(begun.building.of(pipeline, self._name)))
        found, revision = self._notes()
        notes = {"generation": begun.last, "source": self._past.source}
        now = self._stores.clock.now_ms()
        if found != found | notes or now - found["now_ms"] > _FRESH_MS:  # else it is of a call killed just here
            self._put_notes(notes | {"now_ms": now, "past": before}, revision)
        self._change(lambda one: one.begun(wanted), entry)

    def _wait(self) -> None:
        """Wait until every shard that is not read to its end has begun, then pin the positions."""
        notes, revision = self._notes()
        if "shards" in notes:
            return
        progress = WatchedProgress(self._stores.clock, self._progress, self._view)
        begun = Beginnings(self._ports, self._view().name, progress, self._take_over).wait()
        pinned = {**notes["past"], **self._past.pin()}
        self._put_notes({**notes, "shards": begun, "past": pinned}, revision)

    def _fill(self) -> Mapping[str, Any]:
        notes, revision = self._notes()
        if "events" in notes:
            return notes
        shards, view = notes["shards"], self._view()
        positions = {shard_id: str(one["position"]) for shard_id, one in shards.items()}
        counts = {shard_id: int(one["events"]) for shard_id, one in shards.items()}
        foreign = [one.get("foreign_excluded") for one in shards.values()]
        build = Build(view, positions, counts, int(notes["now_ms"]), None if None in foreign else sum(foreign))

        def save(past: Mapping[str, Any]) -> None:
            nonlocal notes, revision
            notes = {**notes, "past": {**notes["past"], **past}}
            revision = self._put_notes(notes, revision)

        def still() -> None:
            if self._view().name != view.name:
                raise self._another()

        events = self._past.fill(build, notes["past"], save, WatchedProgress(self._stores.clock, self._progress, still))
        notes = {**notes, "events": events}
        self._put_notes(notes, revision)
        return notes

    def _ended(self, notes: Mapping[str, Any], *, only_dropped: bool = False) -> Rebuilt:
        events, shards = int(notes.get("events", 0)), len(notes.get("shards", {}))
        dropped, serving = self._drop(events), self._entry().serving
        return Rebuilt(self._name, serving.number, serving.version, events, shards, dropped, only_dropped)

    def _drop(self, events: int = 0, *, sweep: bool = False) -> int:
        """Delete the rows of what is retired, once processors have had the time to hear of it.

        `sweep`: and once more those of all that serve no more: a process that hung may have written some since.
        """
        entry = self._entry()
        swept = sweep and entry.building is None
        numbers = [*entry.retired, *(entry.unswept if swept else ())]
        if not numbers:
            return 0
        self._progress.phase("dropping old rows")
        if entry.retired:
            self._until_heard(entry, events)
        dropped = 0
        for number in numbers:
            report = partial(self._dropping, events, dropped)
            dropped += drop(self._ports.views, Generation(number, 0).stored(self._name), report)
        for key in list(self._stores.objects.list(snapshots(self._stores.pipeline, f"{self._name}@"))):
            self._stores.objects.delete(key)
        self._change(lambda one: one.dropped(numbers, swept=swept), entry)
        return dropped

    def _until_heard(self, entry: Generations, events: int) -> None:
        heard_ms = entry.retired_ms + (self._ports.commit_seconds + 2) * 1000
        while self._stores.clock.now_ms() < heard_ms:
            self._progress(events, 0)
            self._stores.clock.sleep(_PAUSE_SECONDS)

    def _dropping(self, events: int, before: int, count: int) -> None:
        self._progress(events, before + count)

    def _clear(self, mine: Generation) -> None:
        """Drop once more the rows of a generation that another call gave up: some may have come after its drop."""
        if mine not in self._entry().kept:
            drop(self._ports.views, mine.stored(self._name), lambda _: None)

    def _view(self) -> View:
        building = self._entry().building
        if building is None:
            raise Fenced(
                f"view {self._name} is not being built any more: another call gave it up, or has switched; let one run "
                "at a time"
            )
        return building.of(self._stores.pipeline, self._name)

    def _entry(self) -> Generations:
        document, _ = self._stores.ledger.document(DOCUMENT)
        return generations(document, self._stores.pipeline)[self._name]

    def _change(self, change: Callable[[Generations], Generations], expected: Generations) -> None:
        """Change this view's entry in one conditional write; raise Fenced when it is not what is expected."""

        def changed(document: dict[str, Any]) -> dict[str, Any]:
            found = generations(document, self._stores.pipeline)[self._name]
            if found != expected:
                raise self._another()
            return dict(with_entry(document, self._name, change(found)))

        self._stores.ledger.change(DOCUMENT, changed)

    def _notes(self) -> tuple[dict[str, Any], int]:
        return self._stores.ledger.document(self._note)

    def _put_notes(self, notes: Mapping[str, Any], revision: int) -> int:
        try:
            return self._stores.ledger.put_document(self._note, notes, revision)
        except Fenced:
            raise self._another() from None

    def _another(self) -> Fenced:
        return Fenced(f"view {self._name} is being rebuilt by another call: let one run at a time")
