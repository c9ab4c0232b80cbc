"""A view built anew while processors go on: exact across the seam, whatever is killed, and switched in one write."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.aggregates import mean
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.commands.serving import open_reader
from headwater.errors import Fenced, HeadwaterError, UsageError
from headwater.processors.generations import Generation, Generations
from headwater.processors.jobs import Cancelled, Jobs, NoProgress
from headwater.processors.rebuild import generation_rows as rebuildrows
from headwater.processors.rebuild.from_lake import LakePast
from headwater.processors.rebuild.from_stream import StreamPast
from headwater.processors.rebuild.rebuild import Rebuild, Rebuilt
from headwater.processors.services import Services
from headwater.sinks.lake.compaction import CompactionSizes
from tests.cli import Ran, headwater
from tests.rebuilding import (
    NEW,
    OLD,
    SETTINGS,
    WRITES,
    Killed,
    Live,
    MortalServices,
    Told,
    check,
    committed,
    in_lake,
    no_progress,
    of,
    produce,
    rebuild,
    settle,
    stored,
)
from tests.waiting import until


@pytest.fixture(scope="module")
def aws() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield server.environment


class Trimmed(Services):
    """Services whose stream has let everything go."""

    @property
    def kinesis(self) -> Any:
        return SimpleNamespace(
            list_shards=super().client("kinesis").list_shards,
            get_shard_iterator=lambda **_: {"ShardIterator": "end"},
            get_records=lambda **_: {"Records": [], "MillisBehindLatest": 0, "NextShardIterator": "end"},
        )


@pytest.fixture(scope="module")
def services(aws: Mapping[str, str]) -> Services:
    """After a run with the old definitions."""
    services = Services(SETTINGS, OLD)
    produce(services, 2_000, 0)
    with Live(services):
        committed(services, 2_000)
    services.publisher("test").drain()
    return services


def test_rebuilt_while_processors_go_on_and_the_old_one_serves(services: Services) -> None:
    """Changed keys, windows and values; events all the while; whoever reads finds the old or the new, never a part."""
    new, told = Services(SETTINGS, NEW), list[int]()
    reader = open_reader(new)
    first_page = reader.prefix("by_minute", "", limit=1)
    assert "events" in first_page["rows"][0]

    def advance(_events: int, _done: int) -> None:
        told.append(len(reader.prefix("by_minute", "", limit=1000)["rows"][0]))
        produce(new, 40, len(told))

    class Overtaken(LakePast):
        """When all have begun, what they have committed since is published and compacted, before the lake is pinned."""

        def pin(self) -> Mapping[str, Any]:
            before = in_lake(new)
            produce(new, 300, 2)
            while in_lake(new) < before + 300:
                new.publisher("test").drain()
            care = new.maintenance(CompactionSizes(fewest=2))
            assert care.compact().groups
            assert care.expire(1, new.clock.now_ms() + 1).kept > 2
            return super().pin()

    with Live(new):
        done = Rebuild(
            new.rebuild_ports,
            "by_minute",
            Overtaken(new.reader, new.views, settle(new)),
            Told(advance),
        ).run()
        assert (done.generation, done.version) == (2, 2)
        assert done.events >= 2_000
        assert set(told) == {len(first_page["rows"][0])} | {len(reader.prefix("by_minute", "", limit=1)["rows"][0])}
        produce(new, 500, 3)
        committed(new, 2_800 + 40 * len(told))
    assert new.maintenance().expire(1, new.clock.now_ms() + 1).kept == 1
    check(new, "by_minute")
    assert "by_minute" not in stored(new)
    assert done.dropped > 0
    with pytest.raises(UsageError, match="earlier generation"):
        reader.prefix("by_minute", "", limit=1, after=first_page["next"])
    with pytest.raises(UsageError, match="version 2 is not in this pipeline, which has 1:"):
        services.stores.kept_pipeline()


def test_killed_after_every_write_and_called_again(services: Services) -> None:
    """One call after another, each killed by its first write, until the last is done; then all is as if none had."""
    new, deaths = Services(SETTINGS, NEW), list[str]()
    settle(new)()
    new.maintenance(CompactionSizes(fewest=2)).compact()  # each file is some twenty writes, and a call for each
    with Live(new):
        for attempt in range(200):
            mortal = MortalServices(SETTINGS, NEW, deaths=deaths)
            produce(new, 10, attempt)
            with pytest.raises(Killed):
                Rebuild(
                    mortal.rebuild_ports,
                    "by_device",
                    LakePast(mortal.reader, mortal.views, settle(services), most_slots=5),
                    no_progress,
                ).run()
            if of(new, "by_device") == Generations(Generation(2, 2), retired_ms=ANY, last=2):
                break
        else:
            raise AssertionError(f"no end: {of(new, 'by_device')}")
    assert {name.partition(" ")[0] for name in deaths} == set(WRITES)
    check(new, "by_device")
    assert "by_device" not in stored(new)
    assert not list(new.objects.dated("state/rebuilt/rebuild/"))


def test_cancelled_or_given_up_the_old_one_stays(services: Services) -> None:
    """And a new call begins with rows of its own; another that is under way is not disturbed."""
    new = Services(SETTINGS, NEW)
    before, told = of(new, "by_device"), list[int]()

    def cancelled(events: int, _done: int) -> None:
        told.append(events)
        if events:
            raise Cancelled("job 1")

    def given_up(events: int, _done: int) -> None:
        if events and of(new, "by_device").building:
            Rebuild(
                new.rebuild_ports,
                "by_device",
                LakePast(new.reader, new.views, settle(new)),
                no_progress,
            ).give_up()

    with Live(new):
        produce(new, 100, 0)
        with pytest.raises(Cancelled):
            rebuild(new, "by_device", cancelled)
        number = before.last + 1
        assert of(new, "by_device") == replace(before, retired_ms=ANY, last=number, swept=before.serving.number - 1)
        assert f"by_device@{number}" not in stored(new)
        check(new, "by_device")
        with pytest.raises(UsageError, match="not being built"):
            Rebuild(new.rebuild_ports, "by_device", StreamPast(new.reader, new.views), no_progress).give_up()
        with pytest.raises(Fenced):
            rebuild(new, "by_device", given_up)
        check(new, "by_device")
        assert rebuild(new, "by_device").generation == number + 2
        check(new, "by_device")


def test_cancelled_while_rows_are_written(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when all of them are."""
    new, left = Services(SETTINGS, NEW), list[int]()
    monkeypatch.setattr(rebuildrows, "SLICE", 2)

    class Impatient(NoProgress):
        total = 0

        def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
            self.total = total or 0 if name == "writing" else 0

        def __call__(self, events: int, done: int) -> None:
            if done < self.total:
                left.append(self.total - done)
                raise Cancelled("job 1")

    before = of(new, "by_device")
    with Live(new), pytest.raises(Cancelled):
        Rebuild(
            new.rebuild_ports,
            "by_device",
            LakePast(new.reader, new.views, settle(new)),
            Impatient(),
        ).run()
    assert left
    assert of(new, "by_device").serving == before.serving
    assert f"by_device@{before.last + 1}" not in stored(new)


