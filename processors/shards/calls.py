"""From one layout to another by the service's calls, in order. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headwater.errors import HeadwaterError
from processors.shards.limits import HASH_SPACE, LIMITS, Limits
from processors.shards.topology import Layout, even_layout

__all__ = ["Step", "after", "layouts", "reshard", "seconds", "step_from_json", "updates"]


@dataclass(frozen=True)
class Step:
    """One call. A split makes, a merge removes the boundary `at`; the shards are named by their ranges."""

    call: Literal["SplitShard", "MergeShards", "UpdateShardCount"]
    at: int = 0
    count: int = 0
    """UpdateShardCount's target."""

    def to_json(self) -> dict[str, Any]:
        if self.call == "UpdateShardCount":
            return {"call": self.call, "count": self.count}
        return {"call": self.call, "at": str(self.at)}


def step_from_json(doc: dict[str, Any]) -> Step:
    """What to_json wrote."""
    return Step(doc["call"], int(doc.get("at", 0)), int(doc.get("count", 0)))


def after(layout: Layout, step: Step) -> Layout:
    """The layout once the call is done."""
    if step.call == "UpdateShardCount":
        return even_layout(step.count)
    i = bisect_left(layout, step.at)
    there = i < len(layout) and layout[i] == step.at
    if there == (step.call == "SplitShard") or step.at == 0:
        raise HeadwaterError(f"{step.call} at {step.at} does not fit the layout")
    return (*layout[:i], step.at, *layout[i:]) if step.call == "SplitShard" else (*layout[:i], *layout[i + 1 :])


def layouts(layout: Layout, steps: Sequence[Step]) -> Iterator[Layout]:
    """The layout before the first step, and after each."""
    yield layout
    for step in steps:
        layout = after(layout, step)
        yield layout


def reshard(old: Layout, new: Layout, heat: Sequence[float], most: int) -> list[Step]:
    """Splits and merges from old to new, never more than `most` shards at a time.

    Between boundaries that stay the layout changes apart from the rest. The hottest such segment comes first (`heat`
    is per shard of `old`), its splits before its merges, so that nothing is made hotter on the way; where that needs
    more shards than there may be, merges elsewhere come first.
    """
    segments = _segments(old, new)
    segments.sort(key=lambda s: (-max(heat[i] for i in s.shards) if s.splits else 1.0, s.shards[0]))
    count, waiting, steps = len(old), segments, list[Step]()
    while waiting:
        fits = next((s for s in waiting if count + len(s.splits) <= most), None)
        if fits is None:
            need = count + min(len(s.splits) for s in waiting)
            raise HeadwaterError(f"the plan needs {need:,} shards on the way and {most:,} are allowed; raise the quota")
        waiting = [s for s in waiting if s is not fits]
        steps += [Step("SplitShard", at) for at in fits.splits] + [Step("MergeShards", at) for at in fits.merges]
        count += len(fits.splits) - len(fits.merges)
    return steps


@dataclass(frozen=True)
class _Segment:
    shards: range
    splits: list[int]
    merges: list[int]


def _segments(old: Layout, new: Layout) -> list[_Segment]:
    stays = sorted(set(old) & set(new))
    out = []
    for start, stop in zip(stays, [*stays[1:], HASH_SPACE], strict=True):
        shards = range(bisect_left(old, start), bisect_left(old, stop))
        made = list(new[bisect_right(new, start) : bisect_left(new, stop)])
        gone = list(old[shards.start + 1 : shards.stop])
        if made or gone:
            out.append(_Segment(shards, _middle_first(made), gone))
    return out


def _middle_first(boundaries: list[int]) -> list[int]:
    """The middle one, then both halves: each split relieves as much as it can."""
    out, queue = [], [boundaries]
    while queue:
        part = queue.pop(0)
        if part:
            middle = len(part) // 2
            out.append(part[middle])
            queue += [part[:middle], part[middle + 1 :]]
    return out


def updates(old: int, new: int, limits: Limits = LIMITS) -> list[Step] | None:
    """UpdateShardCount calls from one count to another, each at most doubling or halving; None beyond its range."""
    if new > limits.stream_shards or old > limits.stream_shards:
        return None
    steps = []
    while old != new:
        old = min(2 * old, new) if new > old else max(-(-old // 2), new)
        steps.append(Step("UpdateShardCount", count=old))
    return steps


def seconds(steps: Sequence[Step], limits: Limits = LIMITS) -> float:
    """How long the calls take, one at a time, with the days that UpdateShardCount's ten a day need."""
    one_by_one = sum(step.call != "UpdateShardCount" for step in steps)
    whole = len(steps) - one_by_one
    waits = max(0, whole - 1) // limits.updates_per_day * 86_400.0
    return (
        one_by_one * max(limits.reshard_seconds, 1 / limits.reshard_calls_per_second)
        + whole * limits.update_seconds
        + waits
    )
