"""What becomes of a rebuild that is cancelled, given up, killed or called twice: who serves, and what is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from headwater.errors import Fenced, UsageError
from headwater.processors.generations import DOCUMENT, NOTES, Generation, Generations, generations
from headwater.processors.jobs import Cancelled, Jobs, NoProgress, Progress
from headwater.processors.operators.aggregate import Partial
from headwater.processors.rebuild.generation_rows import SLICE, write
from headwater.processors.rebuild.rebuild import Build, Rebuild
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from headwater.sinks.views.writing import WriteReport
from tests.rebuilding import Told
from tests.unit.test_rebuild_seam import NEW, Files, services_of
from tests.unit.test_rollups import PIPELINE, SETTINGS, World

VIEW = "region"


class Killed(BaseException):
    """The process ends here."""


class Hooked(Files):
    """A past that does something more once it is written."""

    def __init__(self, world: World, after: Callable[[Build, Progress], object]) -> None:
        super().__init__(world)
        self._after = after

    def fill(
        self, build: Build, notes: Mapping[str, Any], save: Callable[[Mapping[str, Any]], None], progress: Progress
    ) -> int:
        found = super().fill(build, notes, save, progress)
        self._after(build, progress)
        return found


@pytest.fixture
def world() -> World:
    """Some events, read and committed."""
    world = World(350_000, NEW)
    for where in (0, 1 << 126, 1 << 127):
        world.put(where)
    world.read_all()
    return world


def entry(world: World) -> Generations:
    return generations(world.ledger.document(DOCUMENT)[0], NEW)[VIEW]


def rebuild(world: World, past: Files | None = None, progress: Progress | None = None) -> Rebuild:
    def goes_on(_events: int, _done: int) -> None:
        world.read()

    return Rebuild(services_of(world).rebuild_ports, VIEW, past or Files(world), progress or Told(goes_on))


def names(world: World) -> set[str]:
    """The generations that the table has rows of."""
    pages = world.dynamodb.get_paginator("scan").paginate(TableName="views", ConsistentRead=True)
    items = (item for page in pages for item in page["Items"])
    return {item["pk"]["S"].partition("#")[0].partition("@@")[0] for item in items if "slots" in item}


@contextmanager
def a_job(world: World) -> Iterator[Progress]:
    """A job that lets the world go on, too."""
    with Jobs(world.ledger, world.clock).run("rebuild", VIEW, "me") as told:

        class Both(NoProgress):
            def __call__(self, events: int, done: int) -> None:
                world.read()
                told(events, done)

            def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
                told.phase(name, total, final=final)

        yield Both()


def cancel(world: World) -> None:
    jobs = Jobs(world.ledger, world.clock)
    jobs.cancel(jobs.all()[0].id, "you")


def test_rows_are_written_some_at_a_time_and_progress_is_reported_between() -> None:
    """So a cancel ends it within a second, and not after the last of 200,000 rows."""
    sizes, told = list[int](), list[int]()

    class Views(ViewStore):
        def __init__(self) -> None:
            pass

        def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
            assert len(told) == len(sizes)
            sizes.append(len(upserts))
            return WriteReport()

    view = NEW.definition(VIEW, 2)
    assert view is not None
    partials = [Partial((f"{at}",), None, None, 0, "1", b"") for at in range(2 * SLICE + 1)]
    write(Views(), view.spec, partials, lambda _: "s", told.append)
    assert (sizes, told) == ([SLICE, SLICE, 1], [SLICE, 2 * SLICE, 2 * SLICE + 1])


def test_a_cancel_is_heard_at_the_last_moment_before_the_switch(world: World) -> None:
    """However little time has passed since the progress was told."""
    with pytest.raises(Cancelled), a_job(world) as progress:
        rebuild(world, Hooked(world, lambda *_: cancel(world)), progress).run()
    assert entry(world) == Generations(Generation(1, 1), retired_ms=entry(world).retired_ms, last=2)
    assert names(world) & {VIEW, f"{VIEW}@2"} == {VIEW}


def test_after_the_switch_a_cancel_is_refused(world: World) -> None:
    refused = list[str]()

    class Late(NoProgress):
        def __init__(self, inner: Progress) -> None:
            self._inner = inner

        def __call__(self, events: int, done: int) -> None:
            self._inner(events, done)

        def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
            self._inner.phase(name, total, final=final)
            if entry(world).serving.number == 2:
                with pytest.raises(UsageError) as error:
                    cancel(world)
                refused.append(str(error.value))

    with a_job(world) as progress:
        done = rebuild(world, progress=Late(progress)).run()
    assert done.dropped > 0
    assert [text.partition(" ")[2].partition(" ")[2] for text in refused] == [
        "cannot be cancelled any more: it is dropping old rows"
    ]
    assert Jobs(world.ledger, world.clock).all()[0].state == "done"


def test_a_new_shard_is_refused_to_a_deployment_that_lacks_the_version(world: World) -> None:
    """It would commit events that are then in no row of the new generation."""

    def split(_build: Build, _progress: Progress) -> None:
        parents = set(world.readers)
        world.reshard(True, 0.0)
        for where in (0, 1 << 125, 1 << 126):
            world.put(where)
        ended = 0
        while not ended:
            world.read()
            ended = sum(one.closed for one in world.ledger.shards())
        (child, *_) = sorted(one.shard_id for one in world.kinesis.shards("s") if one.shard_id not in parents)
        world.crash()
        with pytest.raises(UsageError, match=f"shard {child} is for a newer deployment: .*version 2"):
            ShardWorker.claim(WorkerContext(PIPELINE, world.ports(), SETTINGS, world.clock, "old"), child)

    rebuild(world, Hooked(world, split)).run()
    world.read_all()
    assert world.wrong() == []


def test_rows_flushed_before_a_commit_that_never_came_are_not_there_twice(world: World) -> None:
    """A processor with the new version flushes and dies, then one without it commits what was flushed."""
    steps = iter([(NEW, 2), (PIPELINE, 8)])

    def goes_on(_events: int, _done: int) -> None:
        pipeline, seconds = next(steps, (NEW, 1))
        if seconds > 1:
            world.crash()
            world.put(0)
        elif world.pipeline is not NEW:
            world.crash()
        world.pipeline = pipeline
        for _ in range(seconds):
            world.read()

    rebuild(world, progress=Told(goes_on)).run()
    world.pipeline = NEW
    world.read_all()
    assert world.wrong() == []


def late_row(world: World, stored: str) -> None:
    item = {"pk": {"S": f"{stored}#late"}, "sk": {"S": "-"}, "slots": {"M": dict[str, Any]()}}
    world.dynamodb.put_item(TableName="views", Item=item)


def test_given_up_elsewhere_it_ends_within_a_second_of_work_and_leaves_no_row(world: World) -> None:
    """Rows that come after the other call has dropped what there was go, too."""
    told = list[int]()

    def goes_on(build: Build, progress: Progress) -> None:
        rebuild(world).give_up()
        late_row(world, build.view.name)
        assert f"{VIEW}@2" in names(world)
        for number in range(3):
            told.append(number)
            progress(number, number)
            world.clock.advance(400)

    with pytest.raises(Fenced, match=r"not being built any more.*let one run at a time"):
        rebuild(world, Hooked(world, goes_on)).run()
    assert len(told) <= 3
    assert names(world) & {VIEW, f"{VIEW}@2"} == {VIEW}
    assert entry(world).retired == ()


def test_rows_that_a_process_left_that_hung_are_dropped_by_the_next_rebuild(world: World) -> None:
    """Of a generation that was given up, and of one that served."""
    rebuild(world).run()
    late_row(world, VIEW)
    with pytest.raises(Cancelled), a_job(world) as progress:
        rebuild(world, Hooked(world, lambda *_: cancel(world)), progress).run()
    assert (entry(world).serving.number, entry(world).last) == (2, 3)
    late_row(world, f"{VIEW}@3")
    assert rebuild(world).run().generation == 4
    assert {name for name in names(world) if name.startswith(f"{VIEW}@") or name == VIEW} == {f"{VIEW}@4"}
    assert entry(world).unswept == (2, 3)


def switched(world: World) -> None:
    """By a call that was killed before it dropped the old rows."""

    class Dies(Told):
        def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
            if name == "dropping old rows":
                raise Killed

    with pytest.raises(Killed):
        rebuild(world, progress=Dies(lambda *_: world.read())).run()
    assert entry(world).serving == Generation(2, 2)


def test_killed_after_the_switch_the_same_call_says_that_it_only_dropped(world: World) -> None:
    switched(world)
    done = rebuild(world).run()
    assert (done.generation, done.only_dropped, done.dropped > 0) == (2, True, True)
    done = rebuild(world).run()
    assert (done.generation, done.only_dropped) == (3, False)
    world.read_all()
    assert world.wrong() == []


def test_killed_after_the_switch_another_version_is_built_when_it_is_asked_for(world: World) -> None:
    switched(world)
    done = rebuild(world).run(version=1)
    assert (done.generation, done.version, done.only_dropped) == (3, 1, False)
    assert names(world) & {VIEW, f"{VIEW}@2", f"{VIEW}@3"} == {f"{VIEW}@3"}


def test_killed_after_the_switch_there_is_nothing_to_give_up(world: World) -> None:
    switched(world)
    with pytest.raises(UsageError, match="switched already: version 2 serves"):
        rebuild(world).give_up()
    assert entry(world).serving == Generation(2, 2)


def test_a_version_that_is_not_there_is_refused_before_anything_is_done(world: World) -> None:
    """0 as well."""
    for version in (0, 9):
        with pytest.raises(UsageError, match=f"version {version} is not in this pipeline, which has 1 and 2"):
            rebuild(world).run(version)
    assert world.ledger.document(DOCUMENT)[0] == {}


def test_a_pipeline_that_has_read_nothing_has_nothing_to_build_from() -> None:
    with pytest.raises(UsageError, match="has read nothing yet"):
        rebuild(World(350_000, NEW)).run()


def test_whoever_loses_against_another_call_is_told_what_to_do(world: World) -> None:
    def other(_build: Build, _progress: Progress) -> None:
        document, revision = world.ledger.document(f"{NOTES}{VIEW}")
        world.ledger.put_document(f"{NOTES}{VIEW}", document | {"events": 1}, revision)

    with pytest.raises(Fenced, match=f"view {VIEW} is being rebuilt by another call: let one run at a time"):
        rebuild(world, Hooked(world, other)).run()


def test_shards_that_do_not_begin_are_named_by_the_job() -> None:
    world = World(350_000, NEW)
    world.put(0)
    world.read_all()
    phases = list[str]()

    class Says(Told):
        def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
            phases.append(name)

    rebuild(world, progress=Says(lambda *_: world.read() if len(phases) > 1 else None)).run()
    first, second = sorted(world.readers)
    assert phases == ["waiting for shards", f"waiting for {first}, {second}", "switching", "dropping old rows"]
