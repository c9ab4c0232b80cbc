"""What the commands for people share: the services that the settings name, after a look whether they are there."""

import signal
import socket
import sys
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from processors.services import Services

__all__ = ["check_endpoint", "open_services", "publishing", "stop_on_signals"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def open_services() -> "Services":
    """The services of the pipeline in the settings; HeadwaterError where an endpoint on this machine is shut."""
    from headwater.config import Settings
    from processors.pipeline import load
    from processors.services import Services

    settings = Settings()
    services = Services(settings, load(settings.pipeline))
    check_endpoint(services.kinesis.meta.endpoint_url)
    return services


def check_endpoint(url: str) -> None:
    """Ask an endpoint on this machine once, instead of through botocore's many tries; others are left to those."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 3).close()
    except OSError as error:
        raise HeadwaterError(
            f"nothing answers at {url} (AWS_ENDPOINT_URL): {error.strerror or error}; is `headwater up` running?"
        ) from None


def stop_on_signals() -> Event:
    """Set by SIGTERM and SIGINT from now on."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def publishing(services: "Services") -> "Iterator[Callable[[], None]]":
    """A publisher's step and a pause, for while files wait for one; the lake's table follows the contract by it."""
    from headwater.errors import Retryable
    from processors.services import new_owner

    publisher = services.publisher(new_owner())

    def settle() -> None:
        try:
            publisher.step()
        except Retryable as error:
            sys.stderr.write(f"{error}\n")
        services.clock.sleep(0.5)

    yield settle
    publisher.release()
