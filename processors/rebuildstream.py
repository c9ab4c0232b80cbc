"""The past of a view that is rebuilt, from the stream: every shard is read again up to where it began, through the
pipeline's steps as they are now.

Right only when the stream still has everything, which is seen at each shard's end: as many events have to be found as
the shard had had.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from headwater import sequence
from headwater.errors import HeadwaterError
from processors.engine import Engine
from processors.jobs import Progress
from processors.pipeline import Pipeline, View
from processors.rebuildforgotten import Forgotten
from processors.rebuilding import Build, snapshots
from processors.rebuildrows import write
from processors.references import ReferenceLoader
from processors.replaying import Span, listed, pages
from processors.runners.embedded import ShardInfo
from processors.services import Services
from processors.state import ShardState
from processors.worker import unique_events

__all__ = ["StreamPast"]

_ALL = Span(0, 1 << 62)


class StreamPast:
    """A shard after the other, parents first."""

    source = "stream"

    def __init__(self, services: Services) -> None:
        self._services = services

    def before(self, _view: View, /) -> Mapping[str, Any]:
        Forgotten(self._services)
        return {}

    def pin(self) -> Mapping[str, Any]:
        return {}

    def fill(
        self,
        build: Build,
        notes: Mapping[str, Any],
        save: Callable[[Mapping[str, Any]], None],
        progress: Progress,
    ) -> int:
        """HeadwaterError when the stream no longer has all events, or does not say which were forgotten."""
        done, foreign = dict[str, int](notes.get("done", {})), dict[str, int](notes.get("foreign", {}))
        forgotten = Forgotten(self._services)
        progress.phase("reading", sum(build.events.values()))
        shards = {shard.shard_id: shard for shard in listed(self._services)}
        for shard_id in [*sorted(set(build.positions) - set(shards)), *shards]:
            if shard_id not in done and shard_id in build.positions:
                counts: Mapping[str, int] = {}
                if shard_id in shards:
                    counts = self._read(build, shards[shard_id], sum(done.values()), forgotten, progress)
                found = unique_events(counts) + counts.get("left_out", 0)
                if found != build.events[shard_id]:
                    raise HeadwaterError(
                        f"stream {self._services.settings.stream} has {found:,} of the {build.events[shard_id]:,} "
                        f"events of shard {shard_id}: give this one up, and take them from the lake"
                    )
                done[shard_id], foreign[shard_id] = found, counts.get("foreign_excluded", 0)
                save({"done": done, "foreign": foreign})
        _check_foreign(self._services, sum(foreign.values()), build.foreign_excluded)
        return sum(done.values())

    def _read(
        self, build: Build, shard: ShardInfo, before: int, forgotten: Forgotten, progress: Progress
    ) -> Mapping[str, int]:
        """One shard, from its beginning to where it began the generation: the counts, as a shard's state has them."""
        services, until = self._services, build.positions[shard.shard_id]
        pipeline = services.pipeline.having([build.view])
        state = self._inherited(build, shard, pipeline)
        engine = Engine(pipeline, shard.shard_id, state, ReferenceLoader(pipeline, services.objects))
        for records, _ in pages(services, shard.shard_id, {}, _ALL):
            wanted = [record for record in records if sequence.pad(record.sequence_number) <= until]
            forgotten.leave_out(wanted, state)
            engine.process(wanted)
            events = before + unique_events(state.counts)
            self._write(build, shard.shard_id, state, partial(progress, events, events))
            if len(wanted) < len(records) or not until.strip("0"):
                break
        services.objects.put(self._key(build, shard.shard_id), state.dumps())
        return state.counts

    def _inherited(self, build: Build, shard: ShardInfo, pipeline: Pipeline) -> ShardState:
        keys = [self._key(build, parent) for parent in shard.parents if parent in build.positions]
        parents = [ShardState.loads(pipeline, self._services.objects.get(key)) for key in keys]
        state = parents[0].child(pipeline, *parents[1:]) if parents else ShardState(pipeline)
        state.refer(pipeline, self._services.ledger.document("references")[0])
        return state

    def _write(self, build: Build, shard_id: str, state: ShardState, told: Callable[[], object]) -> None:
        view = state.views[build.view.name]
        told()
        partials = view.dirty()
        write(
            self._services, build.view.spec, partials, lambda one: f"stream/{shard_id}/{one.bucket}", lambda _: told()
        )
        view.clean()
        view.evict(state.max_ts)

    def _key(self, build: Build, shard_id: str) -> str:
        return f"{snapshots(self._services, build.view.name)}/{shard_id}.bin"


def _check_foreign(services: Services, found: int, committed: int | None) -> None:
    """Events that others put have no identity by which the forgotten ones are known: only their number says whether
    there are some. HeadwaterError when there may be."""
    if services.pipeline.contract.id is None and found != committed:
        raise HeadwaterError(
            f"of the events that others put into stream {services.settings.stream}, some were forgotten, or were left "
            "out by other steps than now, and it does not say which: give this one up, and take them from the lake"
        )