def test_killed_while_it_drops_the_old_rows_it_only_goes_on_with_that(services: Services) -> None:
    new = Services(SETTINGS, NEW)

    def killed(_events: int, _done: int) -> None:
        if of(new, "by_device").retired:
            raise Killed

    with Live(new):
        with pytest.raises(Killed):
            rebuild(new, "by_device", killed)
        switched = of(new, "by_device")
        check(new, "by_device")
        done = rebuild(new, "by_device")
        assert (done.generation, done.dropped > 0) == (switched.serving.number, True)
        assert of(new, "by_device") == replace(switched, retired=())


def half(table: pa.Table) -> pa.Table:
    return pa.table({"half": pc.multiply(table["value"], 0.5)})


def test_a_column_that_a_step_has_added_since_is_not_silently_null(services: Services) -> None:
    """Nor where a compaction has written the rows anew, with the column empty."""
    pipeline = NEW.map(half, adds={"half": "double"}).view("by_device", version=3, by=["metric"], h=mean("half"))
    added, view = Services(SETTINGS, pipeline), pipeline.definition("by_device", 3)
    assert view is not None
    settle(added)()
    before, rows, past = (
        of(added, "by_device"),
        in_lake(added),
        LakePast(added.reader, added.views, settle(added)),
    )
    message = f"{rows:,} rows of the lake are from before column half was added, and have none"
    with pytest.raises(UsageError, match=message):
        past.before(view)
    added.maintenance(CompactionSizes(fewest=2)).compact()
    with Live(added):
        produce(added, 100, 0)
        committed(added, rows + 100)
        added.publisher("test").drain()
        with pytest.raises(UsageError, match=message):
            Rebuild(added.rebuild_ports, "by_device", past, no_progress).run()
    assert of(added, "by_device") == replace(before, swept=before.serving.number - 1)
    assert LakePast(added.reader, added.views, settle(added), accept_missing=True).before(view)


