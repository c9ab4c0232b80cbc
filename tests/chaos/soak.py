"""`python -m tests.chaos.soak --seconds 1200`: a steady load, hurt now and then, and what it uses stays flat.

To what `tests.chaos.run` has come a gateway, the query API with its console, the lake's upkeep and a client of them. In
the first quarter all may be killed; from then on only the second producer and the second worker, so that the memory,
descriptors and threads of the others are seen over a long life. Stops, outages and lost answers go on to the end. Exits
0 when nothing grows by the rule of `tests.chaos.flatness` and the end state is exact. build/soak/ has samples and plot.
"""

import argparse
import secrets
import shutil
import socket
import sys
import time
from typing import Any

from headwater.config import Settings
from tests.chaos.processes import Mortal
from tests.chaos.run import MAIN, ROOT, Chaos, Pace, run
from tests.chaos.samples import Samples
from tests.chaos.visitor import Visitor

__all__ = ["Soak"]

SOAK = ROOT / "build" / "soak"
SAMPLES = 240
_MORTAL = ("producer-1", "worker-1")


class Soak(Chaos):
    """One run at a steady load."""

    # a worker leaves a shard to another for three commits: on a machine that has much else to do they take seconds
    settings = Settings(commit_seconds=5.0, view_flush_seconds=2.0, publish_seconds=10.0)
    pace = Pace(kill=(25, 45), stop=(45, 75), outage=(60, 100), kills_a_minute=1, reshards=(0.06, 0.15))

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.gateway_port, self.serve_port = _free_port(), _free_port()
        self.visitor = Visitor(2, self.rate, self.gateway_port, self.serve_port)
        self.samples = Samples(self.folder / "samples.jsonl")
        self._sample_at = 0.0

    def _more_commands(self) -> dict[str, list[str]]:
        # without an outbox a killed gateway's receipts are lost
        gateway = ["HEADWATER_GATEWAY_AUTH=none", f"HEADWATER_GATEWAY_PORT={self.gateway_port}"]
        gateway += [f"HEADWATER_GATEWAY_OUTBOX={self.folder / 'outbox-gateway'}"]
        serve = ["HEADWATER_SERVE_AUTH=none", f"HEADWATER_SERVE_PORT={self.serve_port}"]
        upkeep = ["lake", "maintain", "--every-seconds", "20", "--snapshot-hours", "0"]
        return {
            "gateway": ["env", *gateway, *MAIN, "gateway"],
            "serve": ["env", *serve, *MAIN, "serve"],
            "upkeep": [*MAIN, *upkeep],
        }

    def _hurt(self) -> None:
        self.visitor.start()
        super()._hurt()

    def _turn(self, now: float) -> None:
        if now >= self._sample_at:
            self._sample_at = now + self.seconds / SAMPLES
            self.samples.take(now, self.mortals, self.services, self.folder)

    def _may_die(self, mortal: Mortal) -> bool:
        return mortal.name in _MORTAL or time.monotonic() - self._began < self.seconds / 4

    def _more_totals(self) -> list[int]:
        total = self.visitor.finish(120)
        gateway = next(mortal for mortal in self.mortals if mortal.name == "gateway")
        status = gateway.finish(60)
        self._ended.append(gateway)
        if status != 0:
            raise RuntimeError(f"the gateway ends with {status}: {gateway.log.read_text()[-1000:]}")
        return [total]

    def _finish(self) -> list[str]:
        self.samples.plot(self.folder / "soak.svg")
        return [*super()._finish(), *self._grown()]

    def _grown(self) -> list[str]:
        """Print every verdict; what is not flat, a line each."""
        grown = []
        for measure, whose, found in self.samples.judged():
            said = f"{measure} of {whose}: {found.before:,.1f} after the warm-up, {found.after:,.1f} in the end"
            sys.stdout.write(f"{'flat' if found.flat else 'GROWS':6} {said}\n")
            grown += [] if found.flat else [f"grows: {said}"]
        for what, number in sorted(self.visitor.counts.items()):
            sys.stdout.write(f"{what:44} {number:9,}\n")
        return grown


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--rate", type=float, default=60, help="events a second and producer")
    shutil.rmtree(SOAK, ignore_errors=True)
    chosen = parser.parse_args(namespace=argparse.Namespace(keep=True))
    run(Soak, SOAK, chosen, "exact and flat")
    sys.stdout.write(f"the plot is {(SOAK / str(chosen.seed) / 'soak.svg')}\n")


if __name__ == "__main__":
    main()
