"""What `headwater up` says of a service that has ended."""

from threading import Event
from typing import Any

import pytest

from headwater.clock import SystemClock
from headwater.commands.local.up import Up
from headwater.config import Settings
from headwater.errors import HeadwaterError
from headwater.processors.definition.loading import load


def made() -> Up:
    settings = Settings()
    return Up(load(settings.pipeline), settings, SystemClock(), 1)


def test_nothing_is_said_while_all_runs() -> None:
    up = made()
    up._servers["gateway"] = lambda: True
    up.check()


def test_a_server_that_has_ended_is_named() -> None:
    up = made()
    up._servers |= {"API and console": lambda: True, "gateway": lambda: False}
    with pytest.raises(HeadwaterError, match="gateway: the server has ended"):
        up.check()


@pytest.mark.parametrize(
    ("job", "stopped", "said"),
    [
        (lambda: None, False, "publish: has ended by itself"),
        (lambda: None, True, ""),
        (lambda: 1 / 0, False, "publish: ZeroDivisionError"),
    ],
)
def test_a_service_that_ends_before_it_is_told_to_is_named(job: Any, stopped: bool, said: str) -> None:
    up, stop = made(), Event()
    if stopped:
        stop.set()
    up._guarded("publish", job, stop)
    if not said:
        up.check()
        return
    with pytest.raises(HeadwaterError, match=said):
        up.check()
