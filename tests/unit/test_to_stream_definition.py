"""Which events go on to another stream, in what form, and which streams are refused."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.config import Settings
from headwater.contract import parse_contract
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.claims import REGISTRY, claim_names, claimed_names, release_names
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.outputs import _sizes
from headwater.sinks.streams import StreamBatch
from headwater.testing import run_pipeline
from tests.flowing import DOUBLED, OWN, READING, START, World, times


def test_events_that_the_other_contract_refuses_are_letters_and_stay_in_the_lake() -> None:
    def odd(events: pa.Table) -> pa.Table:
        return pa.table({"twice": pc.if_else(pc.equal(events["n"], 1), None, events["n"])})

    def picky(events: pa.Table) -> pa.Table:
        if 2 in events["n"].to_pylist():
            raise ValueError("2")
        return pc.less(events["n"], 4)

    pipeline = Pipeline("p", READING).map(odd, adds={"twice": "long"})
    pipeline = pipeline.to_stream("doubled", contract=DOUBLED, where=picky).lake("p")
    run = run_pipeline(pipeline, [{"device": "d", "ts": START, "n": n} for n in range(5)])
    assert run.streams["doubled"]["n"].to_pylist() == [0, 3]
    assert run.lake.num_rows == 5
    assert sorted(one.reason for one in run.dead_letters) == [
        "to stream doubled: ValueError: 2",
        "to stream doubled: field twice: required, but missing or null",
    ]
    assert (run.counts["to.doubled"], run.counts["not_to.doubled"]) == (2, 2)


def test_an_event_that_no_record_holds_is_a_letter() -> None:
    note = parse_contract(
        "name: note\nversion: 1\nkey: device\ntime: ts\nfields:\n  - {name: device, type: string}\n"
        "  - {name: ts, type: timestamp}\n  - {name: text, type: string, max_bytes: 4000000}\n",
        "note",
    )
    noise = np.random.default_rng(1).integers(33, 127, 1_200_000, dtype=np.uint8).tobytes().decode()
    pipeline = Pipeline("p", note).to_stream("copy", contract=note).lake("p")
    run = run_pipeline(pipeline, [{"device": "d", "ts": START, "text": text} for text in ("a", noise, "b")])
    assert run.streams["copy"]["text"].to_pylist() == ["a", "b"]
    (letter,) = run.dead_letters
    assert "its 1,200,0" in letter.reason
    assert run.lake.num_rows == 3


def test_no_value_is_no_large_one() -> None:
    """A null in a coded column has a code of its own in memory, which may be that of a large text."""
    codes = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int32()), ["x" * 950_000, "y"])
    assert _sizes(pa.table({"text": codes})).tolist() == [950_000, 0, 1]


def test_batches_are_no_larger_than_records() -> None:
    noise = np.random.default_rng(1).integers(0, 2**62, 400_000)
    rows = {"device": ["d"] * len(noise), "ts": [START] * len(noise), "n": noise}
    sizes: list[int] = []
    import headwater.processors.shard.outgoing as module

    table = pa.table(rows).cast(READING.arrow_schema)
    step = Pipeline("p", READING).to_stream("s", contract=READING).streams[0]
    found: list[StreamBatch] = list(module._batches(step, table, "o", 0, None))
    sizes = [len(one.data) for one in found]
    assert max(sizes) <= 1_000_000
    assert len({one.place for one in found}) == len(found)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.to_stream("a/b", contract=READING), "cannot be named"),
        (lambda p: p.to_stream("s", contract=READING).to_stream("s", contract=READING), "two streams named s"),
        (lambda p: p.to_stream("s", contract=DOUBLED), "no column 'twice'"),
        (lambda p: p.map(times(2), adds={"twice": "int"}).to_stream("s", contract=DOUBLED), "as int"),
        (lambda p: p.to_stream("s", contract=READING, where=3), "where"),
        (lambda p: p.to_stream("s", contract=OWN), "an id of its own"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_defined(call: Callable[[Pipeline], Pipeline], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call(Pipeline("p", READING))


def test_a_circle_is_refused() -> None:
    world = World()
    registry = Ledger(world.db, "ledger", REGISTRY)

    def claim(name: str, stream: str, *to: str) -> None:
        pipeline = Pipeline(name, READING).lake(name)
        for one in to:
            pipeline = pipeline.to_stream(one, contract=READING)
        claim_names(pipeline, Settings(stream=stream), "bucket", registry)

    with pytest.raises(UsageError, match="a → a"):
        claim("loop", "a", "a")
    claim("one", "a", "b")
    claim("two", "b", "c", "d")
    claim("one", "a", "b")
    with pytest.raises(UsageError, match="c → a → b → c"):
        claim("three", "c", "a")
    flows = [one for one in claimed_names(registry) if one.kind == "flow"]
    assert [(one.place, one.name, one.pipeline) for one in flows] == [
        ("a", "b", "one"),
        ("b", "c", "two"),
        ("b", "d", "two"),
    ]
    claim("two", "b", "d")
    claim("three", "c", "a")
    claim("three", "c")
    release_names(registry, "one")
    claim("two", "b", "c", "a")
