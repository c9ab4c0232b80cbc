"""One identity never names two events, whatever becomes of an outbox or of a process's memory."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.codec import Decoded
from headwater.errors import HeadwaterError
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Runtime
from tests.producer_stream import FakeStream, client_error
from tests.producing import QUICK, TELEMETRY, event


def contents(stream: FakeStream) -> dict[tuple[str, int], str]:
    """The device of each identity; fails when one has two."""
    found: dict[tuple[str, int], str] = {}
    digests: dict[tuple[str, int, int], str | None] = {}
    for batch in stream.decoded(TELEMETRY):
        name = (batch.origin or "", batch.first_seq, batch.total)
        assert digests.setdefault(name, batch.digest) == batch.digest
        for one, row in identities(batch):
            assert found.setdefault(one, row) == row, f"{one} names two events"
    return found


def identities(batch: Decoded) -> list[tuple[tuple[str, int], str]]:
    names = [(batch.origin or "", batch.first_seq + int(row)) for row in batch.rows]
    return list(zip(names, batch.table.column("device").to_pylist(), strict=True))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(0, 1), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("save"), st.integers(0, 1)),
        st.tuples(st.just("restore"), st.integers(0, 1)),
        st.tuples(st.just("copy"), st.integers(0, 1)),
    ),
    min_size=3,
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_an_outbox_restored_rolled_back_or_copied_gives_no_identity_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int] | tuple[str, int, int, bool]]
) -> None:
    """Two machines and a backup: every event that `put` confirmed while the stream was up is on the stream."""
    folder = tmp_path_factory.mktemp("outboxes")
    boxes, saved, stream = [folder / "0.db", folder / "1.db"], folder / "saved.db", FakeStream()
    confirmed, number = set[str](), 0
    quick = ProducerSettings(linger_ms=1, max_events=3)
    for what, machine, *rest in steps:
        box = boxes[machine]
        if what == "run":
            count, up = rest
            stream.always = None if up else client_error("AccessDeniedException")
            producer = Producer("s", TELEMETRY, client=stream, settings=quick, outbox=box)
            names = [f"d{number + at}" for at in range(int(count))]
            number += len(names)
            futures = [producer.put(event(device=name)) for name in names]
            try:
                producer.close()
            except HeadwaterError:
                assert not up
            confirmed |= {name for name, future in zip(names, futures, strict=True) if not future.exception(0)}
        elif what == "save" and box.exists():
            shutil.copy(box, saved)
        elif what == "restore" and saved.exists():
            shutil.copy(saved, box)
        elif what == "copy" and box.exists():
            shutil.copy(box, boxes[1 - machine])
    assert confirmed <= set(contents(stream).values())


def test_a_process_taken_up_again_from_a_snapshot_begins_a_session() -> None:
    """The machine's clock went on and the process did not: what is sealed afterwards has another origin."""

    class Machine(ManualClock):
        stopped_ms = 0

        def monotonic_ms(self) -> int:
            return self.now_ms() - self.stopped_ms

    clock, stream = Machine(), FakeStream()
    hurry = ProducerSettings(linger_ms=0)
    with Producer("s", TELEMETRY, client=stream, settings=hurry, runtime=Runtime(clock)) as producer:
        first = producer.put(event(device="a")).result(30)
        clock.advance(60_000)
        same = producer.put(event(device="b")).result(30)
        clock.stopped_ms += 60_000
        clock.advance(60_000)
        other = producer.put(event(device="c")).result(30)
        again = producer.put(event(device="d")).result(30)
        assert producer.origin == other.origin
    assert (same.origin, same.first_seq) == (first.origin, 1)
    assert other.origin != first.origin
    assert [(one.origin == other.origin, one.first_seq) for one in (other, again)] == [(True, 0), (True, 1)]
    assert sorted(contents(stream).values()) == ["a", "b", "c", "d"]


def test_an_outbox_of_the_former_format_is_taken_over(tmp_path: Path) -> None:
    """Its session ends: sealed batches keep their identity and its receipts are put, new events have another origin."""
    box, stream = tmp_path / "outbox.db", FakeStream()
    stream.always = client_error("AccessDeniedException")
    producer = Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=box)
    producer.put(event(device="old"))
    with pytest.raises(HeadwaterError):
        producer.close()
    former = Outbox(box, "s", TELEMETRY, "x")
    former._db.executescript("""
        delete from sessions; update state set value = '1' where name = 'format';
        delete from state where name = 'sealed_events';
        insert into state values ('next_seq', '1'), ('announced', '0'), ('origin', (select origin from batches));
    """)
    former.close()
    stream.always = None
    with Producer("s", TELEMETRY, client=stream, settings=QUICK, outbox=box) as again:
        again.put(event(device="new"))
    assert contents(stream) == {(producer.origin, 0): "old", (again.origin, 0): "new"}
    (receipt,) = stream.controls(TELEMETRY)
    assert receipt.body["intervals"] == {producer.origin: [[0, 1]], again.origin: [[0, 1]]}


@pytest.mark.parametrize(("survives", "synchronous"), [("power", 2), ("process", 1)])
def test_what_is_confirmed_survives_as_the_settings_say(tmp_path: Path, survives: str, synchronous: int) -> None:
    """SQLite's FULL and NORMAL: the log is on the disk at every commit, or at a checkpoint."""
    wanted = ProducerSettings(outbox_survives=survives)  # type: ignore[arg-type]  # a value that is given
    box = tmp_path / "outbox.db"
    with Producer("s", TELEMETRY, client=FakeStream(), settings=wanted, outbox=box) as producer:
        found = producer._sender.outbox
        assert found is not None
        assert found._db.execute("pragma synchronous").fetchone() == (synchronous,)
