"""The outbox's file, call by call: what each of them leaves in it, also for who opens it next."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest

from headwater.contract import load_contract
from headwater.errors import HeadwaterError, UsageError
from headwater.producers.outbox import Backlog, Outbox
from headwater.producers.sealing import Numbering, SealedBatch
from tests.unit.test_sealing import OWN

TELEMETRY = load_contract("telemetry")
Opening = Callable[..., Outbox]


def row(number: int) -> dict[str, object]:
    return {"device": "d", "metric": "m", "ts": 1_762_160_400_000 + number, "value": float(number)}


def table(*numbers: int) -> pa.Table:
    return pa.Table.from_pylist([row(one) for one in numbers], schema=TELEMETRY.arrow_schema)


def batch(number: int, first: int = 0, count: int = 1, origin: str | None = "o", size: int = 9) -> SealedBatch:
    return SealedBatch(number, bytes(size), "k", "7", origin, first, count, number % 2 or None)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opening]:
    """Open the file; who had it before has let it go."""
    last: list[Outbox] = []

    def again(origin: str = "o", stream: str = "s", contract: Any = TELEMETRY) -> Outbox:
        for one in last:
            one.close()
        last[:] = [Outbox(tmp_path / "outbox.db", stream, contract, origin, "process")]
        return last[0]

    yield again
    for one in last:
        one.close()


def waiting(outbox: Outbox) -> list[tuple[int, list[Any]]]:
    found = list[tuple[int, list[Any]]]()
    for one in outbox.events():
        rows = [one.rows] if isinstance(one.rows, dict) else one.rows.to_pylist()
        found.append((one.event_id, [event["value"] for event in rows]))
    return found


def test_events_wait_in_their_order_until_they_are_sealed(opened: Opening) -> None:
    """Alone or as a table, in place of others that were cut otherwise, also for the next opening."""
    outbox = opened()
    assert (outbox.left(), outbox.accepted(), outbox.last_batch()) == (0, 0, -1)
    assert outbox.add([row(1), table(2, 3), row(4)]) == [1, 2, 3]
    assert outbox.add([table(2), table(3), row(5)], [2, 1]) == [4, 5, 6]
    wanted = [(3, [4.0]), (4, [2.0]), (5, [3.0]), (6, [5.0])]
    for _ in range(2):
        assert waiting(outbox) == wanted
        assert (outbox.left(), outbox.accepted()) == (4, 4)
        outbox = opened("next")
    outbox.seal([batch(0, 0, 1, "next"), batch(1, 1, 2, "next")], [3, 5, 6], Numbering("next", 3, 2))
    for origin in ("third", "fourth"):
        assert waiting(outbox) == [(4, [2.0])]
        assert (outbox.left(), outbox.accepted(), outbox.last_batch()) == (4, 4, 1)
        assert outbox.batches(-1, 1 << 30) == [batch(0, 0, 1, "next"), batch(1, 1, 2, "next")]
        outbox = opened(origin)
        assert outbox.numbering == Numbering(origin, 0, 2)
    outbox.delivered([0, 1])
    assert (outbox.left(), outbox.accepted(), outbox.last_batch(), outbox.batches(-1, 1)) == (1, 4, -1, [])


def test_a_sessions_numbers_are_known_once_one_of_its_batches_is_sealed(opened: Opening) -> None:
    """Not those of batches without an identity, or with a caller's; any in the call is enough."""
    outbox = opened()
    outbox.seal([batch(0, origin=None), batch(1, origin="caller")], [], Numbering("o", 0, 2))
    assert outbox.delivered_up_to() == {}
    outbox.seal([batch(2, origin=None), batch(3, 0, 5), batch(4, 5, 2)], [], Numbering("o", 7, 5))
    assert outbox.delivered_up_to() == {"o": 0}
    outbox.delivered([3])
    assert (outbox.delivered_up_to(), outbox.unannounced()) == ({"o": 5}, [("o", 0, 5)])
    outbox.delivered([4])
    assert (outbox.delivered_up_to(), outbox.unannounced()) == ({"o": 7}, [("o", 0, 7)])
    outbox.seal([batch(5, 7, 3)], [], Numbering("o", 10, 6))
    assert (outbox.delivered_up_to(), outbox.unannounced()) == ({"o": 7}, [("o", 0, 7)])


