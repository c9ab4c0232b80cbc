"""The whole system in a world of one seed: producers, readers on two machines, publishers, and an operator.

All of it is the real code but for the loops: those of threads and processes are actors here.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from botocore.exceptions import BotoCoreError, ClientError

from headwater.aggregates import count, max, sum
from headwater.config import Settings
from headwater.contract import parse_contract
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.ledger import Ledger
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.memoryshards import HASH_SPACE
from headwater.testing.objects import MemoryObjects
from processors.operators.enrich import ReferenceTable
from processors.pipeline import Pipeline, Reference
from processors.runners.embedded import list_shards
from processors.runners.shardreader import ReaderSettings, ReaderStatus, ShardReader
from processors.windows import tumbling
from processors.worker import Ports, ShardWorker
from producers.controls import put_control
from producers.receipts import Accepted
from producers.sealing import Numbers, SealedBatch, Sealer
from producers.settings import ProducerSettings
from producers.writer import Writer, WriterSettings, put_records
from sinks.deadletter import DeadLetters
from sinks.publisher import Publisher
from sinks.views import ViewStore
from tests.simulation.catalog import MemoryTable, TableView
from tests.simulation.world import Actor, Proxy, SimClock, World

__all__ = ["PIPELINE", "System", "WatchedDynamoDB"]

START = 1_762_160_400_000
PASSING = (HeadwaterError, ClientError, BotoCoreError)
CONTRACT = parse_contract(
    """
name: reading
version: 1
key: device
time: ts
fields:
  - {name: device, type: string}
  - {name: ts, type: timestamp}
  - {name: value, type: long}
