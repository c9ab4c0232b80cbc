"""`python -m tests.hostile`: every service with pages, over data whose every name is hostile; prints where they are.

Names that a definition would refuse are forced upon it, since a page has to be safe whoever made what it shows.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from headwater import Pipeline, count, last, tumbling
from headwater import max as greatest
from headwater.aggregates.columns import Columns
from headwater.aws import Objects
from headwater.clock import SystemClock
from headwater.commands.serving import open_reader, open_sources
from headwater.config import GatewaySettings, Settings
from headwater.contract import Contract
from headwater.ledger import Commit
from headwater.processors.alerts.machine import State
from headwater.processors.alerts.rules import absent
from headwater.processors.alerts.store import Entry
from headwater.processors.audit.report import AuditReport, ForeignAudit, OriginAudit
from headwater.processors.jobs import DOCUMENT as JOBS
from headwater.processors.jobs import Job
from headwater.processors.runners.kcl.health import PATHS, serving
from headwater.processors.runners.kcl.status import FleetStatus
from headwater.processors.scaling.heat import HeavyKey, Sample
from headwater.processors.scaling.readings import heat_document
from headwater.processors.services import Services
from headwater.serving.api.app import create_app
from headwater.serving.api.server import guarded
from headwater.serving.console.collector import Collector
from headwater.serving.console.controls import Controls
from headwater.serving.console.gate import LoginGate
from headwater.serving.console.state import ConsoleState
from headwater.sinks.deadletter import DeadLetter
from headwater.sinks.views.slots import Upsert
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects
from headwater.web.auth import Authenticator
from headwater.web.http_server import serve_in_thread
from headwater.web.keys import KeyStore
from tests.gateway import TELEMETRY, served

__all__ = ["BIDI", "SHARDS", "hostile", "paths_of", "world"]

BIDI = "\u202e\u2066\u200f"
"""Characters that turn the text behind them around: an override, an isolate, a mark."""
SHARDS = ("shardId-000000000000", "shardId-000000000001")


def hostile(kind: str, marks: str = BIDI) -> str:
    """A text that begins with its kind, and calls `hurt(kind)` or asks a foreign host in whatever place takes it."""
    call = f"hurt('{kind}')"
    return (
        f"{kind}{marks}<script>{call}</script>'\"><img src=//foreign.invalid/{kind} onerror={call}>"
        f'" :title="{call}" onmouseover="{call}" {{{{{call}}}}}${{{call}}}`${{{call}}}` javascript:{call} :{call}'
    )


def paths_of(routes: Any, head: str = "") -> Iterator[str]:
    """The paths that answer GET, with hostile parameters; without what a library serves of its own."""
    for route in routes:
        if isinstance(route, Mount):
            yield from paths_of(route.routes, head + route.path)
        elif isinstance(route, Route) and "GET" in (route.methods or ()) and "/_nicegui" not in route.path:
            names = {name: quote(hostile("parameter"), safe="") for name in route.param_convertors}
            yield head + quote(route.path_format.format(**names), safe="/%")


def _forced(value: Any, **attributes: object) -> Any:
    """A copy with values that its constructor would refuse."""
    value = replace(value)
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)
    return value


class HostileKinesis(MemoryKinesis):
    """Names its shards as it likes."""

    def list_shards(self, **request: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().list_shards(**request)
        for shard in found["Shards"]:
            shard["ShardId"] = _shard(shard["ShardId"])
        return found


def _shard(shard_id: str) -> str:
    return hostile(f"shard{SHARDS.index(shard_id)}")


def _tagged(events: pa.Table) -> pa.Table:
    return pa.table({_ADDED: events["device"]})


_ADDED = ":column" + hostile("column")


def _allowed(name: str) -> str:
    """Without what a view's name may not have."""
    return "".join(one for one in name if one not in "@/{}?#")


def pipeline() -> Pipeline:
    """Views, columns, values and an alert."""
    made = Pipeline("telemetry", contract="telemetry", allowed_lateness="2m").map(_tagged, adds={_ADDED: "string"})
    for view in ("view", "other"):
        aggregates: Any = {hostile("aggregate"): count(), ":value": last("unit"), "most": greatest("value")}
        made = made.view(_allowed(hostile(view)), by=["device", _ADDED], window=tumbling("1m"), **aggregates)
    return made.alert("silent", on=made.views[0].name, when=absent(), for_="30m", summary=hostile("summary"))


