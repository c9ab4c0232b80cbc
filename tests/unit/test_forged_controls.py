"""Who may write to the stream, and has no key, changes nothing with a record that says it is a control record."""

import gzip
import json
from dataclasses import dataclass
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import encode_control, encode_kpl
from headwater.contract import parse_contract
from headwater.controlkeys import ensure_control_key, streams
from headwater.ledger import Ledger
from headwater.processors.controls import ControlCheck
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.references import DOCUMENT, ReferenceLoader, ensure_initial, publish
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

SHARD = "shardId-000000000000"
CONTRACT = parse_contract(
    "{name: reading, version: 1, key: device, time: ts, fields: "
    "[{name: device, type: string}, {name: ts, type: timestamp}]}",
    "test",
)
EVENT = b'{"device": "d", "ts": 1762160400000}'
DIGEST = "0123456789abcdef"
FOLDER = "s3://memory/reference/p/sites"


@dataclass
class World:
    """A shard that knows its stream's key, with the ledger and the bucket of a publisher."""

    folder: Any

    def __post_init__(self) -> None:
        self.source = self.folder / "sites.csv"
        self.source.write_text("device,site\nd,first\n")
        reference = Reference("sites", str(self.source), key="device", columns={"site": "string"})
        self.pipeline = Pipeline("p", CONTRACT).enrich(reference, on="device").lake("readings")
        database = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        database.create_table(TableName="l", KeySchema=keys)
        self.ledger, self.objects = Ledger(database, "l", "p"), MemoryObjects()
        self.key = ensure_control_key("s", streams(database, "l"))
        ensure_initial(self.pipeline, self.ledger, self.objects, pytest.fail)
        self.said: list[dict[str, Any]] = []
        self.check = ControlCheck(self.key, "p", self.ledger)

    def publish(self, site: str) -> dict[str, Any]:
        """Write a version, and keep what is announced instead of putting it on a stream."""
        self.source.write_text(f"device,site\nd,{site}\n")
        announced: list[dict[str, Any]] = []
        publish(
            self.pipeline,
            "sites",
            None,
            self.ledger,
            self.objects,
            pytest.fail,
            lambda _, body: announced.append(body),
        )
        return announced[0]

    def read(self, *bodies: bytes) -> tuple[ShardState, Effects]:
        """Let a new shard read these records."""
        state = ShardState(self.pipeline)
        state.refer(self.pipeline, self.ledger.document(DOCUMENT)[0])
        loader = ReferenceLoader(self.pipeline, self.objects)
        engine = Engine(self.pipeline, SHARD, state, loader, check_control=self.check)
        arrived = 1_762_160_400_000
        found = engine.process([StreamRecord(SHARD, str(at), arrived, "k", data) for at, data in enumerate(bodies)])
        return state, found


@pytest.fixture
def world(tmp_path: Any) -> World:
    return World(tmp_path)


def without_counts(state: ShardState) -> bytes:
    state.counts = {}
    return state.dumps()


RECEIPT: dict[str, Any] = {"contract": "reading", "intervals": {"forged": [[0, 1_000_000]]}, "refused": {SHARD: 99}}
REFERENCE: dict[str, Any] = {"name": "sites", "version": 2, "uri": f"{FOLDER}/0000000002-{DIGEST}.parquet"}
BODIES = [
    ("receipt", RECEIPT),
    ("receipt", {"contract": "other", "intervals": {}}),
    ("reference", REFERENCE),
    ("reference", REFERENCE | {"version": 99, "uri": "s3://memory/none.parquet"}),
    ("contract", {"name": "reading", "version": 2}),
    ("", {}),
]
WRAPS = (
    lambda text: text,
    gzip.compress,
    zstandard.compress,
    lambda text: encode_kpl([text], "k", None),
    lambda text: b"\xef\xbb\xbf " + text,
)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_what_has_no_signature_of_the_stream_changes_nothing_and_is_named(
    world: World, kind: str, body: dict[str, Any], wrap: Any
) -> None:
    true = encode_control("receipt", {"contract": "reading", "intervals": {"o": [[0, 5]]}}, world.key)
    before, _ = world.read(EVENT, true, EVENT)
    signed = encode_control(kind, body, b"another stream's")
    for forged in (encode_control(kind, body), signed, true.replace(b"[0,5]", b"[0,6]"), signed + b" "):
        after, effects = world.read(EVENT, wrap(forged), true, EVENT)
        assert (after.counts["forged_controls"], effects.forged, effects.refused) == (1, 1, 0)
        assert effects.letters[0].reason.endswith(("not signed", "signed with another key"))
        assert without_counts(after) == without_counts(before)


