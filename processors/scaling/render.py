"""Draw shards, plans and simulations for the terminal: values in, rich renderables out. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headwater.processors.scaling.heat import ShardHeat
from headwater.processors.scaling.plan import Plan
from headwater.processors.scaling.simulate import SimulationResult
from headwater.processors.scaling.topology import Topology
from headwater.stream.hashkeys import HASH_SPACE

__all__ = ["duration", "heat_picture", "map_picture", "outcome_picture", "plan_picture", "sparkline"]

_LEVELS = " ▁▂▃▄▅▆▇█"
_BAR, _MAP = 12, 24
"""Characters of a bar, and of the hash space."""


def duration(seconds: float) -> str:
    """Return the seconds as a person reads them.

    >>> duration(42), duration(210), duration(7_200)
    ('42 s', '3.5 min', '2.0 h')
    """
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size * 1.5:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Return the values as blocks, the highest of each stretch when there are more than `width`.

    >>> sparkline([0, 1, 2, 4, 8])
    ' ▁▂▄█'
    """
    if not len(values):
        return ""
    top = max(values) or 1.0
    count = min(width, len(values))
    parts = [values[len(values) * i // count : len(values) * (i + 1) // count] for i in range(count)]
    return "".join(_LEVELS[round(8 * max(part) / top)] for part in parts)


def _table(title: str, *columns: str) -> Table:
    """Return an empty table; a column whose name ends in `>` is aligned to the right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        name, _, side = column.partition(">")
        table.add_column(name, justify="right" if side else "left")
    return table


def _style(share: float) -> str:
    """Return the colour of a share of a limit."""
    return "bold red" if share >= 1 else "red" if share > 0.9 else "yellow" if share > 0.7 else "green"


def _bar(share: float) -> Text:
    """Draw a share of a limit, coloured by how near it is."""
    filled = min(_BAR, round(share * _BAR))
    return Text("█" * filled + "·" * (_BAR - filled), style=_style(share))


def _place(start: int, end: int) -> str:
    """Draw where a range lies in the hash space."""
    first = start * _MAP // HASH_SPACE
    last = max(first + 1, (end + 1) * _MAP // HASH_SPACE)
    return "·" * first + "█" * (last - first) + "·" * (_MAP - last)


def map_picture(
    topology: Topology, lag: Mapping[str, Mapping[str, int]], drained: Mapping[str, bool]
) -> RenderableType:
    """Draw every shard with its place in the hash space, each consumer's lag and, if closed, whether it is drained."""
    table = _table(
        f"stream {topology.stream}: {len(topology.open)} open of {len(topology.shards)} shards",
        "shard", "hash space", "share>", "from", "into", "to read",
    )  # fmt: skip
    for shard in sorted(topology.shards, key=lambda shard: (shard.start, shard.closed, shard.shard_id)):
        parents = " + ".join(_short(name) for name in shard.all_parents)
        children = " + ".join(_short(child.shard_id) for child in topology.children(shard.shard_id))
        behind = ", ".join(f"{name} {duration(ms / 1000)}" for name, ms in sorted(lag.get(shard.shard_id, {}).items()))
        if shard.closed:
            behind = "drained" if drained.get(shard.shard_id) else behind or "closed, not drained"
        table.add_row(
            _short(shard.shard_id),
            _place(shard.start, shard.end),
            f"{shard.width / HASH_SPACE:.2%}",
            parents,
            children,
            behind,
            style="dim" if shard.closed else None,
        )
    return table


def _short(shard_id: str) -> str:
    """Return the number of a shard id, without its prefix and zeros."""
    return shard_id.replace("shardId-", "").lstrip("0") or "0"


def heat_picture(rows: Sequence[ShardHeat], stream: str) -> RenderableType:
    """Draw each open shard's rates and shares of its limits, and the heaviest keys of the stream."""
    table = _table(
        f"stream {stream}: heat of {len(rows)} open shards (shares of 1 MB/s and 1,000 records/s in, 2 MB/s out)",
        "shard", "hottest limit", ">", "MB/s>", "records/s>", "events/s>", "in, bytes>", "in, records>", "out>",
        "throttled/s>", "lag",
    )  # fmt: skip
    for row in rows:
        sample = row.sample
        if sample is None:
            table.add_row(_short(row.shard.shard_id), "not measured yet", *[""] * 9)
            continue
        table.add_row(
            _short(row.shard.shard_id),
            _bar(row.hottest),
            f"{row.hottest:.0%}",
            f"{sample.bytes_s / 1e6:.3f}",
            f"{sample.records_s:,.1f}",
            f"{sample.events_s:,.0f}",
            f"{row.write_bytes:.0%}",
            f"{row.write_records:.0%}",
            f"{row.read_bytes:.0%}",
            f"{sample.throttles_s:,.1f}",
            ", ".join(f"{name} {duration(ms / 1000)}" for name, ms in sorted(sample.lag_ms.items())),
        )
    return Group(table, _heavy(rows))


def _heavy(rows: Sequence[ShardHeat]) -> RenderableType:
    """Draw the ten heaviest keys of all shards together."""
    events: dict[str, int] = {}
    for row in rows:
        for heavy in row.sample.heavy if row.sample else ():
            events[heavy.key] = events.get(heavy.key, 0) + heavy.events
    if not events:
        return Text("no heavy keys measured")
    table = _table("heaviest keys inside the batches", "key", "events>", "")
    top = sorted(events.items(), key=lambda item: (-item[1], item[0]))[:10]
    for key, count in top:
        table.add_row(key, f"{count:,}", Text("█" * max(1, round(24 * count / top[0][1]))))
    return table


def plan_picture(plan: Plan) -> RenderableType:
    """Draw a plan: the layout before and after it, its calls, its cost, the alternatives, and notes."""
    parts: list[RenderableType] = [
        f"plan {plan.id} for stream {plan.stream}: {len(plan.old)} to {len(plan.new)} shards, {len(plan.steps)} calls, "
        f"about {duration(plan.seconds)}",
        f"hottest shard {plan.hottest_before:.0%} of its limit (margin included), after it {plan.hottest_after:.0%}; "
        f"${plan.month_before:,.2f} a month, after it ${plan.month_after:,.2f} (prices: {plan.prices})",
    ]
    calls = _table("", "", "call", "at, share of the hash space>")
    for i, step in enumerate(plan.steps[:20]):
        at = f"{step.count} shards" if step.call == "UpdateShardCount" else f"{step.at / HASH_SPACE:.4%}"
        calls.add_row(str(i + 1), step.call, at)
    if len(plan.steps) > 20:
        calls.add_row("…", f"{len(plan.steps) - 20} more", "")
    if plan.steps:
        parts.append(calls)
    table = _table("", "alternative", "shards>", "$ a month>", "calls>", "time>", "holds", "")
    for other in plan.alternatives:
        table.add_row(
            other.name,
            "" if other.shards is None else f"{other.shards:,}",
            f"{other.month:,.2f}",
            str(other.calls) if other.calls else "",
            duration(other.seconds) if other.calls else "",
            "yes" if other.holds else "no",
            other.note,
            style=None if other.holds else "dim",
        )
    parts.append(table)
    parts += [
        Text(f"hot key {key.key!r}: {key.share:.0%} of a shard alone; {key.cure}", "red") for key in plan.hot_keys
    ]
    parts += [Text(note, "yellow") for note in plan.notes]
    return Group(*parts)


def outcome_picture(outcomes: Sequence[SimulationResult]) -> RenderableType:
    """Draw the scalers of a simulation, cheapest first, and how many shards each had over time."""
    table = _table(
        "", "", "$ a day>", "shards>", "most>", "calls>", "throttled, min>", "dropped>", "lag p99>", "shards over time"
    )
    for outcome in sorted(outcomes, key=lambda o: o.dollars):
        row: dict[str, Any] = outcome.to_json()
        clean = not row["throttled_minutes"]
        table.add_row(
            row["name"],
            f"{row['dollars_per_day']:,.2f}",
            f"{row['shards_mean']:,.1f}",
            f"{row['shards_most']:,}",
            f"{row['calls']:,}",
            Text(f"{row['throttled_minutes']:,.0f}", "green" if clean else "red"),
            f"{row['dropped_share']:.2%}",
            duration(row["lag_p99_seconds"]),
            sparkline(outcome.shards.tolist(), 24),
        )
    return table