def test_what_nobody_was_told_of_lies_between_the_batches_that_wait(opened: Opening) -> None:
    outbox = opened()
    batches = [batch(at, first, count) for at, (first, count) in enumerate([(0, 2), (2, 3), (5, 1), (6, 4)])]
    outbox.seal(batches, [], Numbering("o", 10, 4))
    outbox.delivered([1, 3])
    assert outbox.unannounced() == [("o", 2, 3), ("o", 6, 4)]
    outbox.delivered([0])
    outbox.announce({"o": 5})
    assert outbox.unannounced() == [("o", 6, 4)]
    outbox.delivered([2])
    assert outbox.unannounced() == [("o", 5, 5)]
    outbox.announce({"o": 10})
    assert (outbox.unannounced(), outbox.delivered_up_to()) == ([], {"o": 10})
    outbox = opened("next")
    outbox.seal([batch(4, 0, 1, "next")], [], Numbering("next", 1, 5))
    outbox.delivered([4])
    outbox.announce({"next": 0})
    assert outbox.delivered_up_to() == {"next": 1}, "of a session that is over and complete nothing is kept"


def test_a_session_that_is_over_is_kept_until_all_of_it_is_told(opened: Opening) -> None:
    outbox = opened()
    outbox.seal([batch(0, 0, 4)], [], Numbering("o", 4, 1))
    outbox.delivered([0])
    outbox = opened("next")
    outbox.announce({"o": 3})
    assert outbox.unannounced() == [("o", 3, 1)]
    outbox.announce({"o": 4})
    assert outbox.delivered_up_to() == {}


def test_identities_of_callers_are_kept_until_they_are_told(opened: Opening) -> None:
    """One after the other they are one row; of a session they need not be kept; a row that has grown is told again."""
    outbox = opened()
    outbox.seal([batch(0, 0, 4)], [], Numbering("o", 4, 1))
    outbox.delivered([0], [("o", 0, 4), ("caller", 10, 5), ("caller", 15, 2), ("caller", 30, 1), ("other", 17, 1)])
    assert outbox.untold() == [(1, 7), (2, 1), (3, 1)]
    told = outbox.untold()
    outbox.delivered([], [("caller", 31, 4)])
    outbox.announce({"o": 4}, told)
    assert (outbox.untold(), outbox.unannounced()) == ([(2, 5)], [("caller", 30, 5)])
    outbox = opened("next")
    assert outbox.unannounced() == [("caller", 30, 5)]
    outbox.announce({}, outbox.untold())
    assert (outbox.untold(), outbox.unannounced()) == ([], [])


def test_batches_come_in_pages_of_about_so_many_bytes(opened: Opening) -> None:
    """A batch counts with its partition key; the page ends with the one that fills it, or has one batch at least."""
    outbox = opened()
    outbox.seal([batch(at, at, size=9) for at in range(5)], [], Numbering("o", 5, 5))
    pages = {most: [one.batch_id for one in outbox.batches(0, most)] for most in (0, 10, 11, 20, 21, 1 << 30)}
    assert pages == {0: [1], 10: [1], 11: [1, 2], 20: [1, 2], 21: [1, 2, 3], 1 << 30: [1, 2, 3, 4]}
    assert outbox.batches(4, 100) == []


def test_a_backlog_hands_out_each_batch_and_again_those_that_came_back(opened: Opening) -> None:
    outbox = opened()
    assert not Backlog(outbox).active
    outbox.seal([batch(0)], [], Numbering("o", 1, 1))
    backlog = Backlog(outbox)
    assert (backlog.active, backlog.resume_ms) == (True, 0)
    outbox.seal([batch(at, at) for at in range(1, 6)], [], Numbering("o", 6, 6))
    assert [[one.batch_id for one in backlog.page(20)] for _ in range(2)] == [[0, 1], [2, 3]]
    backlog.end()
    assert backlog.active, "there are more behind"
    backlog.rewind([batch(3), batch(2)], 700)
    assert (backlog.resume_ms, [one.batch_id for one in backlog.page(1_000)]) == (700, [2, 3, 4, 5])
    backlog.end()
    assert not backlog.active
    backlog.rewind([batch(1)], 800)
    assert backlog.active
    backlog.failed([2, 3])
    backlog.failed([4])
    backlog.rewind([], 900)
    assert [[one.batch_id for one in backlog.page(20)] for _ in range(3)] == [[1], [5], []]
    backlog.rewind([batch(5), batch(4)], 900)
    assert [[one.batch_id for one in backlog.page(1)] for _ in range(2)] == [[5], []]


