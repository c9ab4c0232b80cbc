"""PutRecords as a state machine: whatever fails, each batch arrives, unchanged, and a lane keeps its order."""

from typing import Any

import pytest
from botocore.exceptions import (
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from hypothesis import given
from hypothesis import strategies as st

from headwater.awsfailures import aws_error
from headwater.errors import HeadwaterError, Retryable, Throttled
from headwater.producers.sealing import SealedBatch
from headwater.producers.writer import Writer, WriterSettings
from tests.producer_stream import client_error

OK = {"ShardId": "s", "SequenceNumber": "1"}
SLOW = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}


def batch(number: int, size: int = 10, lane: int | None = None) -> SealedBatch:
    return SealedBatch(number, bytes([number % 256]) * size, "k", str(number), "o", number * 5, 5, lane)


def writer(**settings: Any) -> Writer:
    return Writer(WriterSettings(**settings), lambda: 0.5, "orders")


@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from([None, None, 0, 1])), min_size=1, max_size=40),
    st.data(),
)
def test_every_batch_arrives_unchanged_and_lanes_keep_their_order(
    kinds: list[tuple[int, int | None]], data: st.DataObject
) -> None:
    """Any partial failures, throttling and lost answers; only what failed is sent again."""
    batches = [batch(number, size, lane) for number, (size, lane) in enumerate(kinds)]
    subject = writer(max_records=7, max_request_bytes=200)
    waiting, now, settled = list(batches), 0, set[int]()
    on_stream: list[SealedBatch] = []
    for _ in range(2_000):
        for _ in range(data.draw(st.integers(0, 3)) if waiting else 0):
            if waiting:
                subject.add(waiting.pop(0))
        request = subject.request(now)
        assert len(request) <= 7
        assert sum(one.size for one in request) <= 200
        assert not {one.batch_id for one in request} & settled, "confirmed and sent again"
        if request:
            what = data.draw(st.sampled_from(["answer", "answer", "lost", "throttled"]))
            if what == "answer":
                fails = [data.draw(st.booleans()) for _ in request]
                on_stream += [one for one, fail in zip(request, fails, strict=True) if not fail]
                outcome = subject.answered([SLOW if fail else OK for fail in fails], now)
                assert outcome.retried == sum(fails)
                settled |= {one.batch.batch_id for one in outcome.delivered}
            else:
                on_stream += request if what == "lost" else []
                outcome = subject.failed(Retryable("lost") if what == "lost" else Throttled("slow"), now)
                assert outcome.retried == len(request)
                assert not outcome.failed
        now += 2_500
        if not waiting and not len(subject):
            break
        if now > 20 * 2_500:  # the stream recovers; what is left gets through
            while waiting:
                subject.add(waiting.pop(0))
            now += 10_000
            while request := subject.request(now):
                on_stream += request
                settled |= {one.batch.batch_id for one in subject.answered([OK] * len(request), now).delivered}
    assert settled == {one.batch_id for one in batches}
    assert all(batches[one.batch_id] is one for one in on_stream)
    for lane in (0, 1):
        first: list[int] = []
        for one in on_stream:
            if one.lane == lane and one.batch_id not in first:
                first.append(one.batch_id)
        assert first == sorted(first)


def test_only_failed_entries_are_sent_again_after_a_pause() -> None:
    subject = writer()
    for number in range(3):
        subject.add(batch(number))
    subject.request(0)
    outcome = subject.answered([OK, SLOW, OK], 0)
    assert [one.batch.batch_id for one in outcome.delivered] == [0, 2]
    assert [one.batch_id for one in outcome.refused] == [1]
    assert subject.request(10) == []
    assert subject.due_ms() == 25  # half of the first pause of up to 50 ms
    assert [one.batch_id for one in subject.request(25)] == [1]


def test_the_pause_doubles_and_is_bounded() -> None:
    subject, now, pauses = writer(give_up_ms=10**9), 0, []
    subject.add(batch(0))
    for _ in range(10):
        subject.request(now)
        subject.failed(Retryable("no"), now)
        due = subject.due_ms()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [25, 50, 100, 200, 400, 800, 1600, 2500, 2500, 2500]


