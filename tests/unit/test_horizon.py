"""After 30 days: what is remembered of an origin goes together, and not while anything of it arrives."""

from typing import Any

import pyarrow as pa
import pytest

from headwater.codec import encode_batch, encode_control
from headwater.contract import Contract, parse_contract
from headwater.processors.audit.audit import audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.record import StreamRecord

DAY, START, SHARD = 86_400_000, 1_762_160_400_000, "shardId-000000000000"


def contract(own: str = "") -> Contract:
    return parse_contract(
        f"name: reading\nversion: 1\nkey: device\ntime: ts\n{own}\n"
        "fields:\n"
        "  - {name: device, type: string}\n"
        "  - {name: n, type: long}\n"
        "  - {name: ts, type: timestamp}\n"
        "  - {name: value, type: double, maximum: 1000}\n",
        "reading",
    )


OWN = contract("id: {origin: device, seq: n}")
SEALED = contract()


def without_sevens(events: pa.Table) -> pa.Array:
    return pa.array([value != 7 for value in events["value"].to_pylist()])


def no_thirteens(events: pa.Table) -> pa.Table:
    if 13 in events["value"].to_pylist():
        raise ValueError("unlucky")
    return pa.table({"x": events["value"]})


class Shard:
    """One shard that is restarted from its snapshot after each record, or not at all."""

    def __init__(self, of: Pipeline, *, restarts: bool) -> None:
        self.of, self.restarts = of, restarts
        self.state = ShardState(of)
        self.lake: list[pa.Table] = []
        self.letters: list[DeadLetter] = []
        self.number = 0

    def put(self, day: float, seq: int, value: float = 1.0, origin: str = "d") -> int:
        """An event that arrives on this day; how many rows reach the lake."""
        arrived = int(START + day * DAY)
        rows = [{"device": origin, "n": seq, "ts": arrived, "value": value}]
        own = self.of.contract.id is not None
        table = pa.Table.from_pylist(rows, schema=self.of.contract.arrow_schema)
        identity: dict[str, Any] = {} if own else {"origin": origin, "first_seq": seq}
        return self.take(arrived, encode_batch(table, self.of.contract, **identity))

    def receipt(self, day: float, origin: str, stop: int) -> None:
        body = {"contract": "reading", "intervals": {origin: [[0, stop]]}}
        self.take(int(START + day * DAY), encode_control("receipt", body))

    def take(self, arrived: int, data: bytes) -> int:
        self.number += 1
        engine = Engine(self.of, SHARD, self.state, lambda _n, _u: pytest.fail("there is no reference"))
        effects = engine.process([StreamRecord(SHARD, str(1000 + self.number), arrived, "k", data)])
        self.lake += [table for table in effects.lake if table.num_rows]
        self.letters += effects.letters
        if self.restarts:
            self.state = ShardState.loads(self.of, self.state.dumps())
        return sum(table.num_rows for table in effects.lake)

    def audited(self) -> tuple[bool, int, int]:
        """Whether it is exact, what is missing and what is unexpected."""
        rows = [batch for table in self.lake for batch in table.select(["_origin", "_seq"]).to_batches()]
        report = audit("t", [], [ShardState.loads(self.of, self.state.dumps())], rows)
        return report.exact, report.missing, report.unexpected


@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("of", [OWN, SEALED], ids=["own ids", "a session"])
def test_a_filtered_event_of_an_origin_that_goes_on_is_never_missing(of: Contract, restarts: bool) -> None:
    """A device, or a producer with an outbox, of which one event was filtered on the first day."""
    shard = Shard(Pipeline("t", of).where(without_sevens).lake("t"), restarts=restarts)
    shard.put(0, 0)
    assert shard.put(0, 1, 7.0) == 0
    for day in range(1, 64, 3):
        shard.put(day, 1 + day)
    assert shard.audited() == (True, 0, 0)


@pytest.mark.parametrize("restarts", [True, False])
def test_a_dead_event_that_comes_back_after_a_month_is_taken_once(restarts: bool) -> None:
    """Its device goes on meanwhile: it is no copy, and it is in the lake after all."""
    shard = Shard(Pipeline("t", OWN).map(no_thirteens, adds={"x": "double"}).lake("t"), restarts=restarts)
    shard.put(0, 0)
    assert shard.put(0, 1, 13.0) == 0
    assert len(shard.letters) == 1
    for day in range(1, 40):
        shard.put(day, 1 + day)
    assert shard.put(40, 1, 14.0) == 1
    assert shard.put(41, 1, 14.0) == 0
    assert shard.audited() == (True, 0, 0)


@pytest.mark.parametrize("restarts", [True, False])
def test_what_was_read_here_is_known_while_receipts_of_its_origin_come(restarts: bool) -> None:
    """An origin whose events have gone to other shards since: nothing of it is missing on this one."""
    shard = Shard(Pipeline("t", SEALED).lake("t"), restarts=restarts)
    shard.put(0, 0)
    for day in range(0, 64, 3):
        shard.receipt(day, "d", 1)
    assert shard.audited() == (True, 0, 0)
    assert shard.put(65, 0) == 0  # a copy still


@pytest.mark.parametrize("restarts", [True, False])
def test_an_origin_known_here_by_receipts_alone_goes_on_after_a_month(restarts: bool) -> None:
    """Its events were on another shard, which has forgotten them: they are not missing when new ones come here."""
    shard = Shard(Pipeline("t", SEALED).lake("t"), restarts=restarts)
    shard.receipt(0, "d", 2)
    shard.put(40, 2)
    shard.take(int(START + 40 * DAY), encode_control("receipt", {"contract": "reading", "intervals": {"d": [[2, 3]]}}))
    assert shard.state.accepted.get("d").intervals == [(2, 3)]
    assert shard.audited() == (True, 0, 0)


@pytest.mark.parametrize("restarts", [True, False])
def test_an_origin_that_is_silent_for_a_month_is_forgotten_as_a_whole(restarts: bool) -> None:
    """What was excluded of it under the same numbers says nothing about the new events."""
    shard = Shard(Pipeline("t", OWN).where(without_sevens).lake("t"), restarts=restarts)
    shard.put(0, 1, 7.0)
    shard.receipt(0, "d", 2)
    shard.put(31, 0, origin="another")
    assert shard.put(32, 1) == 1
    assert shard.state.excluded.get("d").intervals == []
    assert shard.audited() == (True, 0, 0)
    shard.put(64, 1, origin="another")
    state = ShardState.loads(shard.of, shard.state.dumps())
    assert [
        name for name in ("seen", "excluded", "dead", "revived", "accepted") if "d" in getattr(state, name).origins()
    ] == []
