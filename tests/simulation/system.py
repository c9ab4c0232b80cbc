"""The system of one seed: real runners, publishers and producers over services in memory, all on simulated time."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.config import Settings
from headwater.errors import HeadwaterError
from headwater.ledger import Ledger
from headwater.testing.faults import client_error
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects
from processors.audit import audit
from processors.pipeline import Pipeline
from processors.references import ReferenceLoader, ensure_initial, publish
from processors.runners.embedded import EmbeddedRunner
from processors.runners.shardreader import ReaderSettings
from processors.worker import Ports, StateStore
from producers.controls import put_control
from producers.receipts import Accepted
from producers.sealing import SealedBatch
from producers.writer import Writer, WriterSettings, put_records
from sinks.deadletter import DeadLetters
from sinks.publisher import Publisher
from sinks.views import ViewStore
from tests.simulation.catalog import MemoryTable, TableSession
from tests.simulation.ledgerguard import LEDGER, VIEWS, GuardedDynamoDB
from tests.simulation.workload import BEFORE, PIPELINE, V2, Session, zones
from tests.simulation.world import Actor, Proxy, SimClock, TrueClock, World

__all__ = ["OPERATIONS", "POISON", "STRANGE", "STREAM", "System"]

STREAM = "s"
STRANGE = "s3://strange/"
"""Files of a writer that is not ours."""
OPERATIONS = ("split", "split", "merge", "poison", "foreign", "upgrade", "reference")
"""What an operator may do, each as often as it is named."""
SPACE = 1 << 128
POISON = b"\x00\x01 no record of anybody's"
_SETTINGS = Settings(stream=STREAM, commit_seconds=8.0, view_flush_seconds=3.0)
_READER = ReaderSettings(idle_seconds=2.0, backoff_seconds=1.0)
_WATCH_MS = 3_000
_PASSING = (HeadwaterError, ClientError, BotoCoreError)


class _Never:
    """An event that nobody sets, waited for in simulated time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self._world.sleep(seconds * 1000)
        return False


class _FaultyKinesis:
    """The stream, with the faults that only a stream has."""

    def __init__(self, world: World, inner: MemoryKinesis) -> None:
        self._world, self._inner = world, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_records(self, **request: Any) -> Any:
        if self._world.chance("partial put"):
            count = len(request["Records"])
            self._inner.faults.partial(at for at in range(count) if self._world.random.random() < 0.5)
        return self._inner.put_records(**request)

    def get_records(self, **request: Any) -> Any:
        if self._world.chance("expired iterator"):
            raise client_error("get_records", "ExpiredIteratorException", "simulated")
        return self._inner.get_records(**request)


