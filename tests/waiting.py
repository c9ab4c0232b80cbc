"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable
from typing import Any

__all__ = ["until"]


def until(found: Callable[[], Any], seconds: float = 180.0, what: str | Callable[[], object] = "") -> Any:
    """Wait for it; what it found. AssertionError with `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what() if callable(what) else what or found}")
