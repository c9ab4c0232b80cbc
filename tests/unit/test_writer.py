"""PutRecords as a state machine: whatever fails, each batch arrives, unchanged, and a lane keeps its order."""

from collections.abc import Iterable
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
from headwater.producers.settings import ProducerSettings
from headwater.producers.writer import Writer, WriterSettings
from tests.producer_stream import client_error

OK = {"ShardId": "s", "SequenceNumber": "1"}
SLOW = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}


def batch(number: int, size: int = 10, lane: int | None = None) -> SealedBatch:
    return SealedBatch(number, bytes([number % 256]) * size, "k", str(number), "o", number * 5, 5, lane)


def writer(random: float = 0.5, **settings: Any) -> Writer:
    return Writer(WriterSettings(**settings), lambda: random, "orders")


def ids(batches: Iterable[SealedBatch]) -> list[int]:
    return [one.batch_id for one in batches]


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


@pytest.mark.parametrize(
    ("settings", "pauses"),
    [
        ({}, [49, 99, 199, 399, 799, 1_599, 3_199, 4_999, 4_999, 4_999]),
        ({"base_ms": 1, "cap_ms": 10**9}, [0, 1, *((1 << at) - 1 for at in range(2, 20)), *[1_048_575] * 5]),
    ],
)
def test_the_pause_doubles_and_is_bounded(settings: dict[str, int], pauses: list[int]) -> None:
    """By the time that is set, and by twenty doublings."""
    subject, now, found = writer(1 - 1e-9, give_up_ms=10**12, **settings), 0, []
    subject.add(batch(0))
    for _ in pauses:
        subject.request(now)
        outcome = subject.failed(Retryable("no"), now)
        assert (outcome.retried, outcome.refused, outcome.failed, outcome.overdue) == (1, (), (), None)
        due = subject.due_ms()
        assert due is not None
        found.append(due - now)
        now = due
    assert found == pauses


def test_a_producers_settings_are_the_writers() -> None:
    assert WriterSettings.of(ProducerSettings(), keeps_trying=False) == WriterSettings()
    settings = ProducerSettings(max_request_bytes=2 << 20, delivery_seconds=0.25)
    wanted = WriterSettings(max_request_bytes=2 << 20, give_up_ms=250, keeps_trying=True)
    assert WriterSettings.of(settings, keeps_trying=True) == wanted


def test_what_waits_is_counted_wherever_it_is() -> None:
    """On its way, to be sent again, not sent yet, and behind another of its lane."""
    subject = writer(max_records=3)
    assert (len(subject), subject.due_ms(), subject.request(0)) == (0, None, [])
    for number in range(4):
        subject.add(batch(number))
    assert (len(subject), subject.due_ms()) == (4, 0)
    subject.request(0)
    with pytest.raises(RuntimeError, match="has not been answered"):
        subject.request(0)
    with pytest.raises(RuntimeError, match="2 entries answer 3 records"):
        subject.answered([OK, OK], 0)
    subject.answered([SLOW, SLOW, OK], 0)
    assert len(subject) == 3
    assert ids(subject.request(24)) == [3], "the others' pause is half of 50 ms"
    for number in range(4, 9):
        subject.add(batch(number, lane=7))
    assert len(subject) == 8  # two again, one out, one first of its lane and four behind it
    subject.answered([OK], 24)
    assert len(subject) == 7
    assert subject.due_ms() == 0
    assert ids(subject.request(25)) == [0, 1, 4]
    subject.answered([SLOW, OK, OK], 25)
    assert ids(subject.clear()) == [0, 5, 6, 7, 8]
    assert (len(subject), subject.due_ms(), subject.clear()) == (0, None, [])
    subject.add(batch(9, lane=7))
    assert ids(subject.request(25)) == [9]


