"""The operator of a run, who reshards, deploys and publishes, while others put what they like on the stream."""

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.announcing import put_control
from headwater.errors import HeadwaterError
from headwater.ledger import Ledger
from headwater.processors.references import publish
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.producers import CONTROL_KEY
from tests.simulation.workload import PASSED, Event, zones
from tests.simulation.world import Proxy

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["OPERATIONS", "PASSING", "Operator"]

OPERATIONS = ("split", "split", "merge", "poison", "foreign", "aggregate", "upgrade", "reference")
"""What an operator may do, each as often as it is named."""
PASSING = (HeadwaterError, ClientError, BotoCoreError)


class Operator:
    """One person's doings, in an order that the seed decides."""

    def __init__(self, system: "System", stream: str) -> None:
        self.system, self.world, self.stream = system, system.world, stream

    def run(self) -> None:
        """Do a few things, with pauses. Started again after a crash, it does others."""
        world, client = self.world, self.system.client()
        for _ in range(world.random.randint(2, 8)):
            world.sleep(world.random.randint(500, 12_000))
            what = world.random.choice(OPERATIONS)
            if what not in self.system.operations:
                continue
            world.note(f"* {what}")
            world.fired[f"* {what}"] += 1
            if what == "poison":
                self.system.foreigners.put_odd(client)
            elif what == "foreign":
                self.system.foreigners.put(client, json.dumps(self._event().row).encode())
            elif what == "aggregate":
                events = [self._event() for _ in range(world.random.randint(2, 5))]
                self.system.foreigners.put_aggregate(client, events)
            elif what == "upgrade":
                self._upgrade()
            elif what == "reference":
                self._reference(client)
            else:
                self._reshard(what, client)

    def _event(self) -> Event:
        """A new event of a writer that is not ours."""
        system = self.system
        event = replace(system.truth.event(device="foreign"), value=7)
        system.truth.events[event.n] = system.foreign[event.n] = event
        return event

    def _upgrade(self) -> None:
        """Readers first: producers get the new contract when no reader with the old one is left."""
        system = self.system
        system.pipeline = system.after
        while old := {owner for owner, pipeline in system.running.items() if pipeline is system.flavour.before}:
            self.world.doomed |= old
            self.world.sleep(1000)
        for application in system.applications:
            application.upgraded = True

    def _reference(self, client: Any) -> None:
        """A new version of the reference table, published again until it is."""
        world, system = self.world, self.system
        ledger = Ledger(Proxy(world, "dynamodb", system.dynamodb), LEDGER, system.after.name)
        objects = Proxy(world, "s3", system.objects)
        version = system.published + 1
        source = system.objects.put(f"zones/{version}.csv", zones(version))
        announce = partial(
            put_control, client, self.stream, clock=system.clock, random=world.random.random, key=CONTROL_KEY
        )
        for _ in range(20):
            try:
                publish(system.after, "zones", source, ledger, objects, system.source, announce)
            except PASSING as error:
                world.note(f"publishing zones {version} again: {error}")
                world.sleep(2_000)
            else:
                system.published = version
                return

    def _reshard(self, what: str, client: Any) -> None:
        random = self.world.random
        stream = random.choice([self.stream, PASSED]) if self.system.passing else self.stream
        shards = sorted(
            (one for one in self.system.kinesis.shards(stream) if one.closed is None),
            key=lambda shard: shard.start,
        )
        try:
            if what == "split":
                one = shards[random.randrange(len(shards))]
                middle = str((one.start + one.end) // 2)
                client.split_shard(StreamName=stream, ShardToSplit=one.shard_id, NewStartingHashKey=middle)
            elif len(shards) > 1:
                at = random.randrange(len(shards) - 1)
                client.merge_shards(
                    StreamName=stream,
                    ShardToMerge=shards[at].shard_id,
                    AdjacentShardToMerge=shards[at + 1].shard_id,
                )
        except (ClientError, BotoCoreError) as error:
            self.world.note(f"no reshard: {error}")
