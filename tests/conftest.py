"""Settings of the whole test run."""

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the machines that run this are shared, and a slow example is no failure.
settings.register_profile("headwater", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headwater")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes that are no text by their argument alone.

    What is in them may differ from one collection to the next, as the time in what gzip makes does: then workers would
    have different tests, and none would run.
    """
    del config
    return argname if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()) else None
