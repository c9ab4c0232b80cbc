"""The system of one seed: real runners, publishers and producers over services in memory, all on simulated time."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.ledger import Ledger, ShardEntry
from headwater.processors.audit.audit import audit
from headwater.processors.controls import ControlCheck
from headwater.processors.definition.claims import REGISTRY, claim_names
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.references import ReferenceLoader, ensure_initial
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.shard.context import Ports
from headwater.processors.shard.snapshots import StateStore
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.lake.catalog import IcebergTable
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.quarantine import quarantined_files
from headwater.sinks.views.store import ViewStore
from headwater.stream.shards import list_shards
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.memoryshards import MemoryShard, StoredRecord
from tests.simulation.alerting import Alerting
from tests.simulation.bucket import SimulatedObjects
from tests.simulation.catalog import CatalogSession, SimulatedTable
from tests.simulation.foreigners import Foreigners
from tests.simulation.keepers import Eraser, Keeper
from tests.simulation.ledgerguard import LEDGER, VIEWS, GuardedDynamoDB
from tests.simulation.operator import PASSING, Operator
from tests.simulation.passing import Passing
from tests.simulation.producers import CONTROL_KEY, Application, Meter
from tests.simulation.rebuilder import Rebuilder
from tests.simulation.replayer import Replayer
from tests.simulation.rivals import Rivals
from tests.simulation.services import FaultyKinesis, NeverStopped
from tests.simulation.strangers import Strangers
from tests.simulation.twins import Twins
from tests.simulation.workload import FLAVOURS, Event, Truth, zones
from tests.simulation.world import Actor, Proxy, SimClock, TrueClock, World

__all__ = ["STREAM", "System"]

STREAM = "s"
_SETTINGS = Settings(stream=STREAM, commit_seconds=8.0, view_flush_seconds=3.0)
_READER = ReaderSettings(idle_seconds=2.0, backoff_seconds=1.0)
_WATCH_MS = 3_000


class System:
    """Everything of one seed. `run` returns whether all of it finished."""

    def __init__(self, world: World, operations: frozenset[str], disk: Path) -> None:
        self.world = world
        self.settings = _SETTINGS
        self.operations = operations
        random = world.random
        self.long = random.random() < 0.15 and "months" in operations
        own = random.random() < 0.3 and "own ids" in operations
        sends = random.random() < 0.4 and "to stream" in operations
        self.flavour = FLAVOURS[own, sends]
        world.fired["* own ids"] += self.flavour.own
        self.after = self.flavour.after
        self.truth = Truth(world, self.flavour.own, random_ids=random.random() < 0.5)
        self.foreign: dict[int, Event] = {}
        """Events of writers that are not ours."""
        self.clock = SimClock(world)
        self.kinesis = MemoryKinesis(TrueClock(world), limits=False, reshard_seconds=1.0)
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=world.random.choice([1, 2, 2, 3]))
        self.dynamodb = GuardedDynamoDB(world)
        self.objects = SimulatedObjects(world)
        self.objects.put("zones/1.csv", zones(1))
        self.table = SimulatedTable(world, self.objects, self.after)
        self.ledger = Ledger(self.dynamodb, LEDGER, self.after.name)
        self.strangers = Strangers(
            world, self.table, self.objects, self.after.lake_schema, self.pending, self.quarantined
        )
        self.applications = [
            Application(
                world,
                self.truth,
                self.flavour,
                STREAM,
                disk / f"outbox-{number}.db",
                random.randint(5, 25),
                operations,
            )
            for number in range(random.choice([1, 2]))
        ]
        self.meter = Meter(world, self.truth, self.flavour, STREAM, disk / "meter.db", random.randint(3, 10))
        self.meter.clash = random.random() < 0.3 and "clash" in operations
        self.twins = Twins(world, self.truth, self.flavour, STREAM, random.randint(4, 10) * (random.random() < 0.5))
        self.foreigners = Foreigners(world, STREAM, lambda: self.kinesis.shards(STREAM))
        self.rivals = Rivals(world, self.dynamodb, _SETTINGS)
        self.eraser: Eraser | None = None
        self.alerting: Alerting | None = None
        if random.random() < 0.5 and "alerts" in operations:
            self.alerting = Alerting(self, STREAM, random.choice([0.0, 20.0]))
        self.passing = Passing(self, _READER) if sends else None
        self.archive: dict[str, list[StoredRecord]] = {}
        """The records of each shard before time went by."""
        self.remade = random.random() < 0.15 and "remake" in operations
        self._shards: list[MemoryShard] = []
        """Those of the stream that was deleted."""
        self.refusals = 0
        """Processors that ended because they must not go on."""
        self.busy = 0
        self.pipeline = self.flavour.before
        """What processors are started with."""
        self.running: dict[str, Pipeline] = {}
        self.published = 1
        """The version of the reference table that was published, with nothing left to do."""
        self._incarnations = 0
        self.alarms = list[str]()
        """What was called missing while all went on."""
        self._watched_ms = world.now
        self._seen: tuple[list[ShardEntry], Mapping[str, Sequence[str]]] = [], {}
        """What the last look saw, with what it found."""
        self._missing, self._unread = list[str](), False
        self._states = dict[tuple[str, bytes | str | None], ShardState]()
        """States as they were read for the last look, which nobody changes."""

    def run(self, until_ms: int) -> bool:
        for number in range(2):
            self._keep(f"processor-{number}", self._processor)
            self._keep(f"publisher-{number}", self._publisher)
        for name in ("alerts-0", "alerts-1") if self.alerting else ():
            self._keep(name, self._alerts)
        if self.passing is not None:
            self._keep("next", self.passing.run)
        for number, application in enumerate(self.applications):
            self._until_done(f"producer-{number}", partial(self._producer, application))
        if "meter" in self.operations and not self.flavour.own:
            self._until_done("meter", lambda: self.meter.run(self.client()))
        if self.twins.left and "twins" in self.operations:
            self._until_done("twins", lambda: self.twins.run(self.client()) if self.twins.left else None)
        for name in ("rival-0", "rival-1") if "rivals" in self.operations else ():
            self._until_done(name, partial(self.rivals.start, name))
        self._start_jobs()
        self._until_done("operator", Operator(self, STREAM).run)
        if "stranger" in self.operations:
            self._until_done("stranger", self.strangers.append)
        if "rewrite" in self.operations:
            self._until_done("rewriter", self.strangers.rewrite)
        try:
            if not self.world.run(self._finished, until_ms):
                return False
            return (not self.long or self._second_act()) and (not self.remade or self._third_act())
        finally:
            self.world.close()

    def _start_jobs(self) -> None:
        """What somebody may call for once, and again until it is done."""
        random = self.world.random
        jobs = {name for name in ("replay", "rebuild", "compact", "forget", "rollback") if random.random() < 0.4}
        jobs &= self.operations
        if "replay" in jobs:
            self._until_done("replayer", Replayer(self, STREAM).run)
        if "rebuild" in jobs:
            self._until_done("rebuilder", Rebuilder(self, STREAM).run)
        if "rollback" in jobs:
            self._until_done("rollback", self.strangers.turn_back)
        if "compact" in jobs:
            self._until_done("keeper", Keeper(self).run)
        if "forget" in jobs:
            self.eraser = Eraser(self, "rebuild" in jobs)
            self._until_done("eraser", self.eraser.run)

    def _second_act(self) -> bool:
        """Forty days later: the stream has forgotten what it had, and producers go on."""
        world = self.world
        self.archive = {shard.shard_id: list(shard.records) for shard in self.kinesis.shards(STREAM)}
        world.now += 40 * 86_400_000
        world.faults_until_ms = world.now + 30_000
        world.fired["* months"] += 1
        world.note("* forty days later")
        if self.alerting is not None:
            self.alerting.skip()
        for number, application in enumerate(self.applications):
            application.left = world.random.randint(3, 9)
            self._until_done(f"producer-{number}", partial(self._producer, application))
        return world.run(self._finished, world.now + 1_800_000)

    def _third_act(self) -> bool:
        """Somebody deletes the stream and makes another of its name: nothing of it may be taken for the first one's."""
        world = self.world
        self._shards = self.kinesis.shards(STREAM)
        before = {entry.shard_id: entry.position for entry in self.ledger.shards()}
        self.refusals = 0
        self.kinesis.delete_stream(StreamName=STREAM)
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=world.random.choice([1, 2]))
        world.fired["* remake"] += 1
        world.note("* the stream is made again")
        for _ in range(3):
            self.kinesis.put_record(StreamName=STREAM, Data=b'{"device": "again"}', PartitionKey="x")
        for number in range(2):
            world.doomed |= {owner for owner in self.running if owner.startswith(f"processor-{number}")}
        world.run(lambda: False, world.now + 120_000)
        if {entry.shard_id: entry.position for entry in self.ledger.shards()} != before:
            self.alarms.append("a stream made again was read as if it were the old one")
        if not self.refusals:
            self.alarms.append("no processor said that the stream was made again")
        return True

    def pending(self) -> set[str]:
        """Files that the ledger has."""
        return {file.uri for entry in self.ledger.shards() for file in entry.pending}

    def quarantined(self) -> set[str]:
        """Files of which nobody knows whether the table had them."""
        return {file.uri for file in quarantined_files(self.ledger)}

    def shards(self) -> list[MemoryShard]:
        """The shards of the stream that this run is about, open and closed."""
        return self._shards or self.kinesis.shards(STREAM)

    def records(self, shard: MemoryShard) -> list[StoredRecord]:
        """Every record that a shard has ever had."""
        before = self.archive.get(shard.shard_id, [])
        last = before[-1].number if before else 0
        return [*before, *(one for one in shard.records if one.number > last)]

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
        self.running.pop(actor.process, None)
        self.refusals += isinstance(actor.error, UsageError)
        why = "crashed" if actor.crashed else f"ended: {actor.error!r}"
        self.world.note(f"{actor.name} {why}")

    # The processes.

    def client(self) -> Any:
        """A process's own client of the stream."""
        return Proxy(self.world, "kinesis", FaultyKinesis(self.world, self.kinesis))

    def _processor(self, owner: str) -> None:
        world, pipeline = self.world, self.pipeline
        self.running[owner] = pipeline
        ports = self.ports(pipeline)
        registry = Ledger(Proxy(world, "dynamodb", self.dynamodb), LEDGER, REGISTRY)
        claim_names(pipeline, _SETTINGS, "memory", registry)
        ensure_initial(pipeline, ports.ledger, ports.objects, self.source)
        runner = EmbeddedRunner(pipeline, self.client(), ports, _SETTINGS, self.clock, owner, _READER)
        runner.run(NeverStopped(world), discover_seconds=5.0)  # type: ignore[arg-type]  # it has what an event has

    def ports(self, pipeline: Pipeline) -> Ports:
        """A process's own clients of all that a pipeline's shards work on."""
        dynamodb = Proxy(self.world, "dynamodb", self.dynamodb)
        objects: Any = Proxy(self.world, "s3", self.objects)
        ledger = Ledger(dynamodb, LEDGER, pipeline.name)
        return Ports(
            ledger=ledger,
            objects=objects,
            views=ViewStore(dynamodb, VIEWS, clock=self.clock, chance=self.world.random.random),
            letters=DeadLetters(objects),
            references=ReferenceLoader(pipeline, objects),
            check_control=ControlCheck(CONTROL_KEY, pipeline.name, ledger),
            streams=self.passing.streams() if self.passing and pipeline.streams else None,
        )

    def source(self, service: str) -> Any:
        """The client by which a reference table's source is read."""
        bodies = self.objects.bodies
        return Proxy(
            self.world,
            service,
            SimpleNamespace(get_object=lambda Bucket, Key: {"Body": io.BytesIO(bodies[Key])}),  # noqa: N803, ARG005 (boto3's names)
        )

    def publisher(self, owner: str) -> Publisher:
        """A publisher of a process's own."""
        ledger = Ledger(Proxy(self.world, "dynamodb", self.dynamodb), LEDGER, self.after.name)
        catalog: Any = CatalogSession(self.table, self.world)
        return Publisher(ledger, partial(IcebergTable, catalog, "db"), self.clock, owner, lease_seconds=20.0)

    def _publisher(self, owner: str) -> None:
        world = self.world
        publisher = self.publisher(owner)
        while True:
            try:
                publisher.step()
            except PASSING as error:
                world.note(f"publisher will try again: {error}")
            world.sleep(4_000)

    def _alerts(self, owner: str) -> None:
        assert self.alerting is not None
        self.alerting.run(owner, NeverStopped(self.world))

    def _producer(self, application: Application) -> None:
        while True:
            application.run(self.client())
            if not application.left:
                return
            self.world.sleep(self.world.random.randint(50, 6_000))

    def _finished(self) -> bool:
        self._watch()
        if self.busy or self.world.now < self.world.faults_until_ms:
            return False
        entries = {entry.shard_id: entry for entry in self.ledger.shards()}
        if {file.uri for entry in entries.values() for file in entry.pending} - self.quarantined():
            return False
        for shard in self.kinesis.shards(STREAM):
            entry = entries.get(shard.shard_id)
            if entry is None or (shard.closed is not None and not entry.closed):
                return False
            if shard.records and int(entry.position) < shard.records[-1].number:
                return False
        return not self._forgets_again() and all(one.is_settled() for one in (self.alerting, self.passing) if one)

    def _forgets_again(self) -> bool:
        if self.eraser is None or not self.eraser.is_undone():
            return False
        self.world.fired["* forget again"] += 1
        self.eraser.after = None
        self._until_done("eraser", self.eraser.run)
        return True

    def _watch(self) -> None:
        """Audit what runs, every few seconds: nothing that some shard has still to read is missing."""
        if self.world.now - self._watched_ms < _WATCH_MS:
            return
        self._watched_ms = self.world.now
        entries = self.ledger.shards()
        listed = {one.shard_id: one.parents for one in list_shards(self.kinesis, STREAM)}
        if (entries, listed) != self._seen:  # else it is as it was said the last time
            self._seen, self._missing, self._unread = (entries, listed), *self._audited(entries, listed)
        key = self.eraser.key if self.eraser and self.flavour.own else None  # a receipt may come after the forgetting
        missing = [one for one in self._missing if not one.startswith(f"{key} ")]
        self.world.fired["* unread"] += self._unread
        self.alarms += [f"at {self.world.now}: missing {', '.join(missing)}"] if missing else []

    def _audited(self, entries: list[ShardEntry], listed: Mapping[str, Sequence[str]]) -> tuple[list[str], bool]:
        """What an audit of the shards calls missing, and whether some is still to be read."""
        # without the views, which no audit looks at
        bare, known = Pipeline(self.after.name, self.after.contract), self._states
        store = StateStore(bare, self.objects)
        self._states = {}
        for entry in entries:
            at = entry.shard_id, entry.state_key or entry.state
            self._states[at] = known.get(at) or store.load(entry)
        report = audit(self.after.name, entries, list(self._states.values()), [], listed=listed)
        return [f"{one.origin} {one.not_processed}" for one in report.origins if one.not_processed], report.unread > 0
