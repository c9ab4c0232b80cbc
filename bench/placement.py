"""Compare adaptive placement with placement by key hash, on shards that enforce their limits.

A Zipf workload in which one key has 40 % of the traffic, offered at the sum of the shards' limits. Both producers have
the same bounded memory of sealed batches, retry only refused records to the same hash key with the same backoff, and
stop accepting when the memory is full. Placement by key hash keeps a batch per key, as the KPL does. Time is simulated.
"""

import heapq
import json
import random
import sys
from collections.abc import Callable
from itertools import count

from headwater.clock import ManualClock
from headwater.producers.placement import Placement
from headwater.stream.hashkeys import hash_key_of
from headwater.stream.shards import Shard
from headwater.testing.kinesis import MemoryKinesis

SHARDS = 16
SECONDS = 120
WARM_UP = 20
BATCH = 40_000
"""Bytes of a sealed batch."""
MEMORY = 64 * 1024 * 1024
TICK_MS = 50
LOAD = 1.0
"""Offered, in sums of the shards' limits."""


def zipf(keys: int, top: float) -> list[float]:
    """Return the shares of the keys: the first is `top`, the rest falls as 1/rank."""
    tail = [1 / rank for rank in range(1, keys)]
    return [top, *[(1 - top) * share / sum(tail) for share in tail]]


def run(
    place: Callable[[str, int], int], record_place: Callable[[int, str | None], None], stream: MemoryKinesis
) -> float:
    """Return the share of the sum of the limits that entered the stream after the warm-up."""
    clock = stream.clock
    draw = random.Random(7)
    names, shares = [f"key-{i}" for i in range(1000)], zipf(1000, 0.4)
    waiting: list[tuple[int, int, int, int]] = []
    order, held, owed, began = count(), 0, 0.0, 0
    limit = len(stream.layout("s")) * 1e6
    offered = limit * LOAD * TICK_MS / 1000
    for tick in range(SECONDS * 1000 // TICK_MS):
        if tick == WARM_UP * 1000 // TICK_MS:
            began = sum(shard.taken_bytes for shard in stream.shards("s"))
        owed = min(owed + offered, 4 * offered)
        while owed >= BATCH and held + BATCH <= MEMORY:
            name = draw.choices(names, shares)[0]
            heapq.heappush(waiting, (clock.now_ms(), next(order), place(name, BATCH), 0))
            owed -= BATCH
            held += BATCH
        due: list[tuple[int, int, int, int]] = []
        while waiting and waiting[0][0] <= clock.now_ms() and len(due) < 250:
            due.append(heapq.heappop(waiting))
        records = [{"Data": bytes(BATCH - 1), "PartitionKey": "-", "ExplicitHashKey": str(row[2])} for row in due]
        answers = stream.put_records(StreamName="s", Records=records)["Records"] if due else []
        for (_, _, key, attempt), answer in zip(due, answers, strict=True):
            record_place(key, answer.get("ShardId"))
            if "ErrorCode" in answer:
                pause = draw.random() * min(2_000, 100 * 2**attempt)
                heapq.heappush(waiting, (clock.now_ms() + round(pause), next(order), key, attempt + 1))
            else:
                held -= BATCH
        clock.sleep(TICK_MS / 1000)
    taken = sum(shard.taken_bytes for shard in stream.shards("s")) - began
    return taken / (limit * (SECONDS - WARM_UP))


def stream_of(crooked: bool) -> MemoryKinesis:
    """Return a stream of even shards, or of uneven ones: every fourth split in four, as hot shards are."""
    clock = ManualClock()
    stream = MemoryKinesis(clock)
    stream.create_stream(StreamName="s", ShardCount=SHARDS)
    if crooked:
        for shard in stream.shards("s")[::4]:
            quarter = (shard.end - shard.start + 1) // 4
            for part in (1, 2, 3):
                key = shard.start + part * quarter
                last = next(row for row in stream.shards("s") if row.closed is None and row.start <= key <= row.end)
                stream.split_shard(StreamName="s", ShardToSplit=last.shard_id, NewStartingHashKey=str(key))
    return stream


def adaptive(crooked: bool) -> float:
    """Measure adaptive placement."""
    stream = stream_of(crooked)
    ranges = [Shard(shard.shard_id, shard.start, shard.end) for shard in stream.shards("s") if shard.closed is None]
    placement = Placement(ranges, random.Random(1).random)

    def record_place(key: int, shard_id: str | None) -> None:
        if shard_id is None:
            placement.throttled(key)
        else:
            placement.delivered(key, shard_id)

    return run(lambda _name, size: placement.choose(size), record_place, stream)


def by_key_hash(crooked: bool) -> float:
    """Measure placement by the key's hash."""

    def place(name: str, _size: int) -> int:
        return hash_key_of(name)

    return run(place, lambda _key, _shard: None, stream_of(crooked))


def by_random(crooked: bool) -> float:
    """Measure placement by chance."""
    draw = random.Random(3)
    return run(lambda _name, _size: draw.getrandbits(128), lambda _key, _shard: None, stream_of(crooked))


def main() -> int:
    """Print the shares and return 1 when a mark is missed."""
    ok, found = True, {}
    for layout in ("even", "crooked"):
        crooked = layout == "crooked"
        shares = {"adaptive": adaptive(crooked), "random": by_random(crooked), "key hash": by_key_hash(crooked)}
        for name, share in shares.items():
            sys.stdout.write(f"{layout:8} {name:9} {share:.3f} of the sum of the shards' limits\n")
        ok = ok and shares["adaptive"] >= 0.9 and shares["key hash"] < 0.5
        found[layout] = {name: round(share, 3) for name, share in shares.items()}
    sys.stdout.write(json.dumps({"bench": "placement", "ok": ok, **found}) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
