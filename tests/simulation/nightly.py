"""Run seeds that were never run before, and keep the total: `python -m tests.simulation.nightly --count 20000`."""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from tests.simulation.run import run_range

__all__ = ["next_range"]

TOTAL = Path("build/simulation-total.json")
_A_DAY = 1_000_000
"""Seeds that belong to one date: far more than a machine runs in a day."""


def next_range(today: date, total: Mapping[str, int], count: int) -> range:
    """Return the seeds to run: those of the date, behind what was run on it before.

    The date alone keeps machines with no common file from running the same seeds on different days.

    >>> day = date(2026, 11, 28)
    >>> first = next_range(day, {}, 10)
    >>> next_range(day, {"next": first.stop}, 10).start == first.stop
    True
    """
    first = max((today - date(2026, 1, 1)).days * _A_DAY, total.get("next", 0))
    return range(first, first + count)


def main() -> int:
    """Exit code 1 when a seed fails; the total is kept all the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--total", type=Path, default=TOTAL)
    given = parser.parse_args()
    total = json.loads(given.total.read_text()) if given.total.exists() else {}
    seeds = next_range(datetime.now(UTC).date(), total, given.count)
    failed = run_range(seeds, given.jobs)
    total |= {
        "next": seeds.stop,
        "seeds": total.get("seeds", 0) + len(seeds),
        "failed": [*total.get("failed", []), *failed],
    }
    given.total.parent.mkdir(parents=True, exist_ok=True)
    given.total.write_text(json.dumps(total) + "\n")
    print(f"{total['seeds']:,} seeds in all, {len(total['failed'])} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
