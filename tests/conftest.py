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


class _Failures:
    """Says which test failed when it does: a run that is cut short has no list of them at its end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:  # workers have none
            terminal.ensure_newline()
            terminal.write_line(f"FAILED {report.nodeid} ({report.when})\n{report.longreprtext[-_SHOWN:]}")


_SHOWN = 4000  # characters


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Failures(config))