def test_a_request_keeps_to_the_limits_of_the_service() -> None:
    subject = writer(max_request_bytes=5 << 20)
    for number in range(600):
        subject.add(batch(number))
    assert len(subject.request(0)) == 500
    subject = writer(max_request_bytes=5 << 20)
    for number in range(6):
        subject.add(batch(number, (1 << 20) - 1))
    assert len(subject.request(0)) == 5


def test_a_batch_is_given_up_after_its_time_with_the_reason() -> None:
    subject = writer(give_up_ms=1_000)
    subject.add(batch(0))
    subject.request(0)
    assert not subject.failed(Retryable("stream orders: unreachable"), 0).failed
    subject.request(2_000)
    (failed,) = subject.failed(Retryable("stream orders: unreachable"), 2_000).failed
    assert str(failed.error) == "stream orders: unreachable (given up after 1 s)"
    assert not len(subject)


def test_what_cannot_pass_fails_at_once_and_lets_the_lane_go_on() -> None:
    subject = writer()
    subject.add(batch(0, lane=3))
    subject.add(batch(1, lane=3))
    assert [one.batch_id for one in subject.request(0)] == [0]
    outcome = subject.failed(aws_error(client_error("ResourceNotFoundException"), "orders"), 0)
    assert [one.batch.batch_id for one in outcome.failed] == [0]
    assert "orders" in str(outcome.failed[0].error)
    assert [one.batch_id for one in subject.request(0)] == [1]


@given(st.integers(1, 12), st.integers(0, 11))
def test_a_record_that_the_stream_refuses_takes_no_other_with_it(count: int, bad: int) -> None:
    """A request is refused as a whole for one record's sake: the others are delivered, that one fails."""
    subject, bad = writer(), bad % count
    for number in range(count):
        subject.add(batch(number, lane=number % 3 or None))
    delivered, failed, now = list[int](), list[int](), 0
    for _ in range(10 * count):
        request = subject.request(now)
        if not request:
            break
        if any(one.batch_id == bad for one in request):
            outcome = subject.failed(aws_error(client_error("ValidationException"), "orders"), now)
        else:
            outcome = subject.answered([OK] * len(request), now)
        delivered += [one.batch.batch_id for one in outcome.delivered]
        failed += [one.batch.batch_id for one in outcome.failed]
        now = max(now, subject.due_ms() or 0)
    assert failed == [bad]
    assert sorted(delivered) == [number for number in range(count) if number != bad]
    for lane in (1, 2):
        mine = [number for number in delivered if number % 3 == lane]
        assert mine == sorted(mine)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("ProvisionedThroughputExceededException"), Throttled),
        (client_error("KMSThrottlingException"), Throttled),
        (client_error("InternalFailure", 500), Retryable),
        (client_error("Unheard", 503), Retryable),
        (ReadTimeoutError(endpoint_url="x"), Retryable),
        (ConnectionResetError("gone"), Retryable),
        (client_error("ResourceNotFoundException"), HeadwaterError),
        (client_error("AccessDeniedException"), HeadwaterError),
        (client_error("ValidationException"), HeadwaterError),
        (client_error("KMSDisabledException"), HeadwaterError),
        (ParamValidationError(report="no such parameter"), HeadwaterError),
        (client_error("ExpiredTokenException"), Retryable),
        (client_error("ExpiredToken"), Retryable),
        (client_error("RequestExpired"), Retryable),
        (client_error("InvalidSignatureException"), Retryable),
        (client_error("UnrecognizedClientException"), Retryable),
        (client_error("NobodyHasHeardOfThis"), Retryable),
        (NoCredentialsError(), Retryable),
        (CredentialRetrievalError(provider="metadata", error_msg="timed out"), Retryable),
        (MetadataRetrievalError(error_msg="unreachable"), Retryable),
    ],
)
def test_errors_say_what_comes_next(error: Exception, kind: type[HeadwaterError]) -> None:
    found = aws_error(error, "orders")
    assert isinstance(found, kind)
    assert isinstance(found, Retryable) == issubclass(kind, Retryable)
    assert "orders" in str(found)
    assert "\n" not in str(found)
