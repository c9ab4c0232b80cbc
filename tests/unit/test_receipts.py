"""Receipts: each delivered event with a number is named once, when it is time, and again where that failed."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.contract import Contract, load_contract, parse_contract
from headwater.errors import HeadwaterError
from headwater.producers import receipts
from headwater.producers.outbox import Outbox
from headwater.producers.receipts import PendingReceipts, ReceiptWriter
from headwater.producers.sealing import Numbering, SealedBatch
from headwater.producers.settings import ProducerSettings
from tests.unit.test_sealing import OWN

TELEMETRY = load_contract("telemetry")
TEXTS = parse_contract(
    "{name: a, version: 1, key: o, time: t, id: {origin: o}, fields: [{name: o, type: string},"
    " {name: t, type: timestamp}]}",
    "test",
)
START = 1_000_000


class Stream:
    """What receipts are put on."""

    def __init__(self) -> None:
        self.clock, self.signs, self.fails_after = ManualClock(START), True, 99
        self.bodies: list[Mapping[str, Any]] = []

    def can_sign(self) -> bool:
        return self.signs

    def put_control(self, kind: str, body: Mapping[str, Any]) -> None:
        assert kind == "receipt"
        if not self.fails_after:
            raise HeadwaterError("stream s is not there")
        self.fails_after -= 1
        self.bodies.append(dict(body))


def writer(
    stream: Stream, contract: Contract = TELEMETRY, outbox: Outbox | None = None, **settings: Any
) -> ReceiptWriter:
    like: Any = stream
    return ReceiptWriter(like, contract, ProducerSettings(**settings), outbox)


def session(first: int, count: int, origin: str = "o", number: int = 0) -> SealedBatch:
    return SealedBatch(number, b"", "k", "1", origin, first, count)


def own(*events: tuple[str, int], kept: bool) -> SealedBatch:
    """A batch of events with ids of their own: as it was sealed, or as an outbox has it."""
    columns = {"device": [one for one, _ in events], "seq": [seq for _, seq in events], "ts": [1] * len(events)}
    table = pa.table(columns).cast(OWN.arrow_schema)
    ids = table.select(["device", "seq"]) if kept else None
    return SealedBatch(0, b"" if kept else encode_batch(table, OWN), "k", "1", None, 0, len(events), 3, ids)


@pytest.mark.parametrize("kept", [True, False])
def test_events_are_named_by_their_session_or_by_their_own_ids(kept: bool) -> None:
    found = PendingReceipts(OWN)
    assert found.empty
    found.add_batch(own(("a", 5), ("b", -1), ("a", 6), ("a", 9), kept=kept))
    found.add_batch(own(("b", 0), kept=kept))
    found.add_batch(session(3, 2))
    assert not found.empty
    assert sorted(found.intervals()) == [("a", 5, 2), ("a", 9, 1), ("b", -1, 2), ("o", 3, 2)]


def test_events_that_break_the_contract_meanwhile_are_not_named() -> None:
    """Of a batch in the outbox of an earlier run: those that are right are."""
    found = PendingReceipts(OWN)
    for payload in (b'{"device": "d"}', b'{"device": "d", "seq": 1, "ts": "2026-03-01T12:00:00Z"}\n{"device": 7}'):
        found.add_batch(SealedBatch(0, payload, "k", "1", None, 0, 2))
    assert list(found.intervals()) == [("d", 1, 1)]


@pytest.mark.parametrize("contract", [TELEMETRY, TEXTS, OWN])
def test_events_without_a_number_are_not_named(contract: Contract) -> None:
    """Of other formats, with a text alone as their id, and those that cannot be read any more."""
    found = PendingReceipts(contract)
    payload = b"{" if contract is OWN else b'{"o": "u", "t": 1}'
    found.add_batch(SealedBatch(0, payload, "k", "1", None, 0, 7))
    if contract is not OWN:
        found.add_own_ids(pa.table({"o": ["u"], "device": ["d"], "ts": [1]}))
    assert found.empty
    assert list(found.bodies()) == []


@pytest.mark.parametrize(("most", "sizes"), [(101, [2, 2, 2]), (102, [3, 3]), (1_000, [6]), (10, [1] * 6)])
def test_a_receipt_ends_with_the_interval_that_makes_it_too_large(
    monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]
) -> None:
    """An interval is taken for 48 bytes and its origin's name."""
    monkeypatch.setattr(receipts, "MAX_BODY_BYTES", most)
    found = PendingReceipts(TELEMETRY)
    for at in range(3):
        found.add_session("p", 10 * at, 4)
        found.add_session("o", 10 * at, 5)
    bodies: list[dict[str, Any]] = list(found.bodies())
    named = [(name, *one) for body in bodies for name, some in body["intervals"].items() for one in some]
    assert named == [(name, 10 * at, 10 * at + n) for name, n in (("p", 4), ("o", 5)) for at in range(3)]
    assert [sum(map(len, body["intervals"].values())) for body in bodies] == sizes
    assert {body["contract"] for body in bodies} == {"telemetry"}


