"""The outbox's file against a model of it in plain Python, through whatever happens to a producer."""

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.contract import load_contract
from headwater.errors import UsageError
from headwater.producers.outbox import Outbox
from headwater.producers.sealing import SealedBatch

CONTRACT = load_contract("telemetry")


def event(number: int) -> dict[str, object]:
    return {"device": "d", "metric": "m", "ts": 1_762_160_400_000 + number, "value": float(number)}


@dataclass
class Model:
    """What the file is to hold."""

    origin: str = ""
    next_seq: int = 0
    next_batch: int = 0
    sealed: int = 0
    events: dict[int, int] = field(default_factory=dict)
    """Events of each piece that is not sealed, by its id."""
    batches: list[SealedBatch] = field(default_factory=list)
    sessions: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The next number of each, and how far receipts have told of it."""

    def waiting(self, origin: str) -> list[SealedBatch]:
        return [one for one in self.batches if one.origin == origin]

    def delivered(self) -> dict[str, int]:
        return {
            origin: min([one.first_seq for one in self.waiting(origin)], default=first)
            for origin, (first, _) in self.sessions.items()
        }

    def untold(self) -> set[tuple[str, int]]:
        found = set[tuple[str, int]]()
        for origin, (first, told) in self.sessions.items():
            waits = {one.first_seq + at for one in self.waiting(origin) for at in range(one.count)}
            found |= {(origin, number) for number in range(told, first) if number not in waits}
        return found


class Life:
    """One file, and its model."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path, self.chance, self.model = path, chance, Model()
        self.openings = 0
        self.open()

    def open(self) -> None:
        self.openings += 1
        self.outbox = Outbox(self.path, "s", CONTRACT, f"origin-{self.openings}", "process")
        self.model.origin, self.model.next_seq = f"origin-{self.openings}", 0
        assert self.outbox.numbering.next_batch == self.model.next_batch

    def add(self) -> None:
        """Events of one call, in place of others that were cut otherwise."""
        counts = [self.chance.randrange(1, 4) for _ in range(self.chance.randrange(1, 3))]
        pieces = [event(0) if count == 1 else _table(count) for count in counts]
        gone = self.chance.sample(sorted(self.model.events), min(len(self.model.events), self.chance.randrange(2)))
        ids = self.outbox.add(pieces, gone)
        for one in gone:
            del self.model.events[one]
        assert not self.model.events.keys() & set(ids)
        self.model.events |= dict(zip(ids, counts, strict=True))

    def seal(self) -> None:
        model, outbox = self.model, self.outbox
        taken = sorted(model.events)[: self.chance.randrange(1, 4)]
        made = list[SealedBatch]()
        for one in taken:
            count = model.events.pop(one)
            own = self.chance.random() < 0.8
            body = bytes(self.chance.randrange(1, 50))
            origin, first = (model.origin, model.next_seq) if own else (None, 0)
            made.append(SealedBatch(model.next_batch, body, "k", "1", origin, first, count, None))
            model.next_batch += 1
            model.next_seq += count if own else 0
            model.sealed += count
        numbering = replace(outbox.numbering, next_seq=model.next_seq, next_batch=model.next_batch)
        outbox.seal(made, taken, numbering)
        model.batches += made
        if any(one.origin for one in made):
            told = model.sessions.get(model.origin, (0, 0))[1]
            model.sessions[model.origin] = model.next_seq, told

    def deliver(self) -> None:
        gone = {one.batch_id for one in self.model.batches if self.chance.random() < 0.5}
        self.outbox.delivered(gone)
        self.model.batches = [one for one in self.model.batches if one.batch_id not in gone]

    def announce(self) -> None:
        told = {name: seq for name, seq in self.model.delivered().items() if self.chance.random() < 0.7}
        self.outbox.announce(told)
        for name, seq in told.items():
            first, _ = self.model.sessions[name]
            self.model.sessions[name] = first, seq
        over = [name for name, (first, at) in self.model.sessions.items() if at >= first and name != self.model.origin]
        for name in over:
            del self.model.sessions[name]

    def reopen(self) -> None:
        self.outbox.close()
        self.open()
        stored = list(self.outbox.events())
        assert [one.event_id for one in stored] == sorted(self.model.events)
        sizes = [1 if isinstance(one.rows, dict) else one.rows.num_rows for one in stored]
        assert sizes == [self.model.events[one.event_id] for one in stored]

    def check(self) -> None:
        model, outbox = self.model, self.outbox
        assert outbox.left() == sum(model.events.values()) + sum(one.count for one in model.batches)
        assert outbox.accepted() == sum(model.events.values()) + model.sealed
        assert outbox.last_batch() == max([one.batch_id for one in model.batches], default=-1)
        assert outbox.delivered_up_to() == model.delivered()
        told = [(name, at) for name, start, count in outbox.unannounced() for at in range(start, start + count)]
        assert len(told) == len(set(told))
        assert set(told) == model.untold()
        after, most = self.chance.randrange(-1, model.next_batch + 1), self.chance.randrange(1, 120)
        behind = [one for one in model.batches if one.batch_id > after]
        assert outbox.batches(after, 1 << 40) == behind
        page = outbox.batches(after, most)
        assert page == behind[: len(page)]
        assert sum(one.size for one in page[:-1]) < most
        assert page == behind or sum(one.size for one in page) >= most


