"""A commit fits into the ledger's item, and whatever fails in it, the shard goes on with everything."""

import json
from typing import Any

import pyarrow as pa
import pytest

from headwater.errors import HeadwaterError, Retryable, Throttled
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.aggregate import ViewState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.runners.passing import is_passing
from headwater.sinks.views.store import ViewStore
from tests.total_shard import CONTRACTS, DAY, Shard, encoded, event, pipeline, sum_of


@pytest.mark.parametrize("kind", CONTRACTS)
@pytest.mark.parametrize("records", [1, 40])
def test_a_spray_of_days_is_in_the_lake_and_its_commit_fits(records: int, kind: str) -> None:
    """2,000 events of 2,000 days, in one record or in many: few files name them all."""
    shard = Shard(Pipeline("t", CONTRACTS[kind]).lake("t"))
    days = 2_000 // records
    for at in range(records):
        lines = [event(n, device=f"spray-{at}-{n}", ts=(11_000 + at * days + n) * DAY) for n in range(days)]
        shard.put(b"\n".join(map(encoded, lines)))
    shard.commit()
    shard.check()
    assert shard.counts["lake"] == records * days
    assert len(shard.ledger.shards()[0].pending) <= 257


def test_a_ledger_item_never_outgrows_what_the_service_takes() -> None:
    """Without a publisher, files of 64 days a commit and a state of nearly 64 KB: the shard waits, and then goes on."""
    shard = Shard(Pipeline("t", CONTRACTS["none"]).lake("t"))
    waited = 0
    for turn in range(30):
        lines = [event(n, ts=(11_000 + n) * DAY, note=f"{turn}-{n}" * 30) for n in range(64)]
        try:
            shard.put(b"\n".join(map(encoded, lines)), publish=False)
            shard.worker.commit()
        except Retryable:
            waited += 1
    assert waited
    files = len(shard.ledger.shards()[0].pending)
    assert files >= 900  # the room is used
    shard.take()
    shard.commit()
    shard.check()
    assert shard.counts["lake"] == 30 * 64


def test_a_commit_that_fails_names_no_more_files_at_each_attempt() -> None:
    """While the ledger refuses, nothing more is taken in; then everything is."""
    shard = Shard(pipeline(CONTRACTS["none"]))
    shard.put(encoded(event(1)))
    real, shard.ledger.commit = shard.ledger.commit, refuse  # type: ignore[method-assign,assignment]  # the fault
    with pytest.raises(Retryable):
        shard.worker.commit()
    for n in range(2, 50):
        with pytest.raises(Retryable):
            shard.put(encoded(event(n)), publish=False)
    shard.ledger.commit = real  # type: ignore[method-assign]  # the real one again
    shard.take()
    shard.commit()
    shard.check()
    assert shard.counts["lake"] == 49
    assert len(shard.ledger.shards()[0].pending) == 2


def refuse(*_: Any) -> Any:
    raise Retryable("not now")


def test_a_worker_whose_reference_could_not_be_read_is_dropped() -> None:
    """Its state has seen events that are nowhere: the error is none that passes, and a new worker takes them all."""
    shard = Shard(pipeline(CONTRACTS["pair"]))

    def failing(_name: str, _uri: str) -> ReferenceTable:
        raise Throttled("not now")

    shard.worker.engine._load_reference = failing
    with pytest.raises(HeadwaterError, match="Throttled: not now") as raised:
        shard.put(*[encoded(event(n)) for n in range(10)])
    assert not is_passing(raised.value)
    shard.worker = shard.claim()
    shard.take()
    shard.commit()
    shard.check()
    assert shard.counts["lake"] == 10


def test_a_record_that_the_engine_fails_on_is_buried_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that nobody knows of: the worker goes back to its commit, and finds the one record."""
    fold = ViewState.fold

    def failing(self: ViewState, table: pa.Table, *rest: Any) -> int:
        found = fold(self, table, *rest)
        if "boom" in table["note"].to_pylist():
            raise ZeroDivisionError("nobody knows")
        return found

    monkeypatch.setattr(ViewState, "fold", failing)
    shard = Shard(pipeline(CONTRACTS["pair"]))
    shard.put(*[encoded(event(n)) for n in range(20)])
    shard.commit()
    shard.put(*[encoded(event(n)) for n in range(20, 30)])
    shard.put(*[encoded(event(n, note="boom" if n == 37 else "x")) for n in range(30, 60)])
    shard.put(*[encoded(event(n)) for n in range(60, 70)])
    shard.commit()
    shard.check()
    (letter,) = shard.letters()
    assert json.loads(letter.payload)["n"] == 37
    assert letter.reason == "the processor fails on it: ZeroDivisionError: nobody knows"
    assert shard.counts["lake"] == 69
    views = ViewStore(shard.db, "v", clock=shard.clock)
    assert sum_of(row["n"] for row in views.rows(shard.of.views[0].spec)) == 69
