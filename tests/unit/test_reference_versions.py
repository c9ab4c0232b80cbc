"""A version of a reference table takes effect when it can be one, and no record on the stream keeps later ones out."""

import json
from typing import Any

import pyarrow as pa
import pytest

from headwater.contract import parse_contract
from headwater.ledger import Ledger
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.references import DOCUMENT, ReferenceLoader, ensure_initial, publish
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

CONTRACT = parse_contract(
    "{name: reading, version: 1, key: device, time: ts, fields: "
    "[{name: device, type: string}, {name: ts, type: timestamp}]}",
    "test",
)
HIGHEST = 2**53 - 1
HEAD = "s3://memory/reference/p/sites"
DIGEST = "0123456789abcdef"


class World:
    """A publisher with its bucket, and a shard that reads what it announces."""

    def __init__(self, tmp_path: Any) -> None:
        self.source = tmp_path / "sites.csv"
        self.write("first")
        reference = Reference("sites", str(self.source), key="device", columns={"site": "string"})
        self.pipeline = Pipeline("p", CONTRACT).enrich(reference, on="device").lake("readings")
        database = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        database.create_table(TableName="l", KeySchema=keys)
        self.ledger, self.objects = Ledger(database, "l", "p"), MemoryObjects()
        self.state, self.at = ShardState(self.pipeline), 0
        self.letters: list[str] = []

    def write(self, site: str) -> None:
        self.source.write_text(f"device,site\nd,{site}\n")

    def begin(self) -> None:
        ensure_initial(self.pipeline, self.ledger, self.objects, pytest.fail)
        self.state.refer(self.pipeline, self.ledger.document(DOCUMENT)[0])

    def publish(self, site: str) -> dict[str, Any]:
        self.write(site)
        announced = publish(
            self.pipeline, "sites", None, self.ledger, self.objects, pytest.fail, lambda _, body: self.announce(**body)
        )
        assert announced is not None
        return announced

    def announce(self, **body: Any) -> None:
        self.take(json.dumps({"$headwater": {"kind": "reference", **body}}).encode())

    def take(self, data: bytes) -> Effects:
        self.at += 1
        loader = ReferenceLoader(self.pipeline, self.objects)
        engine = Engine(self.pipeline, "shard-1", self.state, loader)
        found = engine.process([StreamRecord("shard-1", str(1000 + self.at), 1_762_160_400_000, "k", data)])
        self.letters += [letter.reason for letter in found.letters]
        return found

    def site(self) -> object:
        """What an event is joined with."""
        (table,) = self.take(b'{"device": "d", "ts": 1762160400000}').lake
        return table["site"][0].as_py()


@pytest.fixture
def world(tmp_path: Any) -> World:
    made = World(tmp_path)
    made.begin()
    return made


def test_versions_take_effect_one_after_the_other(world: World) -> None:
    """Announced twice, late or again, each counts once; its file says which it is."""
    assert world.site() == "first"
    second = world.publish("second")
    third = world.publish("third")
    assert (second["version"], third["version"]) == (2, 3)
    assert third["uri"].startswith(f"{HEAD}/0000000003-")
    for old in (second, third):
        world.announce(**old)
    assert (world.site(), world.letters) == ("third", [])


def test_content_that_has_been_there_is_a_version_of_its_own(world: World) -> None:
    """Back to what the first was: another version, and so another name."""
    world.publish("second")
    assert (world.publish("first")["version"], world.site()) == (3, "first")


@pytest.mark.parametrize("version", [HIGHEST, 10_000, 1_002])
def test_a_forged_version_is_a_named_dead_letter_and_keeps_none_out(world: World, version: int) -> None:
    """With a file that is really there, under its own name."""
    world.announce(name="sites", version=version, uri=world.state.references["sites"]["uri"])
    assert world.letters == [
        "a control record of kind 'reference' that makes no sense: "
        f"version {version} of reference table sites is announced with the file of version 1"
    ]
    world.publish("second")
    assert world.site() == "second"


