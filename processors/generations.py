"""Keep which generation of each view serves, and which is being built: the ledger document `views`.

A view's definition has a version, written in the pipeline; its rows have a generation, a number of their own in the
views table, never used twice. The first needs no document. While a second is built processors keep both; the document
then names it as the one that serves, in one conditional write, and that is all a switch is.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from headwater.clock import Clock
from headwater.errors import UsageError
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.stores import DocumentReader

__all__ = [
    "DOCUMENT",
    "NOTES",
    "Generation",
    "Generations",
    "Serving",
    "beginning",
    "building",
    "check_known",
    "generations",
    "keeping",
    "pinned_snapshots",
    "unique_events",
    "with_entry",
]

DOCUMENT = "views"
NOTES = "rebuild."
"""Start of the name of the document that says how far the rebuild of a view is."""
_LOOKED_MS = 1_000


@dataclass(frozen=True)
class Generation:
    """Hold the number of a generation of rows, and the version of the definition that they were made by."""

    number: int
    version: int

    def of(self, pipeline: Pipeline, name: str) -> View:
        """Return the definition, under the name that its rows are stored under.

        Raises UsageError when the pipeline does not have this version.
        """
        view = pipeline.definition(name, self.version)
        if view is None:
            known = " and ".join(str(one.version) for one in pipeline.definitions if one.name == name)
            raise UsageError(
                f"view {name}: version {self.version} is not in this pipeline, which has {known}: deploy the one that "
                "has it"
            )
        return replace(view, name=self.stored(name))

    def stored(self, name: str) -> str:
        """Return the name that the rows are stored under; no view can have it, but for the first generation."""
        return name if self.number == 1 else f"{name}@{self.number}"


@dataclass(frozen=True)
class Generations:
    """Hold the generations of one view: readers find `serving`, processors also write `building`, `retired` go."""

    serving: Generation
    building: Generation | None = None
    retired: tuple[int, ...] = ()
    retired_ms: int = 0
    """When the last of them was retired, epoch ms."""
    last: int = 1
    swept: int = 0
    """Up to this number only the one that serves has rows: they were looked for once more after the others' end."""

    def begun(self, version: int) -> "Generations":
        """Return these with a new generation that is being built."""
        return replace(self, building=Generation(self.last + 1, version), last=self.last + 1)

    def switched(self, now_ms: int) -> "Generations":
        """Return these with the one that was being built serving."""
        assert self.building is not None
        retired = (*self.retired, self.serving.number)
        return replace(self, serving=self.building, building=None, retired=retired, retired_ms=now_ms)

    def given_up(self, now_ms: int) -> "Generations":
        """Return these without the one that was being built."""
        assert self.building is not None
        retired = (*self.retired, self.building.number)
        return replace(self, building=None, retired=retired, retired_ms=now_ms)

    def dropped(self, numbers: Collection[int], *, swept: bool = False) -> "Generations":
        """Return these without some of the retired; `swept` says that rows of the `unswept` were looked for, too."""
        retired = tuple(number for number in self.retired if number not in numbers)
        return replace(self, retired=retired, swept=self.serving.number - 1 if swept else self.swept)

    @property
    def unswept(self) -> tuple[int, ...]:
        """Return the numbers that neither serve nor are being built, of which a hung process may have left rows."""
        kept = {one.number for one in self.kept} | set(self.retired)
        return tuple(number for number in range(self.swept + 1, self.last + 1) if number not in kept)

    @property
    def has_switched(self) -> bool:
        """Tell whether what served before the last switch is still to be dropped, and nothing new is being built."""
        return self.building is None and any(number < self.serving.number for number in self.retired)

    @property
    def kept(self) -> tuple[Generation, ...]:
        """Return the generations that processors write."""
        return (self.serving,) if self.building is None else (self.serving, self.building)


def generations(document: Mapping[str, Any], pipeline: Pipeline) -> dict[str, Generations]:
    """Return the generations of each of the pipeline's views.

    A view that the document does not know serves in the first version that the pipeline has.
    """
    found = {}
    for view in pipeline.views:
        one = document.get(view.name)
        found[view.name] = Generations(Generation(1, view.version)) if one is None else _parsed(one)
    return found


