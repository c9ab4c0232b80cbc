"""Keep what is known of a fleet on this machine: fed with the log lines of its daemons and shards, read by HTTP.

Liveness: the supervisor and every daemon run, and no shard has gone silent. Readiness: besides, every daemon has
finished its initialization. A lag makes neither fail: a fleet that is behind needs time or shards, not a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

__all__ = ["FleetStatus", "ShardStatus", "WorkerStatus"]

INITIALIZED = "Initialization complete. Starting worker loop."
"""Line that the KCL's Scheduler logs once it takes leases."""
_ACTIVE = frozenset({"starting", "reading", "fenced"})


@dataclass
class ShardStatus:
    """Hold the last report of one shard's process."""

    shard_id: str
    worker: str
    state: str = "starting"
    lag_ms: int | None = None
    committed: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    heard_ms: int = 0
    last_error: str = ""
    epoch: int = 0


@dataclass
class WorkerStatus:
    """Hold the state of one daemon."""

    worker: str
    running: bool = False
    initialized: bool = False
    restarts: int = 0
    pid: int | None = None
    last_error: str = ""


class FleetStatus:
    """Collect the status of all shards and daemons on this machine. Thread-safe."""

    def __init__(self, silent_ms: int) -> None:
        self._silent_ms = silent_ms
        self._lock = Lock()
        self._shards: dict[str, ShardStatus] = {}
        self._workers: dict[str, WorkerStatus] = {}
        self.failed = ""

    def started(self, worker: str, pid: int) -> None:
        """Note that a daemon was started."""
        with self._lock:
            status = self._workers.setdefault(worker, WorkerStatus(worker))
            status.running, status.initialized, status.pid = True, False, pid

    def ended(self, worker: str, *, restarting: bool) -> None:
        """Note that a daemon has ended, and its shards' processes with it."""
        with self._lock:
            status = self._workers.setdefault(worker, WorkerStatus(worker))
            status.running = status.initialized = False
            status.pid = None
            status.restarts += restarting
            for shard in [s for s in self._shards.values() if s.worker == worker and s.state in _ACTIVE]:
                shard.state = "ended with its worker"

    def heard(self, line: Mapping[str, Any], now_ms: int) -> None:
        """Take in a line of the merged log."""
        worker, shard_id = str(line.get("worker", "")), str(line.get("shard", ""))
        with self._lock:
            if line.get("message") == INITIALIZED and worker in self._workers:
                self._workers[worker].initialized = True
            if line.get("level") == "error" and worker in self._workers:
                self._workers[worker].last_error = str(line.get("message", ""))
            if not shard_id or "epoch" not in line:
                return
            status = self._shards.get(shard_id)
            epoch = int(line["epoch"])
            if status is None or (worker != status.worker and epoch >= status.epoch):
                status = self._shards[shard_id] = ShardStatus(shard_id, worker)
            if worker != status.worker:
                return  # the old owner's last words
            status.heard_ms, status.epoch = now_ms, max(epoch, status.epoch)
            if line.get("level") == "error":
                status.last_error = str(line.get("message", ""))
            if line.get("message") == "status":
                status.state, status.lag_ms = str(line["state"]), line.get("lag_ms")
                status.committed, status.counts = str(line["committed"]), line["counts"]

    def shards(self) -> list[ShardStatus]:
        """Return the shards met so far, by id."""
        with self._lock:
            return [self._shards[shard_id] for shard_id in sorted(self._shards)]

    def workers(self) -> list[WorkerStatus]:
        """Return the daemons started so far, by name."""
        with self._lock:
            return [self._workers[worker] for worker in sorted(self._workers)]

    def reading(self, worker: str) -> set[str]:
        """Return the ids of the shards that this worker has and has not given up."""
        return {shard.shard_id for shard in self._active() if shard.worker == worker}

    def live(self, now_ms: int) -> dict[str, Any]:
        """Return `ok` and the problems. A daemon that is being restarted is none: a crash loop has its own limit."""
        problems = [self.failed] if self.failed else []
        for shard in self.shards():
            silent = now_ms - shard.heard_ms
            if shard.state in _ACTIVE and silent > self._silent_ms:
                problems.append(f"shard {shard.shard_id} (worker {shard.worker}) is silent for {silent / 1000:.0f} s")
        return {"ok": not problems, "problems": problems}

    def ready(self, now_ms: int) -> dict[str, Any]:
        """Return the same as `live`, with daemons that have not finished their initialization among the problems."""
        answer = self.live(now_ms)
        problems: list[str] = answer["problems"]
        workers = self.workers()
        problems += [f"worker {one.worker} is not initialized" for one in workers if not one.initialized]
        if not workers:
            problems.append("no worker was started yet")
        return {"ok": not problems, "problems": problems, "shards": len(self._active()), "workers": len(workers)}

    def _active(self) -> list[ShardStatus]:
        return [shard for shard in self.shards() if shard.state in _ACTIVE]

    def metrics(self) -> str:
        """Return all figures as Prometheus text."""
        gauges: dict[str, list[str]] = {}

        def add(name: str, value: float, **labels: str) -> None:
            text = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            gauges.setdefault(name, []).append(f"{name}{{{text}}} {value}")

        for worker in self.workers():
            add("headwater_kcl_worker_up", int(worker.running), worker=worker.worker)
            add("headwater_kcl_worker_initialized", int(worker.initialized), worker=worker.worker)
            add("headwater_kcl_worker_restarts_total", worker.restarts, worker=worker.worker)
        for shard in self.shards():
            labels = {"shard": shard.shard_id, "worker": shard.worker}
            add("headwater_shard_active", int(shard.state in _ACTIVE), **labels)
            if shard.state in _ACTIVE and shard.lag_ms is not None:
                add("headwater_shard_millis_behind_latest", shard.lag_ms, **labels)
            for name, count in sorted(shard.counts.items()):
                add("headwater_shard_count_total", count, **labels, kind=name)
        lines = []
        for name, values in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE {name} {kind}", *values]
        return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
