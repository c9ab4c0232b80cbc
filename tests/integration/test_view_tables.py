"""Tables of views: each final window once and again when late events came, whatever fails, is joined or forgotten."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from headwater.aggregates import count
from headwater.aggregates import sum as sum_of
from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import Retryable, UsageError
from headwater.processors.definition.claims import claim_names
from headwater.processors.definition.loading import load
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.erasure.tables import drop_view_tables, left_in_view_tables
from headwater.processors.services import Services
from headwater.processors.viewtables import events, following
from headwater.processors.viewtables.rows import table_rows
from headwater.sinks.lake.catalog import append_files, drop_table, open_table
from headwater.sinks.lake.reading import plan
from tests.cli import headwater
from tests.integration.test_lake_users import process, produce
from tests.lake import NOON, aws, contract, delete_rows, settings
from tests.typed import a_key
from tests.viewtables import MINUTE, LakeWorld

__all__ = ["aws", "settings"]
"""Fixtures."""


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def world(settings: Settings) -> LakeWorld:
    return LakeWorld(settings)


def test_a_window_is_there_when_all_shards_have_passed_it_and_again_when_late_events_came(world: LakeWorld) -> None:
    """With what events of other shards the table did not wait for; values by pandas, and amended rows once."""
    world.commit("shard-0", [0.1, 0.5, 1.5, 2.5], mark=2)
    assert [one.rows for one in world.follow()] == [0, 0]
    world.commit("shard-1", [0.2, 3.5], mark=1)
    assert [(one.rows, one.through_ms) for one in world.follow()] == [(1, NOON + MINUTE), (1, NOON + MINUTE)]
    world.commit("shard-1", [5.5], mark=5)
    world.commit("shard-0", [5.7], mark=5)
    before = world.rows("minutes")
    assert [one.amended for one in world.follow()] == [0, 0]
    assert all(row in world.rows("minutes") for row in before)
    world.commit("shard-0", [0.1, 0.11])
    assert [one.amended for one in world.follow()] == [1, 3]
    assert world.wrong() == []
    first = [row for row in world.rows("minutes") if row["device"] == "d1" and row["window_start"].minute == 0]
    assert [row["events"] for row in sorted(first, key=lambda row: row["_revision"])] == [3, 5]
    snapshots = len(open_table(world.settings, "minutes").snapshots())
    assert [(one.rows, one.amended) for one in world.follow()] == [(0, 0), (0, 0)]
    assert len(open_table(world.settings, "minutes").snapshots()) == snapshots


def test_a_new_shard_holds_the_windows_back_until_it_was_read(world: LakeWorld) -> None:
    world.commit("shard-0", [0.5], mark=1)
    world.commit("shard-1", [0.5], mark=1)
    world.follow()
    world.shards |= {"shard-2": ["shard-0", "shard-1"]}
    world.commit("shard-0", [3.5], mark=3, closed=True)
    world.commit("shard-1", [1.5], mark=2, closed=True)
    assert {one.through_ms for one in world.follow()} == {NOON + 2 * MINUTE}
    world.commit("shard-2", [2.5, 6.5], mark=6)
    assert {one.through_ms for one in world.follow()} == {NOON + 6 * MINUTE}
    assert world.wrong() == []


def revert(world: LakeWorld, name: str, location: str) -> None:
    """The catalog loses what it has acknowledged."""
    glue = client("glue", world.settings)
    found = glue.get_table(DatabaseName=world.settings.database, Name=name)["Table"]
    kept = {one: found[one] for one in ("Name", "Parameters", "StorageDescriptor", "TableType") if one in found}
    kept["Parameters"] = kept["Parameters"] | {"metadata_location": location}
    glue.update_table(DatabaseName=world.settings.database, TableInput=kept)


class Fate:
    """Appends that fail now and then: before they are made, after it, or made and lost by the catalog."""

    def __init__(self, world: LakeWorld, chance: random.Random) -> None:
        self.world, self.left = world, ["before", "after", "lost"] * 2 + ["well"] * 6
        chance.shuffle(self.left)

    def __call__(self, table: Table, *rest: Any) -> None:
        what = self.left.pop() if self.left else "well"
        before = table.metadata_location
        if what == "before":
            raise Killed
        append_files(table, *rest)
        if what == "lost":
            revert(self.world, table.name()[1], before)
        if what in ("after", "lost"):
            raise Killed


def test_no_window_is_missing_or_there_twice_whatever_fails(world: LakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late events, compactions of both tables, processes that die in a commit, rivals that know an earlier table."""
    chance, now = random.Random(1), 0.0
    fate = Fate(world, chance)
    monkeypatch.setattr(following, "append_files", fate)
    for step in range(5):
        for shard in world.shards:
            minutes = [now + chance.random() * 2 for _ in range(chance.randint(1, 6))]
            if chance.random() < 0.5:
                minutes += [max(0.0, now - chance.random() * 15) for _ in range(chance.randint(1, 4))]
            world.commit(shard, minutes, mark=now)
        now += 1.5
        stale = {view.name: world.open(view) for view in world.pipeline.views}
        for _ in range(20):
            try:
                world.follow()
                break
            except Killed:
                continue
        world.commit("shard-0", [0.5])  # it has something to write then
        monkeypatch.setattr(following, "append_files", append_files)
        with pytest.raises(Retryable):
            world.follow(open_table=lambda view, stale=stale: stale[view.name])
        monkeypatch.setattr(following, "append_files", fate)
        if step % 4 == 2:
            world.tidy(expire=False)
    monkeypatch.setattr(following, "append_files", append_files)
    world.follow()
    assert not fate.left
    assert world.wrong() == []
    assert {one.exact for one in world.audits()} == {True}


