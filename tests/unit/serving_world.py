"""Views in memory, served: what the tests of the query API share."""

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI
from starlette.testclient import TestClient

from headwater.aggregates.columns import Columns
from headwater.clock import Clock, ManualClock
from headwater.commands.serving import open_reader
from headwater.config import ServeSettings, Settings
from headwater.ledger import Commit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.services import Services
from headwater.serving.api.app import create_app
from headwater.sinks.views.slots import Upsert
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.web.auth import Authenticator

__all__ = ["MINUTE", "START", "Failing", "World"]

START = 1_762_160_400_000
"""2025-11-03T09:00:00Z."""
MINUTE = 60_000


class Failing:
    """A client whose calls fail while `error` says so: all, or those on `table`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.error: Exception | None = None
        self.table = ""

    def __getattr__(self, name: str) -> Any:
        return partial(self._asked, getattr(self._client, name))

    def get_paginator(self, operation: str) -> Any:
        """Its pages fail likewise."""

        def pages(**given: Any) -> Iterator[Any]:
            yield from self._asked(self._client.get_paginator(operation).paginate, **given)

        return SimpleNamespace(paginate=pages)

    def _asked(self, call: Callable[..., Any], **given: Any) -> Any:
        table = given.get("TableName") or next(iter(given.get("RequestItems", {})), "")
        if self.error is not None and self.table in ("", table):
            raise self.error
        return call(**given)


class World(Services):
    """A pipeline's services over tables and a stream in memory, one shard read up to START."""

    def __init__(self, pipeline: Pipeline, clock: Clock | None = None) -> None:
        super().__init__(Settings(), pipeline, clock or ManualClock(START))
        tables, kinesis = MemoryDynamoDB(), MemoryKinesis(self.clock)
        for name, keys in ((self.settings.ledger_table, "pipeline item"), (self.settings.views_table, "pk sk")):
            tables.create_table(TableName=name, KeySchema=[{"AttributeName": key} for key in keys.split()])
        kinesis.create_stream(StreamName=self.settings.stream, ShardCount=1)
        object.__setattr__(self, "tables", Failing(tables))
        object.__setattr__(self, "streams", kinesis)
        entry = self.ledger.claim("shardId-000000000000", "me", None, START)
        change = Commit("1".zfill(56), b"", None, (), {}, START, closed=False, now_ms=START)
        self.ledger.commit(entry, change)

    tables: Failing

    def client(self, service: str) -> Any:
        return {"dynamodb": self.tables, "kinesis": self.__dict__["streams"]}[service]

    def write(self, view: str, key: tuple[object, ...], minute: int, version: int = 1, **columns: list[Any]) -> None:
        """A row of one slot, of events with these columns."""
        spec = self.view_specs[view]
        table, folded = pa.table(columns), Columns(spec.aggregates)
        folded.grow(1)
        folded.fold(np.zeros(len(table), np.int64), table, np.arange(len(table)))
        start = START + minute * MINUTE
        upsert = Upsert(key, start, start + MINUTE, "s/0", str(version).zfill(56), folded.partial(0))
        self.views.write(spec, [upsert])

    def app(self, authenticator: Authenticator | None = None, **settings: Any) -> FastAPI:
        return create_app(open_reader(self), ServeSettings(**({"cache_seconds": 0} | settings)), authenticator)

    def asking(self, authenticator: Authenticator | None = None, **settings: Any) -> TestClient:
        """A fault of the service, which the server would log with its traceback, is raised here."""
        return TestClient(self.app(authenticator, **settings))
