"""The seam of a rebuild: what shards had committed when they began and what they keep from there on is all, once."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, distinct, mean
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.generations import DOCUMENT
from headwater.processors.jobs import Progress
from headwater.processors.operators.aggregate import ViewState
from headwater.processors.rebuild.from_lake import fold
from headwater.processors.rebuild.rebuild import Build, Rebuild
from headwater.processors.services import Services
from headwater.processors.shard.slots import upsert
from headwater.sinks.lake.compaction import commit_position, shard_of
from tests.rebuilding import Told
from tests.unit.test_rollups import PIPELINE, PLACES, SCRIPTS, SETTINGS, STEPS, World

NEW = PIPELINE.view("region", version=2, by=["metric"], window=tumbling("2m"), n=count(), average=mean("value")).view(
    "region_metric", version=3, by=["region"], n=count(), devices=distinct("device")
)


class Files:
    """The past from the data files that commits have named: each lies on one side of any position."""

    source = "files"

    def __init__(self, world: World) -> None:
        self._world = world

    def before(self, _view: View, /) -> Mapping[str, Any]:
        return {}

    def pin(self) -> Mapping[str, Any]:
        return {}

    def fill(
        self, build: Build, notes: Mapping[str, Any], save: Callable[[Mapping[str, Any]], None], progress: Progress
    ) -> int:
        world, state = self._world, ViewState(build.view, 0)
        named = [file.uri for entry in world.ledger.shards() for file in entry.pending]
        past = [uri for uri in named if commit_position(uri) <= build.positions.get(shard_of(uri) or "", "")]
        wanted = {*build.view.by, *(one.field for one in build.view.aggregates), PIPELINE.contract.time}
        rows = 0
        for number, uri in enumerate(past, 1):
            found = pq.read_table(io.BytesIO(world.objects.get(uri.removeprefix("s3://memory/"))))
            rows += fold(state, found.select([name for name in found.column_names if name in wanted]), NEW, number)
        world.ports().views.write(build.view.spec, [upsert(one, "files/0") for one in state.dirty()])
        return rows


class WorldServices(Services):
    """Services of a process that works on the world's stores."""

    def __init__(self, world: World, pipeline: Pipeline) -> None:
        super().__init__(SETTINGS, pipeline, world.clock)
        ports = world.ports()
        given = {"kinesis": world.kinesis, "ledger": world.ledger, "objects": world.objects, "ports": ports}
        self.__dict__.update(given, views=ports.views)


def services_of(world: World, pipeline: Pipeline = NEW) -> Services:
    """Of a process that rebuilds the world's views."""
    return WorldServices(world, pipeline)


@settings(max_examples=25, deadline=None)
@given(before=SCRIPTS, meanwhile=SCRIPTS, name=st.sampled_from(["region", "region_metric"]), where=PLACES)
def test_every_event_is_in_the_rebuilt_rows_once(
    before: list[tuple[str, float]], meanwhile: list[tuple[str, float]], name: str, where: float
) -> None:
    """Splits, merges, owners that die and still write, copies and late events: before, and while shards begin."""
    world, steps = World(350_000, NEW), iter(meanwhile)
    world.put(int(where * 2**128))
    for what, place in before:
        STEPS[what](world, place)
    world.read()
    services = services_of(world)

    def goes_on(_events: int, _done: int) -> None:
        what, place = next(steps, ("read", 0.0))
        STEPS[what](world, place)
        world.read()

    done = Rebuild(services.rebuild_ports, name, Files(world), Told(goes_on)).run()
    for what, place in steps:
        STEPS[what](world, place)
    world.read_all()
    world.late_writes()
    assert world.wrong() == []
    assert done.version == max(view.version for view in NEW.definitions if view.name == name)
    assert world.ledger.document(DOCUMENT)[0][name]["building"] is None
