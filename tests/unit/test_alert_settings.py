"""Settings of alerts that cannot be: one clear line."""

from typing import Any

import pytest
from pydantic import ValidationError

from headwater.commands.failures import explain
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.processors.alerts.publishers import publish_to


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALERTS_SECONDS", "0"),
        ("ALERTS_SECONDS", "-1"),
        ("ALERTS_SECONDS", "nan"),
        ("ALERTS_SECONDS", "inf"),
        ("IDLE_SECONDS", "-1"),
        ("IDLE_SECONDS", "nan"),
        ("IDLE_SECONDS", "inf"),
        ("IDLE_SECONDS", "9"),
    ],
)
def test_numbers(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"HEADWATER_{name}", value)
    with pytest.raises(ValidationError) as found:
        Settings()
    text, status = explain(found.value)
    assert status == 2
    assert text.startswith(f"HEADWATER_{name}=")
    assert "\n" not in text
    assert len(text) < 150


def test_an_idle_shard_outlasts_two_commits() -> None:
    assert Settings(commit_seconds=1, idle_seconds=2).idle_seconds == 2
    assert Settings(idle_seconds=0).idle_seconds == 0
    assert Settings(idle_seconds=120).idle_seconds == 120


@pytest.mark.parametrize(
    "target",
    [
        "arn:aws:sqs:us-east-1",
        "arn:aws:sns:us-east-1",
        "arn:aws:events:us-east-1:123456789012:rule/tickets",
        "arn:aws:events:us-east-1:123456789012:event-bus/",
        "arn:aws:sns:us-east-1:123456789012:topic:subscription",
        "arn:aws:sqs:us-east-1:account:q",
        "https://",
        "https://sqs.us-east-1.amazonaws.com",
        "alerts",
    ],
)
def test_targets(target: str) -> None:
    def client(_: str) -> Any:
        raise AssertionError("opened")

    with pytest.raises(UsageError, match="HEADWATER_ALERTS_TO: ") as found:
        publish_to(f"{target}", client)
    assert target in str(found.value)


def test_targets_that_there_are() -> None:
    arns = [
        "arn:aws:events:us-east-1:123456789012:event-bus/default",
        "arn:aws-cn:sns:cn-north-1:123456789012:pager.fifo",
        "arn:aws:sqs:us-east-1:123456789012:queue_1",
        "https://sqs.us-east-1.amazonaws.com/123456789012/queue.fifo",
        "http://localhost:4566/000000000000/queue",
    ]
    assert list(publish_to(", ".join([*arns, arns[0]]), lambda _: None)) == arns
    assert publish_to(" , ", lambda _: None) == {}
