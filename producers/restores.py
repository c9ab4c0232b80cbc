"""Notice that the process was stopped and taken up again: a snapshot of a machine, container or process was restored.

Two processes may then go on from one memory, with one session's numbers. The machine's clock shows it: it goes on while
the process stands still, and the monotonic clock of the process does not. Sleep of a laptop and a clock set anew look
the same, and cost only a session.
"""

from headwater.clock import Clock

__all__ = ["RestoreWatch"]

_JUMP_MS = 2_000
"""More than a clock is corrected by in normal operation, less than restoring takes."""


class RestoreWatch:
    """Compare the machine's clock with the monotonic one, where the clock has one (`monotonic_ms`)."""

    def __init__(self, clock: Clock) -> None:
        self._now_ms = clock.now_ms
        self._monotonic_ms = getattr(clock, "monotonic_ms", clock.now_ms)
        self._apart = self._now_ms() - self._monotonic_ms()

    def seen(self) -> bool:
        """Tell whether the process was restored since the last look."""
        apart = self._now_ms() - self._monotonic_ms()
        jumped = abs(apart - self._apart) > _JUMP_MS
        self._apart = apart
        return jumped