class World(Services):
    """A pipeline's services in memory."""

    @cached_property
    def tables(self) -> MemoryDynamoDB:
        made = MemoryDynamoDB()
        keys = {self.settings.ledger_table: "pipeline item", self.settings.views_table: "pk sk", "keys": "id"}
        for name, attributes in keys.items():
            made.create_table(TableName=name, KeySchema=[{"AttributeName": key} for key in attributes.split()])
        return made

    @cached_property
    def kinesis(self) -> Any:
        return HostileKinesis(self.clock, limits=False)

    @cached_property
    def objects(self) -> Objects:
        return MemoryObjects()  # type: ignore[return-value]  # in memory, in place of S3's

    def client(self, service: str) -> Any:
        assert service == "dynamodb"
        return self.tables

    def fill(self) -> None:
        now = self.clock.now_ms()
        for shard_id in SHARDS:
            self._shard(_shard(shard_id), now)
        self._rows(now)
        self.ledger.put_document("publisher", {"owner": hostile("leader")}, 0)
        decision = {"at_ms": now, "action": hostile("action"), "reasons": [hostile("why")]}
        self.ledger.put_document(f"autoscaler.{self.settings.stream}", {"decisions": [decision]}, 0)
        job_id, kind, subject, person = (hostile(one, "") for one in ("job", "kind", "subject", "person"))
        job = Job(job_id, kind, subject, person, "running", now, now, message=hostile("message"), final=True)
        self.ledger.put_document(JOBS, {"jobs": [vars(job)]}, 0)
        letter = DeadLetter(
            hostile("lettershard", ""),
            "1",
            0,
            hostile("reason"),
            hostile("o"),
            1,
            hostile("payload").encode(),
            "c",
            now,
        )
        self.letters.write(self.pipeline.name, [letter])
        rule = self.pipeline.alerts[0]
        self.alerts.save(Entry(rule.name, hostile("alertkey"), {"device": "d"}, State("firing", since_ms=now)))

    def _shard(self, shard: str, now: int) -> None:
        entry = self.ledger.claim(shard, hostile("owner"), None, now)
        counts = {"events": 3, hostile("count"): 1}
        self.ledger.commit(entry, Commit("1".zfill(56), b"", None, (), counts, now, closed=False, now_ms=now))
        heavy = (HeavyKey(hostile("heavy"), 2, 0.5),)
        sample = Sample(shard, now, 60, 10, 1, 5.0, lag_ms={hostile("consumer"): 10}, heavy=heavy)
        self.ledger.put_document(heat_document(shard), {"sample": sample.to_json()}, 0)

    def _rows(self, now: int) -> None:
        start = now // 60_000 * 60_000
        for view in self.pipeline.views:
            folded = Columns(view.aggregates)
            folded.grow(1)
            events = pa.table({"unit": [hostile("value")], "value": [1.0]})
            folded.fold(np.zeros(1, np.int64), events, np.arange(1))
            key = (hostile("key"), "hurt('added')")
            upsert = Upsert(key, start, start + 60_000, "s/0", "1".zfill(56), folded.partial(0))
            self.views.write(view.spec, [upsert])


def audited() -> AuditReport:
    origin = OriginAudit(hostile("origin"), 3, 1, 0, 1, 0, ((1, 2),), (), (), (), 0)
    return AuditReport("telemetry", (origin,), ForeignAudit(0, 0, 0, 0, 0), {}, 0, 0)


def no_table() -> Any:
    raise RuntimeError(hostile("error"))


def service(world: World, authenticator: Authenticator) -> tuple[FastAPI, Any]:
    """The query API with the console: the application with the routes, and as it is served."""
    app = create_app(open_reader(world), world.settings.serve, authenticator)
    sources = replace(open_sources(world), open_table=no_table, audit=audited)
    controls = Controls(world.stores, world.stream_client, enabled=True)
    state = ConsoleState(Collector(sources), controls, world.clock)
    return app, guarded(app, authenticator, state, key_seconds=15.0)


def fleet() -> FleetStatus:
    status = FleetStatus(silent_ms=1)
    status.started(hostile("worker"), 1)
    line = {"worker": hostile("worker"), "shard": hostile("fleetshard"), "epoch": 1}
    said = {"message": "status", "state": "reading", "lag_ms": 1, "committed": "1", "counts": {hostile("count"): 1}}
    status.heard(line | said, 0)
    status.heard(line | {"level": "error", "message": hostile("fault")}, 0)
    return status


def hostile_contract() -> Contract:
    """Its name, and those of its fields, none of which a definition could have."""
    doc = {"doc": hostile("doc"), "unit": hostile("unit")}
    fields = tuple(
        _forced(one, name=hostile("field") if one.name == "unit" else one.name, **doc) for one in TELEMETRY.fields
    )
    forced = _forced(TELEMETRY, name=hostile("contract"), description=hostile("description"), fields=fields)
    assert isinstance(forced, Contract)
    return forced


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Any]]:
    """Run the services as a process; yield what it prints."""
    command = [sys.executable, "-m", "tests.hostile"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(60)


def main() -> None:
    """Serve until standard input ends."""
    world = World(Settings(), pipeline(), SystemClock())
    world.kinesis.create_stream(StreamName=world.settings.stream, ShardCount=len(SHARDS))
    world.fill()
    store = KeyStore(world.tables, "keys", world.clock)
    _, key = store.create("operator", frozenset({"views", "console"}))
    authenticator = Authenticator(GatewaySettings(), store, None, world.clock)
    app, protected = service(world, authenticator)
    contract = hostile_contract()
    with ExitStack() as stack:
        gateway = stack.enter_context(served(contracts=(contract,), otlp=False))
        serve = stack.enter_context(serve_in_thread(protected, 0))
        port = stack.enter_context(serving(fleet(), world.clock, "127.0.0.1", 0))
        found = {
            str(gateway.client.base_url): [*paths_of(gateway.app.routes)],
            serve: [*paths_of(app.routes), *LoginGate.PATHS, "/" + quote(hostile("path"), safe="")],
            f"http://127.0.0.1:{port}": [*PATHS, "/" + quote(hostile("path"), safe="")],
        }
        print(json.dumps({"key": key, "console": serve, "paths": found}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
