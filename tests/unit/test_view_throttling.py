"""Views through boto3 while DynamoDB refuses, conflicts, fails and loses answers: every row is what its events say."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.aggregates.merging import merge, values
from headwater.aws import client
from headwater.clock import ManualClock
from headwater.config import Settings
from headwater.errors import Retryable, Throttled
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from tests.dynamodb_server import LOST, DynamoServer, dynamodb_server
from tests.views import AGGREGATES, VIEW, memory, store, upsert

THROTTLES = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TransactionConflictException",
    "InternalServerError",
]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[DynamoServer, Any]]:
    """A table over HTTP and boto3's client of it, which itself tries nothing again: that costs real seconds."""
    with dynamodb_server(memory()) as (found, url), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield found, client("dynamodb", Settings(), retries={"total_max_attempts": 1})


upserts = st.builds(upsert, st.sampled_from("ab"), st.sampled_from(["s1/0", "s1/9", "s2/0"]), st.integers(1, 20))
faults = st.sampled_from(["", "", *THROTTLES, LOST])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flushes=st.lists(st.tuples(st.integers(0, 1), st.lists(upserts, min_size=1, max_size=5)), min_size=1, max_size=8),
    script=st.lists(faults, max_size=40),
    bound=st.sampled_from([350_000, 10]),
    few=st.sampled_from([1, 16]),
)
def test_every_row_is_the_recomputation(
    server: tuple[DynamoServer, Any], flushes: list[tuple[int, list[Upsert]]], script: list[str], bound: int, few: int
) -> None:
    """Two processes flush; what fails is flushed again, as the workers do; then both read alike."""
    found, boto = server
    found.dynamodb = memory()
    found.script(script)
    settings_ = ViewSettings(max_item_bytes=bound, attempts=3, few_slots=few)
    writers = [ViewStore(boto, "views", settings_, clock=ManualClock(), chance=lambda: 0.5) for _ in range(2)]
    newest: dict[tuple[object, str], Upsert] = {}
    for writer, batch in flushes:
        for _ in range(len(script) + 1):
            try:
                writers[writer].write(VIEW, batch)
                break
            except Retryable:
                continue
        for one in batch:
            place = (one.key, one.slot)
            if place not in newest or newest[place].version < one.version:
                newest[place] = one
    found.script([])
    rows = {row["device"]: (row["n"], row["total"]) for row in store(boto).rows(VIEW)}
    expected = {}
    for device in {str(key[0]) for key, _ in newest}:  # type: ignore[index]  # a key has columns
        merged = merge(AGGREGATES, [one.partial for (key, _), one in newest.items() if key == (device,)])
        expected[device] = tuple(values(AGGREGATES, merged).values())
    assert rows == expected


@pytest.mark.parametrize("code", THROTTLES)
def test_a_refused_put_is_put_again_and_counted(server: tuple[DynamoServer, Any], code: str) -> None:
    found, boto = server
    found.dynamodb, clock = memory(), ManualClock(0)
    found.script([code, code])
    report = store(boto, clock).write(VIEW, [upsert("a", "s1/0", 2)])
    assert (report.written, report.throttled) == (1, 2)
    assert clock.now_ms() > 0, "it waits before it asks again"
    assert [row["n"] for row in store(found.dynamodb).windows(VIEW, ("a",))] == [3]


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", LOST])
def test_a_read_that_is_refused_says_so(server: tuple[DynamoServer, Any], code: str) -> None:
    """As something that passes: the query API answers 503, a worker flushes again."""
    found, boto = server
    for call in (
        lambda: store(boto).windows(VIEW, ("a",)),
        lambda: store(boto).page(VIEW, "", 10),
        lambda: list(store(boto).rows(VIEW)),
    ):
        found.script([code])
        with pytest.raises(Retryable):
            call()


def test_of_a_flush_that_fails_in_the_middle_nothing_is_lost(server: tuple[DynamoServer, Any]) -> None:
    """Rows of one flush are written side by side; when some are refused for good, the same flush again writes those."""
    found, boto = server
    found.dynamodb = memory()
    batch = [upsert(f"d{number}", "s1/0", number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        writer = ViewStore(boto, "views", ViewSettings(attempts=1), pool=pool, clock=ManualClock())
        found.script(["", *["ThrottlingException"] * 8])
        with pytest.raises(Throttled):
            writer.write(VIEW, batch)
    found.script([])
    report = store(boto).write(VIEW, batch)
    assert report.written + report.skipped == 40
    assert report.written > 0
    rows = {row["device"]: row["n"] for row in store(found.dynamodb).rows(VIEW)}
    assert rows == {f"d{number}": number % 7 + 1 for number in range(40)}


def test_a_flush_writes_each_row_once(server: tuple[DynamoServer, Any]) -> None:
    """However many slots and versions it has; without batches: those know no conditions and leave items over. And its
    key once, which later flushes do not ask for."""
    found, boto = server
    found.dynamodb = memory()
    found.puts.clear()
    found.asked.clear()
    batch = [upsert(device, f"s1/{late}", number) for device in "ab" for late in range(3) for number in range(1, 6)]
    writer = store(boto)
    assert writer.write(VIEW, batch).written == 2
    assert sorted(found.puts) == [
        (pk, sk) for pk, sk in sorted(found.puts) if pk in ("v#a", "v#b") or sk in ("=a", "=b")
    ]
    assert set(found.puts.values()) == {1}
    assert found.asked == {"PutItem": 2 + 2, "BatchGetItem": 1}
    found.asked.clear()
    assert writer.write(VIEW, [upsert(device, "s1/0", 9) for device in "ab"]).written == 2
    assert found.asked == {"PutItem": 2}
