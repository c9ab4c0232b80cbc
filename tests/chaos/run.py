"""`python -m tests.chaos.run --seconds 120`: the whole pipeline as processes, hurt for so long, then audited.

Two producers with outboxes, two workers that contend for the same shards, and a publisher, over kinesis-local,
DynamoDB Local and moto behind proxies that lose and delay answers. Exits 0 when the end state is exact, else 1, and
then leaves seed and logs in build/chaos/.
"""

import argparse
import json
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from headwater.commands.local.provision import provision
from headwater.config import Settings, use_environment
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from tests.chaos.processes import Mortal
from tests.chaos.proxy import Faults, Proxy
from tests.chaos.verdict import processed, verdict, waiting
from tests.kcl_servers import KclServers, servers

__all__ = ["MAIN", "ROOT", "Chaos", "Pace", "run"]

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(commit_seconds=1.0, view_flush_seconds=0.5, publish_seconds=2.0)
LEASE_SECONDS = 4.0
"""Of the publisher; a worker leaves a shard to another for three commits."""
MAIN = [sys.executable, "-c", "from headwater.commands import main; main()"]
BEGIN_SECONDS, FINISH_SECONDS = 300, 180
KILLS_A_MINUTE = 15
"""At least; on a slow machine the run goes on until there are so many, for at most twice its time."""


@dataclass(frozen=True)
class Pace:
    """Seconds between two of a kind, the least and the most; and how many kills a minute there are at least."""

    kill: tuple[float, float] = (1.5, 3.5)
    stop: tuple[float, float] = (8, 14)
    outage: tuple[float, float] = (12, 20)
    kills_a_minute: float = KILLS_A_MINUTE
    reshards: tuple[float, float] = (0.35, 0.65)
    """When all shards are split, and two are merged: shares of the whole time."""