def _table(count: int) -> pa.Table:
    return pa.Table.from_pylist([event(at) for at in range(count)], schema=CONTRACT.arrow_schema)


STEPS = ("add", "add", "seal", "seal", "deliver", "announce", "reopen")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(STEPS), min_size=10, max_size=40), st.integers(0, 2**32))
def test_the_file_holds_what_its_model_does(steps: Sequence[str], seed: int) -> None:
    """After every step of a producer's life."""
    with TemporaryDirectory() as folder:
        life = Life(Path(folder) / "outbox.db", random.Random(seed))
        for step in steps:
            getattr(life, step)()
            life.check()
        life.outbox.close()


@pytest.mark.parametrize(("sent", "sessions"), [(5, [("old", 2, 2)]), (0, [])])
def test_a_file_of_the_first_format_ends_its_session(tmp_path: Path, sent: int, sessions: list[object]) -> None:
    """What it sealed and told of is kept; it is opened again as a file of today, and no more by code of before."""
    path = tmp_path / "outbox.db"
    Outbox(path, "s", CONTRACT, "x").close()
    old = sqlite3.connect(path, isolation_level=None)
    state = {"format": "1", "origin": "old", "next_seq": sent, "announced": min(sent, 2), "next_batch": 3}
    old.executemany("insert or replace into state values (?, ?)", [(name, str(one)) for name, one in state.items()])
    old.execute("delete from state where name = 'sealed_events'")
    old.execute("insert into batches values (2, x'00', 'k', '1', 'old', 4, 1, null)")
    old.close()
    for origin in ("new", "newer"):
        outbox = Outbox(path, "s", CONTRACT, origin)
        assert (outbox.unannounced(), outbox.accepted(), outbox.left()) == (sessions, sent, 1)
        assert (outbox.numbering.origin, outbox.numbering.next_seq, outbox.numbering.next_batch) == (origin, 0, 3)
        outbox.close()
    with closing(sqlite3.connect(path)) as file:
        assert dict(file.execute("select name, value from state where name in ('format', 'origin')")) == {"format": "2"}


def test_events_that_break_the_contract_are_no_events_of_the_file(tmp_path: Path) -> None:
    """As after a change of the contract in place: the file is refused, not read as something else."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, "s", CONTRACT, "x")
    outbox.add([_table(2)])
    outbox.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("update events set body = ?", (b"[" + b'{"device":"d","metric":"m","ts":1,"value":"no"}' + b"]",))
    outbox = Outbox(path, "s", CONTRACT, "y")
    with pytest.raises(UsageError, match="holds events that break contract telemetry"):
        outbox.left()
    outbox.close()
