"""What a run uses, sampled while it goes on: memory, descriptors and threads of each process, items and files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from headwater.processors.services import Services
from tests.chaos.flatness import ALLOWED, Growth, growth
from tests.chaos.processes import Mortal

__all__ = ["Samples", "process_uses"]


class Samples:
    """Series by measure and by whose it is: a process from its start to its death, or `all`."""

    def __init__(self, path: Path) -> None:
        self.series: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._path = path

    def add(self, seconds: float, whose: str, measures: dict[str, float]) -> None:
        """Keep measures of that time, in memory and as a line of JSON."""
        for measure, value in measures.items():
            self.series.setdefault((measure, whose), []).append((seconds, value))
        with self._path.open("a") as lines:
            lines.write(json.dumps({"seconds": round(seconds, 1), "of": whose} | measures) + "\n")

    def take(self, seconds: float, mortals: Sequence[Mortal], services: Services, folder: Path) -> None:
        """Measure everything now."""
        for mortal in mortals:
            if mortal.pid is not None and (found := process_uses(mortal.pid)):
                self.add(seconds, f"{mortal.name} ({mortal.pid})", found)
        self.add(seconds, "all", _stored(services) | _local(folder))

    def judged(self) -> Iterator[tuple[str, str, Growth]]:
        """Yield measure, whose it is and the verdict of every series that is long enough."""
        for (measure, whose), points in sorted(self.series.items()):
            found = growth([value for _, value in points], ALLOWED[measure]) if measure in ALLOWED else None
            if found is not None:
                yield measure, whose, found

    def plot(self, path: Path) -> None:
        """Draw a panel a measure, a line a series."""
        measures = sorted({measure for measure, _ in self.series}, key=lambda one: [*ALLOWED, one].index(one))
        figure = Figure(figsize=(12, 2.6 * len(measures)), layout="constrained")
        for axes, measure in zip(figure.subplots(len(measures), squeeze=False).flat, measures, strict=True):
            for (of, whose), points in sorted(self.series.items()):
                if of == measure:
                    named = len(points) * 4 > max(len(other) for other in self.series.values())
                    axes.plot(*zip(*points, strict=True), linewidth=1, label=whose.split(" ")[0] if named else None)
            axes.set_title(measure if measure in ALLOWED else f"{measure} (not judged)", fontsize=9, loc="left")
            axes.set_ylim(bottom=0)
            axes.legend(fontsize=6, loc="upper left", ncols=8)
        figure.savefig(path)


def process_uses(pid: int) -> dict[str, float]:
    """Return what a process uses; nothing of one that is gone."""
    try:
        folder = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return {
            "rss MB": round(int(status["VmRSS"].split()[0]) / 1024, 1),
            "fds": len(list((folder / "fd").iterdir())),
            "threads": int(status["Threads"]),
        }
    except (OSError, KeyError):
        return {}


def _stored(services: Services) -> dict[str, float]:
    keys = list(services.objects.list(""))
    objects = [key.split("/")[0] for key in keys]
    states = {key for key in keys if key.startswith("state/")}
    named = {entry.state_key for entry in services.ledger.shards()}
    scanned = {name: _items(services.client("dynamodb"), name) for name in _tables(services)}
    settings = services.settings
    snapshot = services.open_lake_table().current_snapshot()
    files = snapshot.summary["total-data-files"] if snapshot and snapshot.summary else "0"
    return {
        "items in the ledger": scanned[settings.ledger_table],
        "rows of views": scanned[settings.views_table],
        "states that nothing names": len(states - named),
        "objects of the lake": objects.count("lake"),
        "files of the lake now": int(files or 0),
    }


def _tables(services: Services) -> tuple[str, str]:
    return services.settings.ledger_table, services.settings.views_table


def _items(dynamodb: Any, table: str) -> int:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, Select="COUNT")
    return sum(page["Count"] for page in pages)


def _local(folder: Path) -> dict[str, float]:
    files = [(file.name, file.stat().st_size) for file in folder.rglob("*") if file.is_file()]
    return {
        "local files": len(files),
        "MB of outboxes": round(sum(size for name, size in files if "outbox" in name) / 1e6, 2),
    }