def test_what_was_taken_is_gone_until_it_is_put_back() -> None:
    found = PendingReceipts(TELEMETRY)
    found.add_session("o", 0, 3)
    taken = found.take()
    assert (found.empty, list(taken.intervals())) == (True, [("o", 0, 3)])
    found.add_session("o", 3, 1)
    assert list(taken.intervals()) == [("o", 0, 3)]
    found.put_back(taken)
    assert list(found.intervals()) == [("o", 0, 4)]


def test_a_receipt_is_put_when_it_is_due_and_names_what_came_since_the_last() -> None:
    stream = Stream()
    subject = writer(stream)
    assert subject.due_ms() is None
    subject.add(session(0, 3))
    assert subject.due_ms() == START + 30_000
    stream.clock.advance(7_000)
    assert subject.put(Counter()) is None
    assert (stream.bodies, subject.due_ms()) == ([{"contract": "telemetry", "intervals": {"o": [[0, 3]]}}], None)
    subject.add(session(3, 2))
    assert subject.due_ms() == START + 37_000
    stream.clock.advance(1)
    subject.postpone()
    assert subject.due_ms() == START + 37_001
    subject.put(Counter())
    subject.put(Counter())
    assert [one["intervals"] for one in stream.bodies] == [{"o": [[0, 3]]}, {"o": [[3, 5]]}]


def test_refused_records_are_told_once() -> None:
    stream, refused = Stream(), Counter({"shard-1": 4})
    subject = writer(stream)
    subject.put(refused)
    assert (stream.bodies, refused) == ([], {"shard-1": 4}), "there is no receipt to tell of them"
    for number in range(2):
        subject.add(session(number, 1))
        subject.put(refused)
    assert [one.get("refused") for one in stream.bodies] == [{"shard-1": 4}, None]
    assert not refused


def test_what_cannot_be_put_or_signed_is_put_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what an earlier receipt of the same time has named: twice is as good as once."""
    monkeypatch.setattr(receipts, "MAX_BODY_BYTES", 1)
    stream = Stream()
    subject = writer(stream)
    subject.add(session(0, 3))
    stream.signs = False
    assert subject.put(Counter()) is None
    assert stream.bodies == []
    stream.signs, stream.fails_after = True, 1
    subject.add(session(5, 1))
    assert str(subject.put(Counter())) == "stream s is not there"
    stream.fails_after, stream.bodies = 99, []
    assert subject.due_ms() == START + 30_000
    subject.put(Counter())
    assert [one["intervals"] for one in stream.bodies] == [{"o": [[0, 3]]}, {"o": [[5, 6]]}]


@pytest.mark.parametrize("settings", [{"receipts": False}, {"format": "json"}, {"format": "kpl"}])
def test_a_producer_without_receipts_collects_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    outbox = _left(tmp_path)
    subject = writer(Stream(), outbox=outbox, **settings)
    subject.add(session(0, 3))
    assert (subject.due_ms(), subject.identities([session(0, 3)])) == (None, [])
    outbox.close()


def test_identities_of_batches_are_what_receipts_would_name() -> None:
    subject = writer(Stream())
    assert subject.identities([session(4, 2), session(0, 4), session(9, 1, "p")]) == [("o", 0, 6), ("p", 9, 1)]
    assert subject.due_ms() is None


def _left(folder: Path) -> Outbox:
    """An outbox in which an earlier run has left what nobody was told of."""
    outbox = Outbox(folder / "outbox.db", "s", TELEMETRY, "old", "process")
    outbox.seal([session(0, 3, "old"), session(3, 2, "old", 1)], [], Numbering("old", 5, 2))
    outbox.delivered([0], [("caller", 7, 2)])
    outbox.close()
    return Outbox(folder / "outbox.db", "s", TELEMETRY, "new", "process")


def test_an_outbox_remembers_what_is_not_told_and_forgets_what_is(tmp_path: Path) -> None:
    stream, outbox = Stream(), _left(tmp_path)
    subject = writer(stream, outbox=outbox)
    stream.fails_after = 0
    assert subject.put(Counter()) is not None
    assert sorted(outbox.unannounced()) == [("caller", 7, 2), ("old", 0, 3)]
    stream.fails_after = 99
    outbox.delivered([1])
    subject.add(session(3, 2, "old", 1))
    subject.put(Counter())
    assert [one["intervals"] for one in stream.bodies] == [{"caller": [[7, 9]], "old": [[0, 5]]}]
    assert (outbox.unannounced(), outbox.untold(), outbox.delivered_up_to()) == ([], [], {})
    outbox.close()