def test_a_call_that_fails_leaves_the_file_as_it_was_and_says_why(opened: Opening) -> None:
    outbox = opened()
    outbox.add([row(1)])
    outbox.seal([batch(0)], [], Numbering("o", 1, 1))
    with pytest.raises(HeadwaterError, match=r"^outbox .*outbox.db: UNIQUE constraint failed: batches.id$"):
        outbox.seal([batch(1, 1), batch(0, 2)], [1], Numbering("o", 3, 3))
    assert (waiting(outbox), outbox.last_batch(), outbox.left()) == ([(1, [1.0])], 0, 2)
    with pytest.raises(ZeroDivisionError):
        outbox.delivered(1 // 0 for _ in range(1))
    outbox.delivered([0])
    assert (outbox.last_batch(), opened("p").numbering.next_batch) == (-1, 1)
    outbox.close()
    with pytest.raises(HeadwaterError, match=r"^outbox .*outbox.db: Cannot operate on a closed database"):
        outbox.add([row(2)])


def test_a_file_is_of_one_stream_one_contract_and_a_format_that_is_known(opened: Opening, tmp_path: Path) -> None:
    """Whoever was refused has let it go, and changed nothing."""
    opened().add([row(1)])
    with pytest.raises(UsageError, match=r"outbox .*: its stream is s, not t") as first:
        opened("x", stream="t")
    with pytest.raises(UsageError, match=r"outbox .*: its contract is telemetry, not numbered") as second:
        opened("x", contract=OWN)
    assert waiting(opened("p")) == [(1, [1.0])], (first, second)
    opened("q").close()
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as file:
        state = dict(file.execute("select name, value from state"))
        assert state == {"stream": "s", "contract": "telemetry", "format": "2", "next_batch": "0", "sealed_events": "0"}
        file.execute("update state set value = '3' where name = 'format'")
    with pytest.raises(UsageError, match=r"outbox .*: its format is 3, not 2"):
        opened()
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match=r"outbox .*: file is not a database"):
        opened()
    (tmp_path / "outbox.db").unlink()
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(UsageError, match=r"outbox .*: unable to open database file"):
        opened()


def test_a_file_has_one_user_any_thread_of_whom_may_write(opened: Opening, tmp_path: Path) -> None:
    outbox = opened()
    outbox.left()
    with pytest.raises(UsageError, match=r"outbox .*outbox.db: another process has it open"):
        Outbox(tmp_path / "outbox.db", "s", TELEMETRY, "x")
    thread = Thread(target=outbox.add, args=([row(1)],))
    thread.start()
    thread.join()
    assert outbox.left() == 1
    outbox.close()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as file:
        assert file.execute("pragma journal_mode").fetchone() == ("wal",)
        assert file.execute("select count(*) from events").fetchone() == (1,)


@pytest.mark.parametrize(
    ("contract", "sent", "kept"), [(TELEMETRY, 5, [("old", 2, 3)]), (TELEMETRY, 0, []), (OWN, 5, [])]
)
def test_a_file_of_the_first_format_ends_its_session_if_its_numbers_name_events(
    opened: Opening, tmp_path: Path, contract: Any, sent: int, kept: list[object]
) -> None:
    """Not those of a contract with ids of its own."""
    opened(contract=contract).close()
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as file:
        state = {"format": "1", "origin": "old", "next_seq": sent, "announced": min(sent, 2), "next_batch": 3}
        file.executemany("insert or replace into state values (?, ?)", [(name, str(v)) for name, v in state.items()])
        file.execute("delete from state where name = 'sealed_events'")
    for origin in ("new", "newer"):
        outbox = opened(origin, contract=contract)
        assert (outbox.unannounced(), outbox.accepted(), outbox.numbering) == (kept, sent, Numbering(origin, 0, 3))
