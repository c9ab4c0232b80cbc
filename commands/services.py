"""Open the services that the settings name, the one way for all commands, and stop them on signals."""

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

    from headwater.processors.services import Services

__all__ = ["check_credentials", "check_endpoint", "open_services", "publishing", "stop_on_signals"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def open_services() -> "Services":
    """Open the services of the pipeline in the settings.

    Raises HeadwaterError where nothing answers at an endpoint on this machine.
    """
    from headwater.config import read_settings

    settings = read_settings()  # before what takes a second to import
    from headwater.processors.definition.loading import load
    from headwater.processors.services import Services

    services = Services(settings, load(settings.pipeline))
    check_endpoint(services.kinesis.meta.endpoint_url)
    return services


def check_endpoint(url: str) -> None:
    """Raise HeadwaterError when nothing answers at an endpoint on this machine; others are left to botocore's tries."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), 3).close()
    except OSError as error:
        raise HeadwaterError(
            f"nothing answers at {url} (AWS_ENDPOINT_URL): {error.strerror or error}; is `headwater up` running?"
        ) from None


def check_credentials() -> None:
    """Raise botocore's NoCredentialsError when there are none: a person waits, and the producer would go on trying."""
    import botocore.session
    from botocore.exceptions import NoCredentialsError

    if botocore.session.Session().get_credentials() is None:
        raise NoCredentialsError


def stop_on_signals() -> Event:
    """Return an event that SIGTERM and SIGINT set from now on."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def publishing(services: "Services") -> "Iterator[Callable[[], None]]":
    """Yield a publisher's step with a pause, to call while files wait for a publisher.

    Opening it makes the lake's table follow the contract.
    """
    from headwater.errors import Retryable
    from headwater.processors.services import new_owner

    publisher = services.publisher(new_owner())

    def step() -> None:
        try:
            publisher.step()
        except Retryable as error:
            sys.stderr.write(f"{error}\n")
        services.clock.sleep(0.5)

    try:
        yield step
    finally:
        # else nobody leads until the lease runs out, after an error or Ctrl-C
        publisher.release()