class Chaos:
    """One run over servers that are there."""

    pace = Pace()
    settings = SETTINGS

    def __init__(self, found: KclServers, seed: int, seconds: float, rate: float, folder: Path) -> None:
        self.random, self.seconds, self.folder = Random(seed), seconds, folder
        self.faults = Faults(seed)
        services = {"kinesis": found.kinesis, "dynamodb": found.dynamodb, "s3 and glue": found.aws}
        self.proxies = [Proxy(name, url, self.faults) for name, url in services.items()]
        self.services = Services(self.settings, load(self.settings.pipeline))
        self.mortals: list[Mortal] = []
        self._ended: list[Mortal] = []
        self.rate = rate
        self.did: Counter[str] = Counter()
        self._began = time.monotonic()
        self._done, self._early = 0, False

    def run(self) -> list[str]:
        """What is wrong in the end."""
        provision(self.settings, shards=2)
        with ExitStack() as stack:
            for proxy in self.proxies:
                stack.enter_context(proxy)
            stack.callback(self._end)
            self._start()
            # first whole, then hurt
            if not self._until(lambda: processed(self.services) > 0, BEGIN_SECONDS):
                return [f"nothing was processed in {BEGIN_SECONDS} s"]
            self._hurt()
            return self._finish()

    def _start(self) -> None:
        kinesis, dynamodb, aws = (proxy.url for proxy in self.proxies)
        environment = os.environ | {
            "AWS_ENDPOINT_URL": aws,
            "AWS_ENDPOINT_URL_KINESIS": kinesis,
            "AWS_ENDPOINT_URL_DYNAMODB": dynamodb,
        }
        for name in ("commit_seconds", "view_flush_seconds", "publish_seconds"):
            environment[f"HEADWATER_{name.upper()}"] = str(getattr(self.settings, name))
        producer = [sys.executable, "-m", "tests.chaos.producer"]
        commands = {
            f"producer-{number}": [
                *producer,
                str(number),
                str(self.folder / f"outbox-{number}.db"),
                str(self.folder / f"confirmed-{number}"),
                str(self.rate),
            ]
            for number in range(2)
        }
        commands |= {f"worker-{number}": [*MAIN, "process"] for number in range(2)}
        commands |= {"publisher": [*MAIN, "publish"]}
        commands |= self._more_commands()
        self.mortals = [Mortal(name, command, environment, self.folder) for name, command in commands.items()]

    def _more_commands(self) -> dict[str, list[str]]:
        """Further processes by name."""
        return {}

    def _end(self) -> None:
        for mortal in self.mortals:
            mortal.end()

    def _hurt(self) -> None:
        began = self._began = time.monotonic()
        due = {"kill": 1.0, "stop": 5.0, "outage": 8.0, "mended": self.seconds, "say": 0.0}
        reshards = [(what, self.seconds * at) for what, at in zip(("split", "merge"), self.pace.reshards, strict=True)]
        wanted = round(self.pace.kills_a_minute * self.seconds / 60)
        while (now := time.monotonic() - began) < self.seconds or (
            (self.did["kill -9"] < wanted or reshards) and now < 2 * self.seconds
        ):
            for mortal in self.mortals:
                mortal.look_after(0.3)
            self._turn(now)
            if now >= due["kill"] and self._kill():
                due["kill"] = now + self.random.uniform(*self.pace.kill)
            if now >= due["stop"] and self._stop():
                due["stop"] = now + self.random.uniform(*self.pace.stop)
            if now >= due["outage"]:
                due["mended"], due["outage"] = now + self._outage(), now + self.random.uniform(*self.pace.outage)
            if now >= due["mended"]:
                self.faults.down.clear()
            if reshards and now >= reshards[0][1]:
                self._reshard(reshards.pop(0)[0])
            if now >= due["say"]:
                due["say"] = now + 10
                self._say("hurting")
            time.sleep(0.05)

    def _turn(self, now: float) -> None:
        """What else is to be done while it is hurt; `now` in seconds since that began."""

    def _may_die(self, _: Mortal) -> bool:
        return True

    def _kill(self) -> bool:
        """Most often one that is at work (which may stand still at the moment), sometimes one that is just starting.

        A worker is left alone until something was committed since the last death of one: nothing is learned from
        workers that never get anywhere.
        """
        early = self._early
        candidates = [mortal for mortal in self.mortals if mortal.at_work or (early and mortal.alive)]
        candidates = [mortal for mortal in candidates if self._may_die(mortal)]
        if not candidates:
            return False
        chosen = self.random.choice(candidates)
        if chosen.name.startswith("worker"):
            done = processed(self.services)
            if done <= self._done and not early:
                return False
            self._done = done
        self._early = self.random.random() < 0.05
        chosen.kill(pause=self.random.uniform(0.1, 1.5))
        self.did["kill -9"] += 1
        return True

    def _stop(self) -> bool:
        """Past every lease: whoever wakes up has been replaced."""
        candidates = [mortal for mortal in self.mortals if mortal.at_work and not mortal.stopped]
        if not candidates:
            return False
        lease = max(LEASE_SECONDS, 3 * self.settings.commit_seconds)
        self.random.choice(candidates).suspend(lease + self.random.uniform(1, 4))
        self.did["SIGSTOP past the lease"] += 1
        return True

    def _outage(self) -> float:
        proxy = self.random.choice(self.proxies)
        self.faults.down.add(proxy.service)
        proxy.cut()
        self.did["outages of a service"] += 1
        return self.random.uniform(1, 3)

    def _reshard(self, what: str) -> None:
        kinesis, stream = self.services.kinesis, self.settings.stream
        still = self._open_shards()
        if what == "merge":
            left, right = still[1]["ShardId"], still[2]["ShardId"]
            kinesis.merge_shards(StreamName=stream, ShardToMerge=left, AdjacentShardToMerge=right)
            self._active()
            self.did["merges"] += 1
            return
        for shard in still:
            low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
            middle = str((low + high + 1) // 2)
            kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
            self._active()
            self.did["splits"] += 1

    def _open_shards(self) -> list[dict[str, Any]]:
        found = self.services.kinesis.list_shards(StreamName=self.settings.stream)["Shards"]
        still = [one for one in found if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
        return sorted(still, key=lambda one: int(one["HashKeyRange"]["StartingHashKey"]))

    def _active(self) -> None:
        self.services.kinesis.get_waiter("stream_exists").wait(
            StreamName=self.settings.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )

    def _finish(self) -> list[str]:
        """Faults end; everything must come to its end by itself."""
        self.faults.calm()
        for mortal in self.mortals:
            mortal.wake()
        totals, wrong = [], []
        for number, producer in enumerate(self.mortals[:2]):
            status = producer.finish(60)
            self._ended.append(producer)
            if status != 0:
                return [f"producer {number} ends with {status}: {producer.log.read_text()[-1000:]}"]
            totals.append(int(producer.out.read_text() or 0))
        totals += self._more_totals()
        self._say(f"produced {sum(totals):,}")
        if not self._until(lambda: processed(self.services) == sum(totals)):
            wrong.append(f"{processed(self.services)} events processed, not {sum(totals)}")
        if not self._until(lambda: not waiting(self.services)):
            wrong.append(f"{waiting(self.services)} files still wait for the publisher")
        for mortal in self.mortals:
            status = 0 if mortal in self._ended else mortal.finish(60)
            if status != 0:
                wrong.append(f"{mortal.name} ends with {status}: {mortal.log.read_text()[-1000:]}")
        self._say("auditing")
        more, counts = verdict(self.services, totals)
        self._table(totals, counts)
        return wrong + more

    def _more_totals(self) -> list[int]:
        """Events of further producers, each of which has ended."""
        return []

    def _until(self, done: Callable[[], bool], seconds: float = FINISH_SECONDS) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for mortal in self.mortals:
                if mortal not in self._ended:
                    mortal.look_after(0.3)
            if done():
                return True
            time.sleep(0.5)
        return False

    def _say(self, stage: str) -> None:
        kills = self.did["kill -9"]
        entries = self.services.ledger.shards()
        sys.stdout.write(
            f"{time.monotonic() - self._began:6.1f} s  {stage}: {kills} kills, {len(entries)} shards in the ledger, "
            f"{processed(self.services):,} events committed, {waiting(self.services)} files pending\n"
        )
        sys.stdout.flush()

    def _table(self, totals: list[int], counts: dict[str, int]) -> None:
        rows = [(f"events of producer {number}", total) for number, total in enumerate(totals)]
        rows += [("copies on the stream, dropped", counts.get("duplicates", 0))]
        rows += sorted(self.did.items())
        for mortal in self.mortals:
            rows += [(f"{mortal.name}: {what}", number) for what, number in sorted(mortal.counts.items())]
        for (service, fault), number in sorted(self.faults.counts.items()):
            rows.append((f"{service}: {fault}", number))
        rows += sorted(_said(self.mortals).items())
        for what, number in rows:
            sys.stdout.write(f"{what:44} {number:9,}\n")


def _said(mortals: list[Mortal]) -> Counter[str]:
    """What the services logged, counted; files that the catalog lost, summed."""
    found: Counter[str] = Counter()
    for mortal in mortals:
        for text in mortal.log.read_text(errors="replace").splitlines() if mortal.log.exists() else []:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the end of a process that was killed while it wrote, or a traceback
            if isinstance(line, dict) and "message" in line:
                found[f"log: {line['message']}"] += 1
                found["files added again"] += int(line.get("added_again", 0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--rate", type=float, default=400, help="events a second and producer")
    parser.add_argument("--keep", action="store_true", help="keep the logs of an exact run too")
    run(Chaos, ROOT / "build" / "chaos", parser.parse_args(), "exact")


def run(kind: type[Chaos], folder: Path, chosen: argparse.Namespace, right: str) -> None:
    """Run one of that kind as the command line says; SystemExit 1 when something is wrong in the end."""
    folder = folder / str(chosen.seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sys.stdout.write(f"seed {chosen.seed}, {chosen.seconds:.0f} s\n")
    sys.stdout.flush()
    with servers() as found:
        use_environment(found.environment)
        wrong = kind(found, chosen.seed, chosen.seconds, chosen.rate, folder).run()
    if wrong:
        sys.stdout.write("\n".join([f"NOT {right}:", *wrong, f"seed {chosen.seed}; logs in {folder}", ""]))
        sys.exit(1)
    if not chosen.keep:
        shutil.rmtree(folder)
    sys.stdout.write(f"{right}\n")


if __name__ == "__main__":
    main()
