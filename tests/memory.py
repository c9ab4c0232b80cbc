"""How much memory a piece of work takes at its peak, each piece in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

__all__ = ["MIB", "apart", "measured", "resident", "tell"]

MIB = 1 << 20


def resident(what: str, process: object = "self") -> int:
    """A process's memory now (VmRSS), or the most so far (VmHWM), in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(what))


def apart(work: Callable[[], object]) -> None:
    """Do it in a process of its own, which leaves no memory here."""
    if os.fork() == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.wait()


def tell(pieces: Mapping[str, Callable[[], Callable[[], object]]]) -> None:
    """Print what each takes beyond what was there, and its seconds of CPU; what prepares it is called before."""
    for name, prepare in pieces.items():
        apart(partial(_say, name, prepare))


def _say(name: str, prepare: Callable[[], Callable[[], object]]) -> None:
    work = prepare()
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.process_time()
    said = work()
    mib, seconds = (resident("VmHWM") - before) // MIB, time.process_time() - began
    print(name, mib, f"{seconds:.1f} s", said, sep="|", flush=True)


def measured(module: str) -> dict[str, tuple[int, str]]:
    """MiB of each piece that a module tells of when it is run, and what else it says."""
    command, root = [sys.executable, "-m", module], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=500)
    lines = (line.split("|", 2) for line in done.stdout.splitlines())
    return {name: (int(mib), said) for name, mib, said in lines}