""",
    "simulation",
)
SITES = Reference("sites", "none.csv", "device", {"site": "string"})
VERSIONS = {
    f"v{n}": ReferenceTable.of(SITES, pa.table({"device": ["a", "b", "c"], "site": [f"x{n}", f"y{n}", f"z{n}"]}))
    for n in range(1, 4)
}
PIPELINE = (
    Pipeline("sim", CONTRACT, allowed_lateness="1m")
    .enrich(SITES, on="device")
    .view("by_device", by=["device"], window=tumbling("1m"), n=count(), total=sum("value"))
    .view("by_site", by=["site"], n=count(), top=max("value"))
    .lake("readings", partition=None)
)


class WatchedDynamoDB(MemoryDynamoDB):
    """Notes each write of a shard's ledger item that breaks its rules."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def update_item(self, *, TableName: str, Key: dict[str, Any], **options: Any) -> dict[str, Any]:  # noqa: N803
        before = self.get_item(TableName=TableName, Key=Key).get("Item", {})
        answer = super().update_item(TableName=TableName, Key=Key, **options)
        after = self.get_item(TableName=TableName, Key=Key).get("Item", {})
        if TableName == "ledger" and "position" in after:
            self._check(Key, before, after)
        return answer

    def _check(self, key: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> None:
        name = str(key)
        if before.get("position", {"S": ""})["S"] > after["position"]["S"]:
            self.broken.append(f"{name}: position went back to {after['position']['S']}")
        if int(before.get("epoch", {"N": "0"})["N"]) > int(after["epoch"]["N"]):
            self.broken.append(f"{name}: epoch went back")
        if before.get("closed", {}).get("BOOL") and not after.get("closed", {}).get("BOOL"):
            self.broken.append(f"{name}: opened again")


@dataclass
class Outbox:
    """What a producer keeps over a crash: its numbers, events not sealed, batches not delivered."""

    numbers: Numbers
    events: list[dict[str, Any]] = field(default_factory=list)
    batches: dict[int, SealedBatch] = field(default_factory=dict)
    told: Accepted = field(default_factory=lambda: Accepted(CONTRACT))


class System:
    """Everything that one seed chooses, and what came of it."""

    def __init__(self, world: World) -> None:
        self.world, self.random = world, world.random
        self.clock = SimClock(world)
        self.kinesis = MemoryKinesis(self.clock, reshard_seconds=self.random.choice([0, 2]))
        self.kinesis.create_stream(StreamName="s", ShardCount=self.random.randint(1, 3))
        self.dynamodb, self.objects = WatchedDynamoDB(), MemoryObjects()
        for table, names in (("ledger", ("pipeline", "item")), ("views", ("pk", "sk"))):
            keys = [
                dict(zip(("AttributeName", "KeyType"), one, strict=True))
                for one in zip(names, ("HASH", "RANGE"), strict=True)
            ]
            self.dynamodb.create_table(TableName=table, KeySchema=keys)
        self.table = MemoryTable(world)
        self.ledger = Ledger(Proxy(world, "dynamodb", self.dynamodb), "ledger", "sim")
        Ledger(self.dynamodb, "ledger", "sim").put_document(
            "references", {"sites": {"initial": {"version": 1, "uri": "v1"}, "latest": {"version": 1, "uri": "v1"}}}, 0
        )
        self.truth: dict[tuple[str, int], dict[str, Any]] = {}
        self.poison: list[bytes] = []
        self.settings = Settings(
            stream="s", commit_seconds=self.random.choice([1.0, 4.0, 15.0]), view_flush_seconds=2.0
        )
        self.producing = 0
        self.operating = True
        self._spawned = 0

    def spawn(self) -> None:
        """All actors."""
        for number in range(self.random.randint(1, 2)):
            self.producing += 1
            self._producer(f"producer {number}", Outbox(Numbers(f"origin-{number}")), self.random.randint(10, 60))
        for number in range(self.random.randint(1, 2)):
            self.world.spawn(f"machine {number}", lambda n=number: self._machine(f"machine-{n}"), self._again)
        for number in range(self.random.randint(1, 2)):
            self.world.spawn(f"publisher {number}", self._publish, self._again)
        self.world.spawn("operator", self._operate, self._again)

    def _again(self, actor: Actor) -> None:
        """A process that died starts again."""
        self.world.spawn(actor.name, actor.job, self._again, delay_ms=self.random.randint(200, 8_000))

    def owner(self, name: str) -> str:
        self._spawned += 1
        return f"{name}-{self._spawned}"

    # Producers: the sealer and the writer, and an outbox that survives.

    def _producer(self, name: str, outbox: Outbox, events: int) -> None:
        left = [events]

        def again(actor: Actor) -> None:
            if left[0] > 0 or outbox.events or outbox.batches or not outbox.told.empty:
                self.world.spawn(actor.name, job, again, delay_ms=self.random.randint(200, 4_000))
            else:
                self.producing -= 1

        def job() -> None:
            self._produce(outbox, left)

        self.world.spawn(name, job, again)

    def _produce(self, outbox: Outbox, left: list[int]) -> None:
        settings = ProducerSettings(max_events=self.random.randint(1, 6), linger_ms=200)
        sealer = Sealer(CONTRACT, settings, outbox.numbers, lambda _: self.random.randrange(HASH_SPACE))
        writer = Writer(WriterSettings(give_up_ms=1 << 40), self.random.random, "s")
        for batch in outbox.batches.values():
            writer.add(batch)
        for event in outbox.events:
            sealer.append(sealer.cut_row(event, 100, None), self.clock.now_ms())
        kinesis = Proxy(self.world, "kinesis", self.kinesis)
        while left[0] or outbox.events or outbox.batches:
            for _ in range(min(left[0], self.random.randint(0, 5))):
                event = self._event()
                left[0] -= 1
                outbox.events.append(event)
                sealer.append(sealer.cut_row(event, 100, None), self.clock.now_ms())
            for buffer in sealer.take(self.clock.now_ms(), everything=not left[0]):
                self._seal(sealer, buffer, outbox, writer)
            request = writer.request(self.clock.now_ms())
            if request:
                self._send(kinesis, request, outbox, writer)
            self.world.sleep(self.random.randint(50, 400))
        self._tell(outbox)

    def _seal(self, sealer: Sealer, buffer: Any, outbox: Outbox, writer: Writer) -> None:
        rows = [part.rows for part in buffer.parts]
        table, pairs = sealer.seal(buffer)
        for batch, _ in pairs:
            outbox.batches[batch.batch_id] = batch
            outbox.told.add_session(str(batch.origin), batch.first_seq, batch.count)
            writer.add(batch)
        for row in rows:
            outbox.events.remove(row)
        first = pairs[0][0]
        for at, row in enumerate(table.to_pylist()):
            self.truth[str(first.origin), first.first_seq + at] = row

    def _send(self, kinesis: Any, request: list[SealedBatch], outbox: Outbox, writer: Writer) -> None:
        if self.world.chance("partial put"):
            self.kinesis.faults.partial({self.random.randrange(len(request))})
        try:
            entries = put_records(kinesis, "s", request)
        except HeadwaterError as error:
            writer.failed(error, self.clock.now_ms())
            return
        for one in writer.answered(entries, self.clock.now_ms()).delivered:
            outbox.batches.pop(one.batch.batch_id, None)

    def _tell(self, outbox: Outbox) -> None:
        kinesis = Proxy(self.world, "kinesis", self.kinesis)
        for body in outbox.told.bodies():
            put_control(kinesis, "s", "receipt", body, self.clock, self.random.random)
        outbox.told = Accepted(CONTRACT)

    def _event(self) -> dict[str, Any]:
        late = self.random.choice([0, 0, 0, 90_000, 600_000])
        ts = self.world.now - late
        return {
            "device": self.random.choice("abcd"),
            "ts": pa.scalar(ts, pa.timestamp("ms", "UTC")).as_py(),
            "value": self.random.randint(-50, 50),
        }

    # Readers.

    def ports(self) -> Ports:
        dynamodb = Proxy(self.world, "dynamodb", self.dynamodb)
        objects = Proxy(self.world, "s3", self.objects)
        views = ViewStore(dynamodb, "views", clock=self.clock, chance=self.random.random)
        return Ports(
            ledger=Ledger(dynamodb, "ledger", "sim"),
            objects=objects,  # type: ignore[arg-type]
            views=views,
            letters=DeadLetters(objects),  # type: ignore[arg-type]
            references=lambda _name, uri: VERSIONS[uri],
        )

    def _machine(self, name: str) -> None:
        """Starts a reader for each shard whose parents are closed, as the embedded runner does."""
        owner, running, waiting = self.owner(name), dict[str, bool](), dict[str, int]()
        ports, kinesis = self.ports(), Proxy(self.world, "kinesis", self.kinesis)
        while True:
            try:
                for shard in list_shards(kinesis, "s"):
                    if running.get(shard.shard_id) or waiting.get(shard.shard_id, 0) > self.clock.now_ms():
                        continue
                    entries = [ports.ledger.shard(one) for one in (shard.shard_id, *shard.parents)]
                    if entries[0] is not None and entries[0].closed:
                        running[shard.shard_id] = True
                    elif all(entry is not None and entry.closed for entry in entries[1:]):
                        running[shard.shard_id] = True
                        self._reader(shard.shard_id, shard.parents, owner, running, waiting)
            except PASSING:
                self.world.note("shards could not be listed")
            self.world.sleep(1_500)

    def _reader(
        self, shard: str, parents: tuple[str, ...], owner: str, running: dict[str, bool], waiting: dict[str, int]
    ) -> None:
        def job() -> None:
            worker = ShardWorker(PIPELINE, shard, self.ports(), self.settings, self.clock, owner)
            kinesis = Proxy(self.world, "kinesis", self.kinesis)
            reader = ShardReader(kinesis, "s", worker, self.clock, ReaderSettings(), ReaderStatus(shard))
            reader.start(list(parents))
            while (found := reader.step()) is not None:
                self.world.sleep(250 if found else 700)

        def ended(actor: Actor) -> None:
            running[shard] = False
            pause = 3_000 * self.settings.commit_seconds if isinstance(actor.error, Fenced) else 1_000
            waiting[shard] = self.world.now + round(pause)
            if actor.error is not None and not isinstance(actor.error, PASSING):
                self.world.errors.append(f"{actor.name}: {type(actor.error).__name__}: {actor.error}")

        self.world.spawn(f"{owner} {shard[-2:]}", job, ended)

    # Publishers and the operator.

    def _publish(self) -> None:
        dynamodb = Proxy(self.world, "dynamodb", self.dynamodb)
        view = Proxy(self.world, "catalog", TableView(self.table))
        publisher = Publisher(
            Ledger(dynamodb, "ledger", "sim"), lambda _: _Port(view), self.clock, self.owner("publisher"), 6.0
        )
        while True:
            with suppress(*PASSING):
                publisher.step()
            self.world.sleep(self.random.randint(500, 2_500))

    def _operate(self) -> None:
        kinesis = Proxy(self.world, "kinesis", self.kinesis)
        while self.operating and (self.world.now < self.world.faults_until_ms):
            self.world.sleep(self.random.randint(1_000, 15_000))
            with suppress(*PASSING):
                self._act(kinesis)
        self.operating = False
        while True:
            self.world.sleep(60_000)

    def _act(self, kinesis: Any) -> None:
        what = self.random.choice(["split", "merge", "poison", "foreign", "reference", "split"])
        open_ = [shard for shard in self.kinesis.shards("s") if shard.closed is None]
        open_.sort(key=lambda shard: shard.start)
        shard = open_[self.random.randrange(len(open_))]
        if what == "split" and len(open_) < 6:
            key = shard.start + (shard.end - shard.start) * self.random.randint(1, 9) // 10
            kinesis.split_shard(StreamName="s", ShardToSplit=shard.shard_id, NewStartingHashKey=str(key))
        elif what == "merge" and len(open_) > 1:
            left, right = open_[(at := self.random.randrange(len(open_) - 1)) : at + 2]
            kinesis.merge_shards(StreamName="s", ShardToMerge=left.shard_id, AdjacentShardToMerge=right.shard_id)
        elif what == "poison":
            data = f"poison {len(self.poison)}".encode()
            self.kinesis.put_record(StreamName="s", Data=data, PartitionKey=str(self.random.random()))
            self.poison.append(data)
        elif what == "foreign":
            self.table.foreign_commit()
        elif what == "reference":
            version = self.random.randint(2, 3)
            body = {"name": "sites", "version": version, "uri": f"v{version}"}
            put_control(kinesis, "s", "reference", body, self.clock, self.random.random)
        self.world.fired[f"operator: {what}"] += 1

    # Whether all is done.

    def settled(self) -> bool:
        """Everything produced is read, committed and published, and every ended shard is closed."""
        if self.producing or self.operating:
            return False
        entries = {entry.shard_id: entry for entry in Ledger(self.dynamodb, "ledger", "sim").shards()}
        for shard in self.kinesis.shards("s"):
            entry = entries.get(shard.shard_id)
            if entry is None or entry.pending:
                return False
            if shard.closed is not None and not entry.closed:
                return False
            if shard.records and int(entry.position) < shard.records[-1].number:
                return False
        return True


class _Port:
    """The publisher's table: what a lost answer is to it, is Retryable, as IcebergTable has it."""

    def __init__(self, view: Any) -> None:
        self._view = view

    def paths(self) -> set[str]:
        try:
            found: set[str] = self._view.paths()
        except (ClientError, BotoCoreError) as error:
            raise Retryable(str(error)) from error
        return found

    def add(self, paths: Any) -> None:
        try:
            self._view.add(paths)
        except (ClientError, BotoCoreError) as error:
            raise Retryable(str(error)) from error
