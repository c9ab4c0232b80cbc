"""Processes that are meant to die: started, killed, stopped, continued and started again, each with a log."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Mortal"]


class Mortal:
    """One process by name; `look_after` starts it again `pause` seconds after it has died, for whatever reason."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self.counts: Counter[str] = Counter()
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._log_bytes = 0
        self._continue_at: float | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def at_work(self) -> bool:
        """It has said something since it was started."""
        return self.alive and self.log.stat().st_size > self._log_bytes

    @property
    def stopped(self) -> bool:
        return self._continue_at is not None

    def look_after(self, pause: float) -> None:
        now = time.monotonic()
        if self._continue_at is not None and now >= self._continue_at:
            self.wake()
        if self.alive:
            return
        if self._process is not None:
            self._process = None
            self._start_at = now + pause
            self.counts["ended by itself"] += 1
        if now >= self._start_at:
            self.start()

    def start(self) -> None:
        with self.log.open("ab") as log, self.out.open("wb") as out:
            # a log of JSON lines on stdout for the services, the total on stdout for a producer
            own = out if "producer" in self.name else log
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=own, stderr=log
            )
        self._log_bytes = self.log.stat().st_size
        self.counts["started"] += 1

    def kill(self, pause: float) -> None:
        """kill -9, whether it runs or stands still."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process, self._continue_at = None, None
        self._start_at = time.monotonic() + pause
        self.counts["killed"] += 1

    def suspend(self, seconds: float) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._continue_at = time.monotonic() + seconds
        self.counts["stopped"] += 1

    def wake(self) -> None:
        if self._process is not None and self._continue_at is not None:
            self._process.send_signal(signal.SIGCONT)
        self._continue_at = None

    def finish(self, seconds: float) -> int | None:
        """SIGTERM; the exit status, None when it does not end in time. Started anew first where it is down."""
        self.wake()
        status: int | None = None
        for _ in range(3):
            if not self.alive:
                self.start()
            assert self._process is not None
            deadline = time.monotonic() + seconds
            while not self.at_work and self.alive and time.monotonic() < deadline:
                time.sleep(0.1)
            self._process.send_signal(signal.SIGTERM)
            try:
                status = self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            if status == 0:
                break
        return status

    def end(self) -> None:
        """Whatever it does, it is gone afterwards."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