@pytest.mark.parametrize("version", [HIGHEST, 1_002, 1_001])
def test_files_from_before_their_names_had_a_version(tmp_path: Any, version: int) -> None:
    """A version far ahead is a dead letter; whatever else is forged with such a file, the next one published counts."""
    world = World(tmp_path)
    world.begin()
    initial = world.state.references["sites"]
    old = f"reference/p/sites/{DIGEST}.parquet"
    world.objects.put(old, world.objects.get(str(initial["uri"]).removeprefix("s3://memory/")))
    initial["uri"] = f"s3://memory/{old}"
    world.announce(name="sites", version=2, uri=initial["uri"])
    assert (world.state.references["sites"]["version"], world.letters) == (2, [])
    world.announce(name="sites", version=version, uri=initial["uri"])
    refused = version > 1_002
    assert bool(world.letters) == refused
    assert world.publish("second")["version"] == 2
    assert world.site() == "second"
    world.announce(name="sites", version=version, uri=initial["uri"])
    assert "has no version in its name" in world.letters[-1]
    assert world.site() == "second"


def test_a_file_of_another_table_binds_nothing(world: World) -> None:
    """Its name says the version of that table."""
    other = f"reference/p/zones/{HIGHEST % 10**10:010d}-{DIGEST}.parquet"
    world.objects.put(
        other, world.objects.get(str(world.state.references["sites"]["uri"]).removeprefix("s3://memory/"))
    )
    world.announce(name="sites", version=HIGHEST % 10**10, uri=f"s3://memory/{other}")
    assert "has no version in its name" in world.letters[0]


def test_another_pipelines_table_of_the_same_name_is_another_table(world: World, tmp_path: Any) -> None:
    """Both pipelines read one stream, and each hears of the versions of both, in whatever order."""
    theirs = World(tmp_path)
    theirs.pipeline = Pipeline("q", CONTRACT).enrich(world.pipeline.references[0], on="device").lake("others")
    theirs.ledger, theirs.objects = Ledger(theirs.ledger._client, "l", "q"), world.objects
    for _ in range(3):
        theirs.begin()
        theirs.write(f"theirs {theirs.at}")
        world.announce(**theirs.publish(f"theirs {theirs.at}"))
    assert (world.site(), world.letters) == ("first", [])
    world.announce(**world.publish("second"))
    assert (world.site(), world.state.counts["other_pipeline"]) == ("second", 3)


@pytest.mark.parametrize("merged", [False, True])
def test_another_pipelines_version_that_was_taken_gives_way(world: World, merged: bool) -> None:
    """Earlier code took it. The next version of our own replaces it, and so does the other parent's at a merge."""
    other = ShardState(world.pipeline)
    taken = {"version": 900, "uri": f"s3://memory/reference/q/sites/0000000900-{DIGEST}.parquet"}
    if merged:
        other.references = {"sites": taken}
        assert other.child(world.pipeline, world.state).references == world.state.references
        assert world.state.child(world.pipeline, other).references == world.state.references
    else:
        world.state.references["sites"] = taken
        world.publish("second")
        assert (world.site(), world.letters) == ("second", [])


@pytest.mark.parametrize("first", [0, 1])
def test_a_merged_shard_has_the_version_that_is_bound(world: World, first: int) -> None:
    """Whichever parent it is of, and whatever number the other has."""
    parents = [ShardState(world.pipeline), ShardState(world.pipeline)]
    parents[first].references = {"sites": {"version": 2, "uri": f"{HEAD}/0000000002-{DIGEST}.parquet"}}
    parents[1 - first].references = {"sites": {"version": 900, "uri": f"{HEAD}/{DIGEST}.parquet"}}
    assert parents[0].child(world.pipeline, parents[1]).references["sites"]["version"] == 2


def test_a_table_is_read_by_the_name_that_it_was_written_under(world: World) -> None:
    """The loader needs nothing of the name but the place."""
    uri = str(world.publish("second")["uri"])
    table = ReferenceLoader(world.pipeline, world.objects)("sites", uri)
    assert isinstance(table, ReferenceTable)
    assert pa.array(table.columns["site"]).to_pylist() == ["second"]