def test_a_true_one_is_believed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")  # as services run
    second = world.publish("second")
    kinds = [("receipt", RECEIPT), ("reference", second), ("later", {})]
    state, effects = world.read(*(encode_control(kind, body, world.key) for kind, body in kinds), EVENT)
    assert effects.letters == []
    assert effects.refused == 99
    assert 999_999 in state.accepted.get("forged")
    assert effects.lake[0]["site"].to_pylist() == ["second"]
    assert state.counts["unknown_controls"] == 1


def test_the_ledger_says_which_versions_there_are(world: World) -> None:
    """Who has the key of receipts, as each producer has, still announces no reference table."""
    second, third = world.publish("second"), world.publish("third")
    elsewhere = world.objects.put("reference/p/other/sites/0000000002-" + DIGEST + ".parquet", b"")
    false = [
        third | {"version": 4, "uri": f"{FOLDER}/0000000004-{DIGEST}.parquet"},
        third | {"uri": f"{FOLDER}/0000000003-{DIGEST}.parquet"},
        second | {"uri": elsewhere},
        third | {"name": "nope"},
        third | {"version": second["version"]},
    ]
    other = third | {"uri": f"s3://memory/reference/q/sites/0000000003-{DIGEST}.parquet"}
    state, effects = world.read(encode_control("reference", other, world.key), EVENT)
    assert (effects.letters, effects.lake[0]["site"].to_pylist()) == ([], ["first"])  # another pipeline's table
    for body in false:
        state, effects = world.read(encode_control("reference", body, world.key), EVENT)
        assert state.counts["forged_controls"] == 1, body
        assert effects.lake[0]["site"].to_pylist() == ["first"]
        assert "the ledger has no version" in effects.letters[0].reason
    _, effects = world.read(*(encode_control("reference", one, world.key) for one in (second, third)), EVENT)
    assert effects.lake[0]["site"].to_pylist() == ["third"]


@given(st.data())
def test_no_bytes_without_the_key_do_more_than_be_buried(tmp_path_factory: Any, data: st.DataObject) -> None:
    world = World(tmp_path_factory.mktemp("w"))
    values = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda one: st.lists(one, max_size=3))
    kind = data.draw(st.sampled_from(["receipt", "reference", "contract"]))
    fields = data.draw(st.dictionaries(st.sampled_from(["contract", "intervals", "name", "version", "uri"]), values))
    mac = data.draw(st.none() | st.text("0123456789abcdef", min_size=64, max_size=64))
    forged = {"$headwater": {"kind": kind, **fields}} | ({"mac": mac} if mac else {})
    text = json.dumps(forged, separators=(",", ":")).encode()
    before, _ = world.read(EVENT)
    after, effects = world.read(text, EVENT)
    assert (after.counts["forged_controls"], len(effects.letters)) == (1, 1)
    assert without_counts(after) == without_counts(before)


def test_one_key_a_stream_however_many_begin(world: World) -> None:
    database = MemoryDynamoDB()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    database.create_table(TableName="l", KeySchema=keys)
    made = {ensure_control_key("s", streams(database, "l")) for _ in range(5)}
    assert len(made) == 1
    assert ensure_control_key("t", streams(database, "l")) not in made
    assert len(world.key) == 32
