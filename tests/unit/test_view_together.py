"""Many rows of a view with few requests: the same items as row by row, one write for what several threads bring."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from headwater.clock import ManualClock
from headwater.errors import UsageError
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.statements import insertion, replacement
from headwater.sinks.views.store import ViewStore
from headwater.sinks.views.writing import Turns, WriteReport
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.views import VIEW, memory, rows_of, store, upsert

DEVICES = [f"d{number:03d}" for number in range(60)]
SHARDS = [f"s{number}/0" for number in range(4)]
BATCH = "batch_execute_statement"


class Client:
    """Counts requests, and calls `before` and `after` with each one's name."""

    def __init__(self, inner: MemoryDynamoDB) -> None:
        self.inner, self.asked = inner, Counter[str]()
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name == "get_paginator":
            return found

        def call(**request: Any) -> Any:
            self.asked[name] += 1
            self.before(name)
            answer = found(**request)
            self.after(name)
            return answer

        return call


def flush(number: int, shard: str = SHARDS[0]) -> list[Any]:
    return [upsert(device, shard, number) for device in DEVICES]


def counts(dynamodb: MemoryDynamoDB, view: ViewSpec = VIEW) -> set[int]:
    return {int(str(row["n"])) for row in store(dynamodb).every(view)}


def test_sixty_rows_take_three_requests() -> None:
    """And their keys three more, once."""
    client = Client(memory())
    writer = store(client)
    assert writer.write(VIEW, flush(1)).written == 60
    assert client.asked == {BATCH: 3 + 3, "batch_get_item": 1}
    client.asked.clear()
    assert writer.write(VIEW, flush(2)).written == 60
    assert client.asked == {BATCH: 3}
    assert counts(client.inner) == {3}
    assert list(store(client.inner).keys(VIEW)) == DEVICES


@pytest.mark.parametrize("keep_ms", [None, 10**14])
def test_the_items_are_those_of_rows_put_one_by_one(keep_ms: int | None) -> None:
    """Also where an earlier definition had the rows expire."""
    tables = []
    for few in (1, 10**9):
        dynamodb = memory()
        writer = store(dynamodb, few_slots=few)
        writer.write(replace(VIEW, keep_ms=10**13), flush(1))
        writer.write(replace(VIEW, keep_ms=keep_ms), flush(2) + flush(3, SHARDS[1]))
        tables.append(sorted(rows_of(dynamodb), key=lambda item: str(item["pk"]["S"])))
    assert tables[0] == tables[1]
    assert ("expires" in tables[0][0]) == (keep_ms is not None)


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer lost"])
def test_a_request_that_fails_is_made_row_by_row(lost: bool) -> None:
    client = Client(memory())
    faults = [ReadTimeoutError(endpoint_url="lost")] * 2

    def fail(name: str) -> None:
        if name == BATCH and faults:
            raise faults.pop()

    setattr(client, "after" if lost else "before", fail)
    report = store(client).write(VIEW, flush(1))
    assert report.written + report.skipped == 60
    assert counts(client.inner) == {2}
    assert list(store(client.inner).keys(VIEW)) == DEVICES


@pytest.mark.parametrize(("code", "asked"), [("AccessDeniedException", 1), ("ExpiredTokenException", 9)])
def test_a_role_that_may_not_is_asked_once(code: str, asked: int) -> None:
    """Count the requests: credentials that have expired are renewed, and say nothing of the role."""
    client = Client(memory())

    def refuse(name: str) -> None:
        if name == BATCH:
            raise ClientError({"Error": {"Code": code, "Message": "PartiQLInsert"}}, name)

    client.before = refuse
    writer = store(client)
    assert writer.write(VIEW, flush(1)).written == writer.write(VIEW, flush(2)).written == 60
    assert client.asked[BATCH] == asked
    assert counts(client.inner) == {3}