def test_a_shard_that_asks_for_less_is_named_and_a_lost_answer_names_none() -> None:
    for error, refused in ((Throttled("slow"), [0, 1]), (Retryable("lost"), [])):
        subject = writer()
        subject.add(batch(0))
        subject.add(batch(1))
        subject.request(0)
        assert ids(subject.failed(error, 0).refused) == refused
    failing = {"ErrorCode": "InternalFailure", "ErrorMessage": "broken"}
    subject.request(1_000)
    assert ids(subject.answered([failing, SLOW], 1_000).refused) == [1]


def test_an_answer_that_refuses_one_for_good_says_so_of_that_one() -> None:
    subject = writer()
    for number in range(3):
        subject.add(batch(number, lane=number))
    subject.add(batch(3, lane=1))
    subject.request(0)
    outcome = subject.answered([OK, {"ErrorCode": "AccessDeniedException", "ErrorMessage": "no"}, SLOW], 0)
    assert ids(one.batch for one in outcome.delivered) == [0]
    assert ids(one.batch for one in outcome.failed) == [1]
    assert outcome.retried == 1
    assert ids(subject.request(0)) == [3]


def test_a_request_of_one_that_is_refused_fails_it() -> None:
    """There is nobody else to blame; of two, each is tried alone at once, the older first."""
    refusal = aws_error(client_error("ValidationException"), "orders")
    subject = writer()
    subject.add(batch(0))
    subject.request(0)
    assert ids(one.batch for one in subject.failed(refusal, 0).failed) == [0]
    for number in (1, 2):
        subject.add(batch(number))
    subject.request(5)
    outcome = subject.failed(refusal, 5)
    assert (outcome.delivered, outcome.failed, outcome.retried) == ((), (), 2)
    assert subject.due_ms() == 5
    subject.add(batch(3))
    assert ids(subject.request(5)) == [1]
    assert ids(one.batch for one in subject.answered([OK], 5).delivered) == [1]
    assert ids(subject.request(5)) == [2]
    assert ids(one.batch for one in subject.failed(refusal, 5).failed) == [2]
    assert ids(subject.request(5)) == [3]


def test_one_that_is_to_go_alone_waits_until_those_before_it_are_out() -> None:
    subject = writer()
    subject.add(batch(0))
    subject.request(0)
    subject.answered([SLOW], 0)
    for number in (1, 2):
        subject.add(batch(number))
    assert ids(subject.request(20)) == [1, 2]
    subject.failed(aws_error(client_error("ValidationException"), "orders"), 26)
    for wanted in (0, 1, 2):
        assert ids(subject.request(26)) == [wanted]
        subject.answered([OK], 26)


@pytest.mark.parametrize("keeps_trying", [False, True])
def test_a_batchs_time_is_from_its_first_attempt_to_the_millisecond(keeps_trying: bool) -> None:
    """Then it is given up, and its lane goes on; or it is told of, once for each request, and tried on."""
    subject = writer(give_up_ms=1_000, keeps_trying=keeps_trying)
    subject.add(batch(0, lane=4))
    subject.add(batch(1, lane=4))
    now = 70_000
    for passed in (0, 500, 999):
        assert ids(subject.request(now + passed)) == [0]
        outcome = subject.failed(Retryable("lost"), now + passed)
        assert (outcome.retried, outcome.failed, outcome.overdue) == (1, (), None)
    subject.request(now + 1_000 + 200)
    subject.failed(Retryable("lost"), now + 1_000)
    if keeps_trying:
        error = Retryable("unreachable")
        subject.request(now + 9_000)
        outcome = subject.failed(error, now + 9_000)
        assert (outcome.retried, outcome.failed, outcome.overdue) == (1, (), error)
        subject.request(now + 19_000)
        assert subject.answered([OK], now + 19_000).overdue is None
    assert ids(subject.request(now + 19_000)) == [1]
    assert subject.failed(Retryable("lost"), now + 19_999).retried == 1, "its own time has begun with its request"


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
    outcome = subject.failed(Retryable("stream orders: unreachable"), 2_000)
    (failed,) = outcome.failed
    assert outcome.retried == 0
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