def test_by_the_commands(services: Services, aws: Mapping[str, str]) -> None:
    """As an operator does it: a job, with one line or JSON; and what cannot be is one line."""
    names = {"PIPELINE": f"{__name__}:NEW", "COMMIT_SECONDS": "0.4", "VIEW_FLUSH_SECONDS": "0.2"}
    environment = {**aws, **{f"HEADWATER_{name}": value for name, value in names.items()}}

    def ran(*arguments: str) -> Ran:
        return headwater(*arguments, environment=environment)

    new = Services(SETTINGS, NEW)
    before = of(new, "by_device")
    with Live(new):
        done = json.loads(ran("view", "rebuild", "by_device", "--json").out)
    assert (done["generation"], done["version"], done["shards"]) == (before.last + 1, 2, 2)
    assert done["events"] == in_lake(new)
    rows = [json.loads(line) for line in ran("view", "versions", "--json").out.splitlines()]
    serves = {"view": "by_device", "version": 2, "generation": before.last + 1, "building": None, "to_drop": 0}
    assert serves in rows
    job = json.loads(ran("jobs", "list", "--json").out.splitlines()[0])
    assert (job["kind"], job["subject"], job["state"]) == ("rebuild", "view by_device from the lake", "done")
    rows = [json.loads(line) for line in ran("view", "list", "by_device", "--json").out.splitlines()]
    assert {tuple(row) for row in rows} == {("metric", "events", "p90")}
    for command in ("expire", "orphans"):
        assert ran("lake", command).code == 0
    kinds = [json.loads(line)["kind"] for line in ran("jobs", "list", "--json").out.splitlines()[:2]]
    assert kinds == ["orphans", "expire"]
    row = json.loads(ran("view", "get", "all", "--json").out)
    assert row["events"] == in_lake(new)
    ran("view", "get", "all", "x").failed(2, "over all keys: give no key")
    ran("view", "get", "by_device").failed(2, "keyed by metric: give METRIC")
    ran("view", "rebuild", "by_device", "--give-up").failed(2, "not being built")
    ran("view", "rebuild", "by_device", "--version", "7").failed(
        2, "version 7 is not in this pipeline, which has 1 and 2"
    )
    ran("view", "rebuild", "nothing").failed(2, "has no view 'nothing'")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(services: Services, aws: Mapping[str, str], number: signal.Signals) -> None:
    new = Services(SETTINGS, NEW)
    jobs = Jobs(new.ledger, new.clock)
    environment = {**os.environ, **aws, "HEADWATER_PIPELINE": f"{__name__}:NEW"}
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "view", "rebuild", "by_device"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        # no processor runs
        until(
            lambda: [(job.state, job.message) for job in jobs.all()[:1]] == [("running", "waiting for shards")],
            120,
            jobs.all,
        )
        ran.send_signal(number)
        out, error = ran.communicate(timeout=60)
    assert (ran.returncode, out) == (130, "")
    assert error.splitlines()[-1] == "interrupted: call it again to go on, or with --give-up to end it"
    assert "Traceback" not in error
    assert jobs.all()[0].state == "interrupted"
    Rebuild(new.rebuild_ports, "by_device", LakePast(new.reader, new.views, settle(new)), no_progress).give_up()


def test_two_at_once_do_the_work_of_one(services: Services) -> None:
    """The slower one is fenced, or finds it done; every row is right."""
    new, ended = Services(SETTINGS, NEW), list[object]()

    def run() -> None:
        try:
            ended.append(rebuild(Services(SETTINGS, NEW), "by_device"))
        except Exception as error:
            ended.append(error)

    with Live(new):
        threads = [Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert any(isinstance(one, Rebuilt) for one in ended)
    assert all(isinstance(one, Rebuilt | Fenced) for one in ended), ended
    check(new, "by_device")


def test_from_the_stream_with_steps_as_they_are_now(services: Services) -> None:
    """And where the stream has not everything any more, nothing is switched."""
    new = Services(SETTINGS, NEW)
    with Live(new):
        done = Rebuild(new.rebuild_ports, "by_device", StreamPast(new.reader, new.views), no_progress).run()
    check(new, "by_device")
    assert done.events == in_lake(new)
    assert not list(new.objects.dated("state/rebuilt/rebuild/"))
    trimmed, before = Trimmed(SETTINGS, NEW), of(new, "by_device")
    again = Rebuild(
        trimmed.rebuild_ports,
        "by_device",
        StreamPast(trimmed.reader, trimmed.views),
        no_progress,
        take_over="test",
    )
    with Live(new), pytest.raises(HeadwaterError, match=r"has 0 of the [0-9,]+ events of shard shardId"):
        again.run()
    assert of(new, "by_device").serving == before.serving
    check(new, "by_device")
    again.give_up()


def test_shards_that_no_processor_touches_are_taken_over(services: Services) -> None:
    """Without a processor nothing begins, unless that is wanted."""
    new = Services(SETTINGS.model_copy(update={"commit_seconds": -9.0}), NEW)
    past = LakePast(new.reader, new.views, settle(new))
    done = Rebuild(new.rebuild_ports, "by_device", past, no_progress, take_over="operator").run()
    assert done.shards == 2
    produce(new, 100, 1)
    with Live(Services(SETTINGS, NEW)):
        committed(new, in_lake(new) + 100)
    check(new, "by_device")