def with_entry(document: Mapping[str, Any], name: str, entry: Generations) -> dict[str, Any]:
    """Return the document with this entry of one view."""
    return {**document, name: asdict(entry)}


def keeping(pipeline: Pipeline, document: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline whose views are what a processor writes, by stored name.

    Raises UsageError for a view that serves in a version that the pipeline does not have. One that is only being built
    is left out then: it begins when a processor has it.
    """
    views = []
    for name, one in generations(document, pipeline).items():
        views.append(one.serving.of(pipeline, name))
        if one.building is not None and pipeline.definition(name, one.building.version) is not None:
            views.append(one.building.of(pipeline, name))
    return pipeline.having(views)


def building(pipeline: Pipeline, document: Mapping[str, Any]) -> list[str]:
    """Return the stored names of what is being built."""
    found = generations(document, pipeline)
    return [one.building.stored(name) for name, one in found.items() if one.building is not None]


def pinned_snapshots(documents: DocumentReader, pipeline: Pipeline) -> list[int]:
    """Return the snapshots of the lake's table that rebuilds read from; 0 is the table before its first."""
    found = generations(documents.document(DOCUMENT)[0], pipeline)
    notes = [documents.document(f"{NOTES}{name}")[0] for name, one in found.items() if one.building is not None]
    return [int(one["past"]["since"]) for one in notes if "since" in one.get("past", {})]


def check_known(
    pipeline: Pipeline, document: Mapping[str, Any], state: ShardState, shard_id: str, *, unread: bool = False
) -> None:
    """Raise UsageError when the shard is for a newer deployment.

    It is when it has begun a generation of a version that the pipeline does not have, or is `unread` and has to begin
    it there: what the shard keeps of it would be lost.
    """
    for name, one in generations(document, pipeline).items():
        if one.building is not None and (unread or one.building.stored(name) in state.begun):
            try:
                one.building.of(pipeline, name)
            except UsageError as error:
                raise UsageError(f"shard {shard_id} is for a newer deployment: {error}") from None


def unique_events(counts: Mapping[str, int]) -> int:
    """Return how many distinct events a shard has read, by its counts."""
    return counts.get("events", 0) - counts.get("duplicates", 0)


def beginning(position: str, counts: Mapping[str, int]) -> dict[str, object]:
    """Return what a shard notes when it begins a generation of a view at `position`, with these counts."""
    foreign = counts.get("foreign_excluded", 0)
    return {"position": position, "events": unique_events(counts), "foreign_excluded": foreign}


class Serving:
    """Look up the generations that readers are to read, at most once a second."""

    def __init__(self, documents: DocumentReader, pipeline: Pipeline, clock: Clock) -> None:
        self._documents, self._pipeline, self._clock = documents, pipeline, clock
        self._found: tuple[int, dict[str, Generations]] = (-(1 << 62), {})

    def view(self, name: str) -> View:
        """Return the definition under its stored name. Raises UsageError when the pipeline lacks it, or its version."""
        now = self._clock.now_ms()
        if now - self._found[0] >= _LOOKED_MS:
            document, _ = self._documents.document(DOCUMENT)
            self._found = (now, generations(document, self._pipeline))
        found = self._found[1].get(name)
        if found is None:
            known = ", ".join(self._found[1]) or "none"
            raise UsageError(f"pipeline {self._pipeline.name} has no view {name!r}; it has {known}")
        return found.serving.of(self._pipeline, name)

    def views(self) -> dict[str, View]:
        """Return all of the pipeline's views that serve, by name."""
        return {view.name: self.view(view.name) for view in self._pipeline.views}


def _parsed(one: Mapping[str, Any]) -> Generations:
    building = one["building"]
    return Generations(
        Generation(**one["serving"]),
        None if building is None else Generation(**building),
        tuple(one["retired"]),
        int(one["retired_ms"]),
        int(one["last"]),
        int(one.get("swept", 0)),
    )
