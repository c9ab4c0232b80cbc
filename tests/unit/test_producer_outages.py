"""A producer that reaches nothing says so within seconds, and says when it reaches the stream again."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ConnectTimeoutError, NoCredentialsError

from headwater.config import environment
from headwater.errors import HeadwaterError, Retryable
from headwater.producers.outages import OutageLog
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from tests.producer_stream import FakeStream
from tests.producing import TELEMETRY, event

FIRST_PROGRAM = """
from headwater import Producer

with Producer("headwater", "telemetry", outbox="events.db") as producer:
    producer.put({"device": "dev-1", "metric": "battery.voltage", "ts": "2026-03-01T12:00:00Z", "value": 12.6})
"""
NOWHERE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_CONFIG_FILE": "/nowhere",
}
SHUT = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (NOWHERE, ["stream headwater", "https://kinesis.us-east-1", "AWS_ACCESS_KEY_ID", "headwater up"]),
        (SHUT, ["stream headwater", "http://127.0.0.1:1", "AWS_ENDPOINT_URL"]),
    ],
)
def test_the_first_program_says_what_is_missing_within_seconds(
    variables: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    """No logging is set up in it, and nobody waits two minutes to learn that there is no AWS."""
    program = subprocess.Popen(
        [sys.executable, "-c", FIRST_PROGRAM],
        cwd=tmp_path,
        env=environment(variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    too_long = threading.Timer(20.0, program.kill)
    too_long.start()
    try:
        assert program.stderr is not None
        line = program.stderr.readline()
    finally:
        too_long.cancel()
        program.kill()
        program.communicate()
    assert all(word in line for word in words), line
    assert "goes on trying" in line


def failure(cause: Exception) -> HeadwaterError:
    error = Retryable(f"stream s: {cause}")
    error.__cause__ = cause
    return error


def test_an_outage_is_said_once_in_half_a_minute_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of a blip nothing is said at all."""
    outages = OutageLog("s", "https://there")
    broken = failure(ConnectTimeoutError(endpoint_url="https://there"))
    outages.failed(broken, 0, 1_500)
    outages.delivered(1_600)
    assert not caplog.records
    for second in range(10, 100):
        outages.failed(broken, second * 1_000, second * 1_000 + 500)
    outages.delivered(100_000)
    outages.delivered(100_001)
    lines = [record.getMessage() for record in caplog.records]
    assert [line[:43] for line in lines[:-1]] == ["stream s at https://there has taken nothing"] * 3
    assert lines[-1] == "stream s takes events again, after 90 s"


def test_no_login_is_said_with_the_first_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was sent, so it is not a blip."""
    OutageLog("s", "").failed(failure(NoCredentialsError()), 0, 1)
    assert "AWS_PROFILE" in caplog.text


def test_a_producer_that_gets_its_login_later_delivers_all(caplog: pytest.LogCaptureFixture) -> None:
    """The line says that it goes on trying, and it does."""
    caplog.set_level(logging.INFO)
    stream = FakeStream([NoCredentialsError()] * 3)
    with Producer("s", TELEMETRY, client=stream, settings=ProducerSettings(linger_ms=0)) as producer:
        receipt = producer.put(event()).result(20)
    assert receipt.count == 1
    assert [record.getMessage()[:20] for record in caplog.records if "stream s" in record.getMessage()] == [
        "stream s has taken n",
        "stream s takes event",
    ]
