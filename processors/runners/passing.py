"""Decide which failures pass, and repeat what failed in passing: once for all runners."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from headwater.awscodes import SERVICE_FAILED, THROTTLED
from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable

__all__ = ["PASSING_CODES", "is_passing", "pauses", "repeat"]

log = logging.getLogger("headwater.processor")

PASSING_CODES = THROTTLED | SERVICE_FAILED
"""Error codes of AWS after which the same request may succeed."""
_LONGEST_PAUSE = 10.0

Result = TypeVar("Result")


def is_passing(error: Exception) -> bool:
    """Tell whether the same call may succeed later. Being fenced is final."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in PASSING_CODES
    return isinstance(error, Retryable | BotoCoreError) and not isinstance(error, Fenced)


def pauses(seconds: float, times: int) -> Iterator[float]:
    """Yield pauses that grow by `seconds` each, up to 10 seconds."""
    return (min(_LONGEST_PAUSE, seconds * number) for number in range(1, times + 1))


def repeat(action: Callable[[], Result], waits: Iterable[float], clock: Clock, where: str) -> Result:
    """Return what the action returns, calling it again after each of `waits` while it fails in passing.

    An error that does not pass is raised as it is. When the waits are used up: HeadwaterError, which begins with
    `where` (the stream and shard).
    """
    remaining = iter(waits)
    attempts = 0
    while True:
        try:
            return action()
        except Exception as error:
            if not is_passing(error):
                raise
            attempts += 1
            reason = f"{type(error).__name__}: {error}"
            wait = next(remaining, None)
            if wait is None:
                raise HeadwaterError(f"{where}: given up after {attempts} attempts: {reason}") from error
            log.warning("will try again", extra={"where": where, "reason": reason, "attempt": attempts})
            clock.sleep(wait)
