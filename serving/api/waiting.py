"""Bound how long a request waits for what AWS is asked."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from headwater.web.problems import Problem

__all__ = ["in_time"]

T = TypeVar("T")
ANSWER_SECONDS = 8.0
_AGAIN_SECONDS = 5


async def in_time(answer: Awaitable[T]) -> T:
    """Return what is awaited; Problem 503 after ANSWER_SECONDS.

    What was asked goes on in its thread, until its client gives up: who asks again soon may have what it finds.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await answer
    except TimeoutError:
        raise Problem.retryable(503, "not-ready", "AWS does not answer in time", _AGAIN_SECONDS) from None
