"""Find the calls that lead from one layout to another, in order, and what each does. Pure.

`apply` makes the calls; nothing here does.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from headwater.errors import HeadwaterError
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.topology import Layout, even_layout
from headwater.stream.hashkeys import HASH_SPACE

__all__ = ["Step", "after", "layouts", "reshard", "seconds", "step_from_json", "updates"]


@dataclass(frozen=True)
class Step:
    """Describe one call.

    A split adds the boundary `at`, a merge removes it. Shards are not named by id: the ids of shards yet to be made are
    unknown when a plan is made.
    """

    call: Literal["SplitShard", "MergeShards", "UpdateShardCount"]
    at: int = 0
    count: int = 0
    """UpdateShardCount's target."""

    def to_json(self) -> dict[str, Any]:
        """Return the call as a JSON document, which `step_from_json` reads."""
        if self.call == "UpdateShardCount":
            return {"call": self.call, "count": self.count}
        return {"call": self.call, "at": str(self.at)}


def step_from_json(doc: dict[str, Any]) -> Step:
    """Return the call that `Step.to_json` wrote."""
    return Step(doc["call"], int(doc.get("at", 0)), int(doc.get("count", 0)))


def after(layout: Layout, step: Step) -> Layout:
    """Return the layout once the call is done; raise HeadwaterError for a call that does not fit it.

    >>> after((0,), Step("SplitShard", at=2**127)) == even_layout(2)
    True
    >>> after(even_layout(2), Step("MergeShards", at=2**127))
    (0,)
    """
    if step.call == "UpdateShardCount":
        return even_layout(step.count)
    i = bisect_left(layout, step.at)
    there = i < len(layout) and layout[i] == step.at
    if there == (step.call == "SplitShard") or step.at == 0:
        raise HeadwaterError(f"{step.call} at {step.at} does not fit the layout")
    return (*layout[:i], step.at, *layout[i:]) if step.call == "SplitShard" else (*layout[:i], *layout[i + 1 :])


def layouts(layout: Layout, steps: Sequence[Step]) -> Iterator[Layout]:
    """Yield the layout before the first step, and the one after each.

    >>> [len(layout) for layout in layouts((0,), [Step("SplitShard", at=2**127)])]
    [1, 2]
    """
    yield layout
    for step in steps:
        layout = after(layout, step)
        yield layout


def reshard(old: Layout, new: Layout, heat: Sequence[float], most: int) -> list[Step]:
    """Return the splits and merges from `old` to `new`, with never more than `most` shards at a time.

    Between boundaries that stay, the layout changes independently of the rest. The hottest such segment comes first
    (`heat` has one value per shard of `old`), its splits before its merges, so that nothing is made hotter on the way;
    where that needs more shards than there may be, merges elsewhere come first. Raises HeadwaterError when `most` is
    too few.

    >>> steps = reshard(even_layout(2), even_layout(4), heat=[0.2, 0.9], most=10)
    >>> [(step.call, step.at * 4 // 2**128) for step in steps]
    [('SplitShard', 3), ('SplitShard', 1)]
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
    """Hold a run of shards between two boundaries that stay, and what changes in it."""

    shards: range
    splits: list[int]
    merges: list[int]


def _segments(old: Layout, new: Layout) -> list[_Segment]:
    """Return the segments in which anything changes."""
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
    """Return the boundaries in an order that splits the middle first, then both halves: each split relieves most."""
    out, queue = [], [boundaries]
    while queue:
        part = queue.pop(0)
        if part:
            middle = len(part) // 2
            out.append(part[middle])
            queue += [part[:middle], part[middle + 1 :]]
    return out


def updates(old: int, new: int) -> list[Step] | None:
    """Return the UpdateShardCount calls from one count to another, each at most doubling or halving.

    None when one of the counts is beyond what the call allows.

    >>> [step.count for step in updates(3, 10)]
    [6, 10]
    """
    if new > LIMITS.stream_shards or old > LIMITS.stream_shards:
        return None
    steps = []
    while old != new:
        old = min(2 * old, new) if new > old else max(-(-old // 2), new)
        steps.append(Step("UpdateShardCount", count=old))
    return steps


def seconds(steps: Sequence[Step]) -> float:
    """Return an estimate of how long the calls take, one at a time.

    UpdateShardCount may be called ten times a day, so more of them take days.

    >>> seconds([Step("SplitShard", at=1), Step("SplitShard", at=2)])
    60.0
    """
    one_by_one = sum(step.call != "UpdateShardCount" for step in steps)
    whole = len(steps) - one_by_one
    waits = max(0, whole - 1) // LIMITS.updates_per_day * 86_400.0
    return (
        one_by_one * max(LIMITS.reshard_seconds, 1 / LIMITS.reshard_calls_per_second)
        + whole * LIMITS.update_seconds
        + waits
    )