class System:
    """Everything of one seed. `run` returns whether all of it finished."""

    def __init__(self, world: World, operations: frozenset[str]) -> None:
        self.world = world
        self.operations = operations
        self.clock = SimClock(world)
        self.kinesis = MemoryKinesis(TrueClock(world), limits=False, reshard_seconds=1.0)
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=world.random.choice([1, 2, 2, 3]))
        self.dynamodb = GuardedDynamoDB(world)
        self.objects = MemoryObjects()
        self.objects.put("zones/1.csv", zones(1))
        self.table = MemoryTable(world)
        self.ledger = Ledger(self.dynamodb, LEDGER, PIPELINE.name)
        self.sessions = [
            Session(world, f"origin-{number}", lambda _: world.random.randrange(SPACE))
            for number in range(world.random.choice([1, 2]))
        ]
        self.batches_each = world.random.randint(2, 6)
        self.busy = 0
        self.pipeline = BEFORE
        """What processors are started with."""
        self._running: dict[str, Pipeline] = {}
        self.published = 1
        """The version of the reference table that was published, with nothing left to do."""
        self._incarnations = 0
        self.alarms = list[str]()
        """What was called missing while all went on."""
        self._watched_ms = world.now

    def run(self, until_ms: int) -> bool:
        for number in range(2):
            self._keep(f"processor-{number}", self._processor)
            self._keep(f"publisher-{number}", self._publisher)
        for number, session in enumerate(self.sessions):
            self._until_done(f"producer-{number}", partial(self._producer, session))
        self._until_done("operator", self._operator)
        if "stranger" in self.operations:
            self._until_done("stranger", self._stranger)
        try:
            return self.world.run(self._finished, until_ms)
        finally:
            self.world.close()

    # Who starts whom.

    def _keep(self, name: str, job: Callable[[str], None], delay_ms: int = 0) -> None:
        """A process that is started again, under a new name, whenever it ends."""
        self._incarnations += 1
        owner = f"{name}.{self._incarnations}"

        def again(actor: Actor) -> None:
            self._note_end(actor)
            self._keep(name, job, self.world.random.randint(100, 20_000))

        self.world.spawn(owner, partial(job, owner), again, delay_ms)

    def _until_done(self, name: str, job: Callable[[], None], delay_ms: int = 0) -> None:
        self.busy += delay_ms == 0

        def again(actor: Actor) -> None:
            if actor.crashed or actor.error is not None:
                self._note_end(actor)
                self._until_done(name, job, self.world.random.randint(100, 5_000))
            else:
                self.busy -= 1

        self.world.spawn(name, job, again, delay_ms)

    def _note_end(self, actor: Actor) -> None:
        self._running.pop(actor.process, None)
        why = "crashed" if actor.crashed else f"ended: {actor.error!r}"
        self.world.note(f"{actor.name} {why}")

    # The processes.

    def _client(self) -> Any:
        return Proxy(self.world, "kinesis", _FaultyKinesis(self.world, self.kinesis))

    def _processor(self, owner: str) -> None:
        world, pipeline = self.world, self.pipeline
        self._running[owner] = pipeline
        dynamodb = Proxy(world, "dynamodb", self.dynamodb)
        objects = Proxy(world, "s3", self.objects)
        ledger = Ledger(dynamodb, LEDGER, pipeline.name)
        ensure_initial(pipeline, ledger, objects, self._source)
        ports = Ports(
            ledger=ledger,
            objects=objects,
            views=ViewStore(dynamodb, VIEWS, clock=self.clock, chance=world.random.random),
            letters=DeadLetters(objects),
            references=ReferenceLoader(pipeline, objects),
        )
        runner = EmbeddedRunner(pipeline, self._client(), ports, _SETTINGS, self.clock, owner, _READER)
        runner.run(_Never(world), discover_seconds=5.0)  # type: ignore[arg-type]

    def _source(self, service: str) -> Any:
        """The client by which a reference table's source is read."""
        bodies = self.objects.bodies
        return Proxy(
            self.world,
            service,
            SimpleNamespace(get_object=lambda Bucket, Key: {"Body": io.BytesIO(bodies[Key])}),  # noqa: N803, ARG005
        )

    def _publisher(self, owner: str) -> None:
        world = self.world
        ledger = Ledger(Proxy(world, "dynamodb", self.dynamodb), LEDGER, PIPELINE.name)

        def port(_: str) -> Any:
            return Proxy(world, "catalog", TableSession(self.table))

        publisher = Publisher(ledger, port, self.clock, owner, lease_seconds=20.0)
        while True:
            try:
                publisher.step()
            except _PASSING as error:
                world.note(f"publisher will try again: {error}")
            world.sleep(4_000)

    def _producer(self, session: Session) -> None:
        world, client = self.world, self._client()
        writer = Writer(WriterSettings(max_records=4, give_up_ms=1 << 40), world.random.random, STREAM)
        for batch in session.outbox.batches:
            if batch.batch_id not in session.outbox.confirmed:
                writer.add(batch)
        while len(session.outbox.batches) < self.batches_each or len(writer):
            if len(session.outbox.batches) < self.batches_each and world.random.random() < 0.5:
                for batch in session.seal():
                    writer.add(batch)
            self._send(session, writer, client)
            world.sleep(world.random.randint(50, 6_000))
            if world.random.random() < 0.2:
                confirmed = session.outbox.confirmed
                self._tell(session, [one for one in session.outbox.batches if one.batch_id in confirmed], client)
        if "resend" in self.operations:  # an outbox restored from an older copy
            for batch in session.outbox.batches:
                if world.random.random() < 0.4:
                    writer.add(batch)
                    world.fired["* resend"] += 1
        while len(writer):
            self._send(session, writer, client)
            world.sleep(world.random.randint(50, 12_000))
        self._tell(session, session.outbox.batches, client)

    def _tell(self, session: Session, batches: Sequence[SealedBatch], client: Any) -> None:
        """A receipt of these, told again until every shard has it."""
        accepted = Accepted(V2)
        for batch in batches:
            accepted.add_session(session.numbers.origin, batch.first_seq, batch.count)
        for body in accepted.bodies():
            for _ in range(20):
                try:
                    put_control(client, STREAM, "receipt", body, self.clock, self.world.random.random)
                    break
                except _PASSING as error:
                    self.world.note(f"a receipt is told again: {error}")

    def _send(self, session: Session, writer: Writer, client: Any) -> None:
        batches = writer.request(self.world.now)
        if not batches:
            return
        try:
            entries = put_records(client, STREAM, batches)
        except HeadwaterError as error:
            writer.failed(error, self.world.now)
            return
        for one in writer.answered(entries, self.world.now).delivered:
            if not ("resend" in self.operations and self.world.random.random() < 0.3):
                session.outbox.confirmed.add(one.batch.batch_id)

    def _put(self, client: Any, data: bytes) -> None:
        key = str(self.world.random.randrange(SPACE))
        for _ in range(50):
            try:
                client.put_record(StreamName=STREAM, Data=data, PartitionKey="x", ExplicitHashKey=key)
                return
            except (ClientError, BotoCoreError):
                self.world.sleep(500)

    def _operator(self) -> None:
        """Splits and merges, poison, foreign events, new versions of the contract and of the reference table."""
        world, client = self.world, self._client()
        for _ in range(world.random.randint(2, 7)):
            world.sleep(world.random.randint(500, 12_000))
            what = world.random.choice(OPERATIONS)
            if what not in self.operations:
                continue
            world.note(f"* {what}")
            world.fired[f"* {what}"] += 1
            if what == "poison":
                self._put(client, POISON)
            elif what == "foreign":
                ts = world.now
                self._put(client, b'{"device": "f", "ts": %d, "value": 7}' % ts)
            elif what == "upgrade":
                self._upgrade()
            elif what == "reference":
                self._reference(client)
            else:
                self._reshard(what, client)

    def _upgrade(self) -> None:
        """Readers first: producers get the new contract when no reader with the old one is left."""
        self.pipeline = PIPELINE
        while old := {owner for owner, pipeline in self._running.items() if pipeline is BEFORE}:
            self.world.doomed |= old
            self.world.sleep(1000)
        for session in self.sessions:
            session.upgraded = True

    def _reference(self, client: Any) -> None:
        """A new version of the reference table, published again until it is."""
        world = self.world
        ledger = Ledger(Proxy(world, "dynamodb", self.dynamodb), LEDGER, PIPELINE.name)
        objects = Proxy(world, "s3", self.objects)
        version = self.published + 1
        source = self.objects.put(f"zones/{version}.csv", zones(version))
        announce = partial(put_control, client, STREAM, clock=self.clock, random=world.random.random)
        for _ in range(20):
            try:
                publish(PIPELINE, "zones", source, ledger, objects, self._source, announce)
            except _PASSING as error:
                world.note(f"publishing zones {version} again: {error}")
                world.sleep(2_000)
            else:
                self.published = version
                return

    def _stranger(self) -> None:
        """Somebody else appends to the same table now and then."""
        session = TableSession(self.table)
        for number in range(self.world.random.randint(3, 12)):
            self.world.sleep(self.world.random.randint(500, 15_000))
            try:
                session.paths()
                self.world.sleep(self.world.random.randint(1, 900))
                session.add([f"{STRANGE}{number}"])
                self.world.fired["* stranger"] += 1
            except HeadwaterError as error:
                self.world.note(f"the stranger was too slow: {error}")

    def _reshard(self, what: str, client: Any) -> None:
        random = self.world.random
        shards = sorted(
            (one for one in self.kinesis.shards(STREAM) if one.closed is None), key=lambda shard: shard.start
        )
        try:
            if what == "split":
                one = shards[random.randrange(len(shards))]
                middle = str((one.start + one.end) // 2)
                client.split_shard(StreamName=STREAM, ShardToSplit=one.shard_id, NewStartingHashKey=middle)
            elif len(shards) > 1:
                at = random.randrange(len(shards) - 1)
                client.merge_shards(
                    StreamName=STREAM,
                    ShardToMerge=shards[at].shard_id,
                    AdjacentShardToMerge=shards[at + 1].shard_id,
                )
        except (ClientError, BotoCoreError) as error:
            self.world.note(f"no reshard: {error}")

    def _finished(self) -> bool:
        self._watch()
        if self.busy or self.world.now < self.world.faults_until_ms:
            return False
        entries = {entry.shard_id: entry for entry in self.ledger.shards()}
        for shard in self.kinesis.shards(STREAM):
            entry = entries.get(shard.shard_id)
            if entry is None or entry.pending or (shard.closed is not None and not entry.closed):
                return False
            if shard.records and int(entry.position) < shard.records[-1].number:
                return False
        return True

    def _watch(self) -> None:
        """Audit what runs, every few seconds: nothing that some shard has still to read is missing."""
        if self.world.now - self._watched_ms < _WATCH_MS:
            return
        self._watched_ms = self.world.now
        entries, store = self.ledger.shards(), StateStore(PIPELINE, self.objects)
        listed = {one.shard_id: one.parents for one in self.kinesis.shards(STREAM)}
        report = audit(PIPELINE.name, entries, [store.load(entry) for entry in entries], [], listed=listed)
        missing = [f"{one.origin} {one.not_processed}" for one in report.origins if one.not_processed]
        self.world.fired["* unread"] += report.unread > 0
        self.alarms += [f"at {self.world.now}: missing {', '.join(missing)}"] if missing else []