def test_rows_that_another_process_has_changed_are_written_all_the_same() -> None:
    dynamodb = memory()
    one, other = store(dynamodb), store(dynamodb, chance=lambda: 0.25)
    one.write(VIEW, flush(1, SHARDS[0]))
    assert other.write(VIEW, flush(1, SHARDS[1])).conflicts == 60
    assert one.write(VIEW, flush(2, SHARDS[0])).conflicts == 60
    assert counts(dynamodb) == {3 + 2}


def _at_once(client: Client) -> list[Any]:
    """Return what becomes of four shards' flushes, the first of which is held up until all are there."""
    held, go = Event(), Event()

    wrapped = client.before

    def wait(name: str) -> None:
        if name == BATCH and not held.is_set():
            held.set()
            assert go.wait(20)
        wrapped(name)

    client.before = wait
    writer = ViewStore(client, "views", ViewSettings(), clock=ManualClock(), chance=lambda: 0.5)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(writer.write, VIEW, flush(1, SHARDS[0]))
        assert held.wait(20)
        rest = [pool.submit(writer.write, VIEW, flush(1, shard)) for shard in SHARDS[1:]]
        while len(writer._turns._waiting) < 3:
            ManualClock().sleep(0)
        go.set()
        return [one.exception(20) or one.result() for one in (first, *rest)]


def test_what_several_threads_bring_is_written_once() -> None:
    client = Client(memory())
    reports = _at_once(client)
    assert sum(one.written for one in reports) == 60 + 60
    assert sum(one.conflicts for one in reports) == 0
    assert client.asked[BATCH] == 3 + 3 + 3
    assert counts(client.inner) == {4 * 2}


def test_each_thread_hears_of_the_failure() -> None:
    """Tell it, too, of the write that had its rows."""
    client = Client(memory())

    def gone(name: str) -> None:
        raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "-"}}, name)

    client.before = gone
    assert [type(one) for one in _at_once(client)] == [UsageError] * 4


def test_two_owners_of_a_slot_take_turns() -> None:
    """Which of two versions stays is for the store to say, not for whoever brings them together."""
    client = Client(memory())
    older, newer = (
        flush(9, SHARDS[1]),
        [replace(one, version=one.version + "@0000000002") for one in flush(5, SHARDS[1])],
    )
    newer = [replace(one, through=older[0].version) for one in newer]
    writer = store(client)
    first, second = (writer._turns.write for _ in range(2))
    first(VIEW, older)
    second(VIEW, newer)
    assert counts(client.inner) == {5 % 7 + 1}


def test_two_versions_of_a_slot_never_go_together() -> None:
    """However many wait for their turn: others of theirs do."""
    held, go, written = Event(), Event(), list[list[str]]()

    def write(_: object, upserts: Sequence[Upsert]) -> WriteReport:
        written.append(sorted({one.slot for one in upserts}))
        held.set()
        assert go.wait(20)
        return WriteReport(written=len(upserts))

    turns = Turns(write)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(turns.write, VIEW, flush(1, SHARDS[0]))]
        assert held.wait(20)
        found += [
            pool.submit(turns.write, VIEW, flush(at, shard)) for at, shard in enumerate((*SHARDS[1:3], SHARDS[1]))
        ]
        while len(turns._waiting) < 3:
            ManualClock().sleep(0)
        go.set()
        assert all(one.result(20) for one in found)
    assert len(written) == 3
    assert [sum(shard in one for one in written) for shard in SHARDS[:3]] == [1, 2, 1]


def test_an_item_with_an_odd_name_or_too_many_names_has_no_statement() -> None:
    item = {"pk": {"S": "a"}, "sk": {"S": "b"}}
    assert insertion("t", item) is not None
    for name in ('a"b', "it's", "a b", "é", "a.b"):
        assert insertion("t", item | {name: {"N": "1"}}) is None
        assert replacement("t", item | {name: {"N": "1"}}, 1, frozenset()) is None
    assert replacement("t", item | {f"n{number:0100d}": {"N": "1"} for number in range(100)}, 1, frozenset()) is None