def test_a_table_is_written_anew_where_the_history_of_the_events_is_gone(world: LakeWorld) -> None:
    for shard in world.shards:
        world.commit(shard, [0.5, 1.5, 2.5, 3.5], mark=3)
    world.follow()
    for shard in world.shards:
        world.commit(shard, [0.2, 5.5], mark=5)
        world.publisher.drain()
    world.tidy(expire=True)
    assert [one.anew for one in world.follow()] == [True, True]
    assert world.wrong() == []
    assert [one.anew for one in world.follow()] == [False, False]


def test_a_rival_is_no_reason_to_write_a_table_anew(world: LakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is overtaken while late windows are written: it is tried again, and the rows stay."""
    for shard in world.shards:
        world.commit(shard, [0.5, 1.5], mark=4)
    world.follow()
    before = world.rows("minutes")
    world.commit("shard-0", [0.1])

    def overtaken(*_: Any) -> None:
        raise CommitFailedException("branch main has changed")

    monkeypatch.setattr(following, "append_files", overtaken)
    with pytest.raises(Retryable, match="another writer was faster"):
        world.follow(most=1)
    assert world.rows("minutes") == before
    monkeypatch.setattr(following, "append_files", append_files)
    assert not any(one.anew for one in world.follow(most=1))
    assert world.wrong() == []


def test_late_windows_of_one_snapshot_are_one_commit_and_few_of_them_in_memory(
    world: LakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many one publisher's step brings: the audit reads the snapshot that the table names, and finds each."""
    for shard in world.shards:
        world.commit(shard, [at + 0.5 for at in range(12)], mark=12)
    world.follow()
    world.commit("shard-0", [at + 0.3 for at in range(11)])
    snapshots = len(open_table(world.settings, "minutes").snapshots())
    parts, plans = list[int](), list[object]()

    def counted(view: Any, columns: Any, partials: Any, revision: int) -> Any:
        parts.append(len(partials))
        return table_rows(view, columns, partials, revision)

    def planned(table: Table, snapshot_id: int | None = None) -> Any:
        plans.append(snapshot_id)
        return plan(table, snapshot_id)

    monkeypatch.setattr(following, "table_rows", counted)
    monkeypatch.setattr(events, "plan", planned)
    minutes, every = world.follow(most=4)
    assert (minutes.amended, every.amended) == (11, 12)
    assert max(parts) == 4
    assert len(plans) == 2, "a view plans the snapshot once"
    assert len(open_table(world.settings, "minutes").snapshots()) == snapshots + 1
    assert world.wrong() == []
    assert {one.exact for one in world.audits()} == {True}


def test_the_audit_names_what_is_missing_and_what_is_wrong(world: LakeWorld) -> None:
    assert [(one.checked, one.exact) for one in world.audits()] == [(0, True), (0, True)]
    for shard in world.shards:
        world.commit(shard, [at / 10 for at in range(60)], mark=5)
    world.follow()
    for sample in (None, 4):
        minutes, every = world.audits(sample)
        assert (minutes.exact, every.exact) == (True, True)
        assert (minutes.checked, every.checked) == ((15, 5) if sample is None else (4, 4))
    table = open_table(world.settings, "minutes")
    (file, *_) = [task.file for task in table.scan().plan_files()]
    delete_rows(table, file.file_path, [0])
    minutes, _ = world.audits()
    assert [(one.column, one.stored, one.right) for one in minutes.wrong] == [("", None, "a row")]
    append_files(table, [file])
    minutes, _ = world.audits()
    assert {one.column for one in minutes.wrong} == {"_revision"}


def test_a_table_of_another_definition_is_refused(world: LakeWorld) -> None:
    world.commit("shard-0", [0.5], mark=2)
    world.commit("shard-1", [0.5], mark=2)
    world.follow()
    other = Pipeline("p", contract=contract()).view(
        "minutes", by=["device"], window=tumbling("2m"), table="minutes", events=count(), total=sum_of("status")
    )
    with pytest.raises(UsageError, match="table minutes was written for another definition of view minutes"):
        LakeWorld(world.settings, other.lake("metric"), world.ledger).follow()


def test_what_cannot_be_is_refused_where_it_is_defined() -> None:
    plain = Pipeline("p", contract=contract()).lake("metric")
    with pytest.raises(UsageError, match="has no window, so its rows are never final"):
        plain.view("v", by=[], table="v", n=count())
    with pytest.raises(UsageError, match="'metric' is that of the events"):
        plain.view("v", by=[], window=tumbling("1m"), table="metric", n=count())
    with pytest.raises(UsageError, match="'metric' is that of the events"):
        Pipeline("p", contract=contract()).view("v", by=[], window=tumbling("1m"), table="metric", n=count()).lake(
            "metric"
        )
    one = plain.view("v", by=[], window=tumbling("1m"), table="v", n=count())
    with pytest.raises(UsageError, match="each definition needs a table of its own"):
        one.view("v", version=2, by=[], window=tumbling("1m"), table="v", n=count())
    with pytest.raises(UsageError, match="two columns 'window_end'"):
        plain.view("v", by=[], window=tumbling("1m"), table="v", window_end=count())


def test_a_forgotten_key_takes_the_tables_with_it(world: LakeWorld) -> None:
    """Also those of views that are no more; an object that came meanwhile is named; then it is written anew."""
    for shard in world.shards:
        world.commit(shard, [at / 10 for at in range(30)], mark=2)
    world.follow()
    dropped = partial(drop_table, world.settings)
    names = ["all_devices", "gone", "minutes"]
    ports: Any = SimpleNamespace(stores=world.reader.stores, view_tables=lambda: names, drop_table=dropped)
    (straggler, *_) = [one for one in world.objects.list("lake/minutes/data/") if one.endswith(".parquet")]
    body = world.objects.get(straggler)
    assert left_in_view_tables(ports, a_key("device", "d1"))
    assert drop_view_tables(ports) == names
    assert [one for name in names for one in world.objects.list(f"lake/{name}/")] == []
    world.objects.put(straggler, body)
    (left,) = left_in_view_tables(ports, a_key("device", "d1"))
    assert left.endswith(f"{straggler}: call it again")
    drop_view_tables(ports)
    assert left_in_view_tables(ports, a_key("device", "d1")) == []
    assert [one.rows for one in world.follow()] == [6, 2]
    assert world.wrong() == []


def test_a_table_that_no_view_has_written_keeps_its_rows(world: LakeWorld) -> None:
    """Such as one of another engine in the same database: a view that is given its name is refused."""
    world.commit("shard-0", [0.5], mark=2)
    world.commit("shard-1", [0.5], mark=2)
    world.publisher.drain()
    other = open_table(world.settings, "metric")
    with pytest.raises(UsageError, match=r"metric has rows that no view has written"):
        list(following.follow(world.ports(open_table=lambda _: other)))
    assert len(world.rows("metric")) == 2


def test_forgetting_drops_no_table_but_those_of_views(aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the table that the events went to before, nor one of others."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    own = Settings(bucket="renamed-lake", database="renamed")
    before = Pipeline("renamed", contract="telemetry").lake("before")
    minutes = before.view("m", by=[], window=tumbling("1m"), table="minutes", n=count())
    provision(own, shards=1)
    for pipeline in (before, minutes, minutes.lake("after")):
        services = Services(own, pipeline)
        claim_names(pipeline, own, own.bucket, services.registry)
    assert services.erasure_ports.view_tables() == ["minutes"]


OWN = """
from headwater import Pipeline, count, mean, tumbling
pipeline = (
    Pipeline("own", contract="telemetry")
    .view("minutes", by=["device"], window=tumbling("1m"), table="device_minutes", n=count(), mean=mean("value"))
    .lake("own")
)
"""


def test_as_a_person_does(aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Written, joined with the events, judged, forgotten and written anew by commands."""
    (tmp_path / "own.py").write_text(OWN)
    own = Settings(commit_seconds=0.5, bucket="own-lake", database="own", pipeline=str(tmp_path / "own.py"))
    environment = {
        **aws.environment,
        "HEADWATER_BUCKET": own.bucket,
        "HEADWATER_DATABASE": own.database,
        "HEADWATER_PIPELINE": own.pipeline,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provision(own, shards=1)
    services = Services(own, load(own.pipeline))
    for hour in range(2):  # the second makes the first one's windows final
        produce(services, 400, start_ms=1_790_000_000_000 + hour * 3_600_000)
    process(services, 800)
    services.publisher("test").drain()

    def said(*words: str) -> Any:
        ran = headwater(*words, environment=environment)
        assert ran.code == 0, ran
        return [json.loads(line) for line in ran.out.splitlines()]

    (written,) = said("lake", "views", "--json")
    assert (written["table"], written["amended"]) == ("device_minutes", 0)
    assert written["rows"] >= 10
    join = (
        "SELECT count(*) AS events FROM own e JOIN device_minutes m "
        "ON e.device = m.device AND e.ts >= m.window_start AND e.ts < m.window_end"
    )
    total = f"SELECT sum(n)::BIGINT AS events FROM device_minutes UNION ALL {join}"
    counts = [row["events"] for row in said("lake", "query", total, "--json")]
    assert counts[0] == counts[1] > 0
    ((views, tables),) = [one["views"] for one in said("audit", "--views", "--json")]
    assert (views["wrong"], tables["view"], tables["wrong"]) == ([], "table device_minutes", [])
    assert tables["checked"] == written["rows"]
    device = services.reader.open_table().scan(selected_fields=("device",)).to_arrow()["device"][0].as_py()
    (forgotten,) = said("lake", "forget", "--key", device, "--json")
    assert (forgotten["tables"], forgotten["left"]) == (["device_minutes"], [])
    (again,) = said("lake", "views", "--json")
    assert 0 < again["rows"] < written["rows"]
    (tmp_path / "own.py").write_text(OWN.replace("n=count()", "n=count(), more=count()"))
    messages = maintained(environment)
    assert [one["message"] for one in messages] == ["will try again", "maintained", "maintained"]
    assert "another definition of view" in messages[0]["reason"]
    assert [one["table"] for one in messages[1:]] == ["own", "device_minutes"]


def maintained(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What `lake maintain` says in its first round: a table that cannot be written keeps no other from being looked
    after.
    """
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "lake", "maintain"]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    return lines
