"""Take the past of a view that is rebuilt from the stream, through the pipeline's steps as they are now.

Every shard is read again up to where it began.

Right only when the stream still has everything, which is seen at each shard's end: as many events have to be found as
the shard had had.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from headwater.errors import HeadwaterError
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import CheckControl, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.generations import unique_events
from headwater.processors.jobs import Progress
from headwater.processors.ports import PipelineReader
from headwater.processors.rebuild.erased import ErasedEvents
from headwater.processors.rebuild.generation_rows import write
from headwater.processors.rebuild.rebuild import Build, snapshots
from headwater.processors.references import ReferenceLoader
from headwater.processors.replay.chunk import ArrivalSpan
from headwater.processors.replay.stream import pages, shards_in_order
from headwater.sinks.views.store import ViewStore
from headwater.stream import sequence
from headwater.stream.shards import Shard

__all__ = ["StreamPast"]

_ALL = ArrivalSpan(0, 1 << 62)


class StreamPast:
    """Read one shard after the other, parents first."""

    source = "stream"

    def __init__(self, reader: PipelineReader, views: ViewStore, check_control: CheckControl | None = None) -> None:
        self._check_control = check_control
        self._stores, self._stream, self._views = reader.stores, reader.stream, views

    def before(self, _view: View, /) -> Mapping[str, Any]:
        """Return no notes; raise UsageError where the states cannot say which events were erased."""
        ErasedEvents(self._stores)
        return {}

    def pin(self) -> Mapping[str, Any]:
        """Return no notes: the positions at which the shards begin say all."""
        return {}

    def fill(
        self,
        build: Build,
        notes: Mapping[str, Any],
        save: Callable[[Mapping[str, Any]], None],
        progress: Progress,
    ) -> int:
        """Fold what the stream has; return how many events that are.

        Raises HeadwaterError when the stream no longer has all, or the states do not say which events were forgotten.
        """
        done, foreign = dict[str, int](notes.get("done", {})), dict[str, int](notes.get("foreign", {}))
        erased = ErasedEvents(self._stores)
        progress.phase("reading", sum(build.events.values()))
        shards = {shard.shard_id: shard for shard in shards_in_order(self._stream)}
        for shard_id in [*sorted(set(build.positions) - set(shards)), *shards]:
            if shard_id not in done and shard_id in build.positions:
                counts: Mapping[str, int] = {}
                if shard_id in shards:
                    counts = self._read(build, shards[shard_id], sum(done.values()), erased, progress)
                found = unique_events(counts) + counts.get("left_out", 0)
                if found != build.events[shard_id]:
                    raise HeadwaterError(
                        f"stream {self._stream.stream} has {found:,} of the {build.events[shard_id]:,} "
                        f"events of shard {shard_id}: give this one up, and take them from the lake"
                    )
                done[shard_id], foreign[shard_id] = found, counts.get("foreign_excluded", 0)
                save({"done": done, "foreign": foreign})
        _check_foreign(self._stores.pipeline, self._stream.stream, sum(foreign.values()), build.foreign_excluded)
        return sum(done.values())

    def _read(
        self, build: Build, shard: Shard, before: int, erased: ErasedEvents, progress: Progress
    ) -> Mapping[str, int]:
        """Read one shard from its beginning to where it began the generation; return its counts."""
        objects, until = self._stores.objects, build.positions[shard.shard_id]
        pipeline = self._stores.pipeline.having([build.view])
        state = self._inherited(build, shard, pipeline)
        loader, hash_range = ReferenceLoader(pipeline, objects), (shard.start, shard.end)
        engine = Engine(pipeline, shard.shard_id, state, loader, hash_range, self._check_control)
        for records, _ in pages(self._stream, self._stores.clock, shard.shard_id, {}, _ALL):
            wanted = [record for record in records if sequence.pad(record.sequence_number) <= until]
            erased.leave_out(wanted, state, self._stream.stream)
            engine.process(wanted)
            events = before + unique_events(state.counts)
            self._write(build, shard.shard_id, state, partial(progress, events, events))
            if len(wanted) < len(records) or not until.strip("0"):
                break
        objects.put(self._key(build, shard.shard_id), state.dumps())
        return state.counts

    def _inherited(self, build: Build, shard: Shard, pipeline: Pipeline) -> ShardState:
        keys = [self._key(build, parent) for parent in shard.parents if parent in build.positions]
        parents = [ShardState.loads(pipeline, self._stores.objects.get(key)) for key in keys]
        state = parents[0].child(pipeline, *parents[1:]) if parents else ShardState(pipeline)
        state.refer(pipeline, self._stores.ledger.document("references")[0])
        return state

    def _write(self, build: Build, shard_id: str, state: ShardState, report: Callable[[], object]) -> None:
        view = state.views[build.view.name]
        report()
        partials = view.dirty()
        write(self._views, build.view.spec, partials, lambda one: f"stream/{shard_id}/{one.bucket}", lambda _: report())
        view.clean()
        view.evict(state.max_ts)

    def _key(self, build: Build, shard_id: str) -> str:
        return f"{snapshots(self._stores.pipeline, build.view.name)}/{shard_id}.bin"


def _check_foreign(pipeline: Pipeline, stream: str, found: int, committed: int | None) -> None:
    """Raise HeadwaterError when some of the foreign events may have been forgotten.

    They have no identity by which the forgotten ones are known: only their number says whether there are some.
    """
    if pipeline.contract.id is None and found != committed:
        raise HeadwaterError(
            f"of the events that others put into stream {stream}, some were forgotten, or were left "
            "out by other steps than now, and it does not say which: give this one up, and take them from the lake"
        )
