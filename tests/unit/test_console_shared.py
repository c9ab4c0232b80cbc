"""What all open pages share: questions that fail or hang by themselves, letters that are sent once, jobs that end."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from starlette.testclient import TestClient

from headwater.aws import Objects
from headwater.clock import ManualClock
from headwater.commands.serving import _with_short_timeouts, open_reader, open_sources
from headwater.config import GatewaySettings, ServeSettings, Settings
from headwater.errors import UsageError
from headwater.processors.definition.loading import load
from headwater.processors.jobs import Jobs
from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.readings import heat_document
from headwater.processors.services import Services
from headwater.serving.api.app import create_app
from headwater.serving.console import state as state_module
from headwater.serving.console.collector import Collector
from headwater.serving.console.controls import Controls
from headwater.serving.console.jobs import cancel_summary
from headwater.serving.console.letter_reader import CachedLetterStore, Letters
from headwater.serving.console.overview import TableFigures
from headwater.serving.console.polling import Poll
from headwater.serving.console.state import ConsoleState
from headwater.sinks.deadletter import DeadLetter
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore

SHARD = "shardId-000000000000"


class Counted(MemoryObjects):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def get(self, key: str) -> bytes:
        self.read += 1
        return super().get(key)


class Tables(MemoryDynamoDB):
    """Counts requests that read."""

    requests = 0

    def get_item(self, **request: Any) -> Any:
        self.requests += 1
        return super().get_item(**request)

    def query(self, **request: Any) -> Any:
        self.requests += 1
        return super().query(**request)


class Plant(Services):
    """A pipeline without any processes, in memory."""

    def __init__(self, *, controls: bool = True) -> None:
        settings = Settings(serve=ServeSettings(controls=controls))
        super().__init__(settings, load(settings.pipeline), ManualClock(1_000_000))
        self.kinesis.create_stream(StreamName=settings.stream, ShardCount=2)

    @cached_property
    def tables(self) -> Tables:
        made = Tables()
        by_id = [{"AttributeName": "id", "KeyType": "HASH"}]
        made.create_table(TableName=self.settings.gateway.keys_table, KeySchema=by_id)
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        made.create_table(TableName=self.settings.ledger_table, KeySchema=keys)
        return made

    @cached_property
    def memory_kinesis(self) -> MemoryKinesis:
        return MemoryKinesis(self.clock, limits=False)

    @cached_property
    def counted(self) -> Counted:
        return Counted()

    @property
    def kinesis(self) -> Any:
        return self.memory_kinesis

    @property
    def objects(self) -> Objects:
        return self.counted  # type: ignore[return-value]  # letters that are counted

    def client(self, service: str) -> Any:
        assert service == "dynamodb"
        return self.tables

    def sent(self) -> list[bytes]:
        return [record.data for shard in self.memory_kinesis.shards(self.settings.stream) for record in shard.records]

    def bury(self, count: int, first: int = 0) -> None:
        self.letters.write(self.pipeline.name, [letter(number) for number in range(first, first + count)])


def letter(number: int) -> DeadLetter:
    return DeadLetter(SHARD, str(number + 1), None, "why", None, None, f"poison {number}".encode(), "c", 0)


@pytest.fixture
def plant() -> Plant:
    return Plant()


def collector_of(plant: Plant) -> Collector:
    return Collector(open_sources(plant))


def controls_of(plant: Plant) -> Controls:
    return Controls(plant.stores, plant.stream_client, enabled=plant.settings.serve.controls)


def run(work: Callable[[ConsoleState], Coroutine[Any, Any, Any]], plant: Plant) -> Any:
    async def main() -> Any:
        return await work(ConsoleState(collector_of(plant), controls_of(plant), plant.clock))

    return asyncio.run(main())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_an_error_stays_until_that_question_is_answered(pool: ThreadPoolExecutor) -> None:
    """And the answer keeps the age that it has."""
    clock, answers = ManualClock(5_000), iter([1, 0, 2])

    def ask() -> int:
        found = next(answers)
        if not found:
            raise RuntimeError("denied")
        return found

    async def main() -> list[Any]:
        bad, good = Poll("bad", ask, 2, clock, pool), Poll("good", lambda: 7, 2, clock, pool)
        said = []
        for _ in range(3):
            clock.sleep(10)
            bad.refresh_if_due()
            good.refresh_if_due()
            await asyncio.gather(bad.refresh(), good.refresh())
            said.append((bad.value, bad.age_ms(), bad.error))
        return said

    assert asyncio.run(main()) == [(1, 0, ""), (1, 10_000, "RuntimeError: denied"), (2, 0, "")]


def test_one_that_takes_long_is_asked_for_seldom(pool: ThreadPoolExecutor) -> None:
    """A tenth of the time at most, unless it fails: then as soon as any other."""
    clock, asked = ManualClock(0), list[int]()

    def ask() -> None:
        asked.append(clock.now_ms())
        clock.sleep(30)
        if len(asked) == 2:
            raise RuntimeError("denied")

    async def main() -> None:
        poll = Poll("audit", ask, 60, clock, pool, max_share=0.1)
        for _ in range(50):
            poll.refresh_if_due()
            while poll.is_running:
                await asyncio.sleep(0.001)
            clock.sleep(10)

    asyncio.run(main())
    assert asked == [0, 300_000, 360_000]


def test_one_that_hangs_keeps_none_of_the_others(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is asked once, however often it is due."""
    hanging, calls = Event(), []

    def audit(self: Collector) -> None:
        calls.append(1)
        hanging.wait(20)

    monkeypatch.setattr(Collector, "audit", audit)
    monkeypatch.setattr(Collector, "table_state", lambda _: TableFigures())

    async def work(state: ConsoleState) -> None:
        for _ in range(3):
            state.refresh_due()
            await asyncio.gather(state.overview.refresh(), state.letters.refresh(), state.alerts.refresh())
            plant.clock.sleep(70)
        assert (state.audit.is_running, state.audit.value) == (True, None)
        assert state.overview.at_ms == 1_140_000
        hanging.set()
        await state.audit.refresh()

    run(work, plant)
    assert len(calls) == 1


def test_nothing_is_asked_while_no_page_is_open(plant: Plant) -> None:
    async def work(_: ConsoleState) -> int:
        await asyncio.sleep(0.05)
        return plant.tables.requests

    assert run(work, plant) == 0


def test_a_look_is_few_requests_however_many_shards_there_are(plant: Plant) -> None:
    for number in range(2):
        shard = f"shardId-{number:012d}"
        plant.ledger.claim(shard, "me", None, 1)
        sample = Sample(shard, 1_000_000, 60, 10, 1, 5.0, lag_ms={"p": 2_000})
        plant.ledger.put_document(heat_document(shard), {"sample": sample.to_json()}, 0)
    collector = collector_of(plant)
    before = plant.tables.requests
    found = collector.overview()
    assert plant.tables.requests - before == 2
    assert [row.lag_ms for row in found.shards] == [2_000, 2_000]
    assert found.hops[0].per_second == 10


def test_rates_are_sent_every_ten_seconds_and_have_gaps(plant: Plant) -> None:
    """Where nobody looked there is no line."""
    collector = collector_of(plant)
    for seconds in (0, 2, 8, 2, 300):
        plant.clock.sleep(seconds)
        points = collector.overview().points
    assert [at for at, _ in points] == [1_000_000, 1_010_000, 1_311_999, 1_312_000]
    assert points[2][1] == {}


def test_letters_that_wait_are_read_once(plant: Plant) -> None:
    plant.bury(30)
    collector = collector_of(plant)
    assert [len(collector.letters().shown), plant.counted.read] == [30, 1]
    plant.bury(1, first=30)
    found = collector.letters()
    assert [found.waiting, len(found.shown), plant.counted.read] == [31, 31, 2]
    assert collector.overview().hops[-1].needs_attention


def test_all_letters_are_sent_not_only_those_shown(plant: Plant) -> None:
    """And those that come back meanwhile wait for another time."""
    plant.bury(300)
    heard: list[tuple[int, int]] = []

    def told(sent: int, of: int) -> None:
        heard.append((sent, of))
        plant.bury(1, first=1_000 + sent)

    assert controls_of(plant).redrive(None, told) == 300
    assert sorted(plant.sent()) == sorted(letter(number).payload for number in range(300))
    assert heard[-1] == (300, 300)
    assert len(list(plant.letters.list(plant.pipeline.name))) == 300


def test_letters_are_sent_once_however_often_it_is_pressed(plant: Plant) -> None:
    plant.bury(250)

    async def work(state: ConsoleState) -> list[Any]:
        await state.letters.refresh()
        both = await asyncio.gather(state.redrive(None), state.redrive(None), return_exceptions=True)
        assert isinstance(both[1], UsageError)
        assert state.redriving is None
        assert state.letters.value == Letters()
        return [both[0], await state.redrive(None)]

    assert run(work, plant) == [250, 0]
    assert len(plant.sent()) == 250


def test_chosen_letters_are_those_that_still_wait(plant: Plant) -> None:
    plant.bury(5)
    names = [letter(number).name for number in (1, 3)]

    async def work(state: ConsoleState) -> list[int]:
        return [await state.redrive(names), await state.redrive(names)]

    assert run(work, plant) == [2, 0]
    assert sorted(plant.sent()) == [b"poison 1", b"poison 3"]


def test_a_letter_that_cannot_be_sent_stops_the_sending_and_stays(plant: Plant) -> None:
    plant.bury(5)
    put, calls = plant.memory_kinesis.put_records, []

    def fails(**request: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "PutRecords")
        if len(calls) > 2:
            return put(**request)
        first = put(**request | {"Records": request["Records"][:2]})["Records"]
        slow = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
        return {"FailedRecordCount": 3, "Records": [*first, slow, slow, slow]}

    plant.memory_kinesis.put_records = fails  # type: ignore[method-assign]  # a double

    async def work(state: ConsoleState) -> int:
        with pytest.raises(ClientError):
            await state.redrive(None)
        return await state.redrive(None)

    assert run(work, plant) == 3
    assert len(plant.sent()) == 5


def test_a_listing_is_as_of_its_beginning() -> None:
    objects = Counted()
    objects.put("a/1", b"1")
    box = CachedLetterStore(objects)
    listed = box.list("a/")
    objects.put("a/2", b"2")
    assert list(listed) == ["a/1"]


def test_a_console_that_only_reads_sends_nothing_again() -> None:
    controls = controls_of(Plant(controls=False))
    with pytest.raises(UsageError, match="HEADWATER_SERVE_CONTROLS"):
        controls.redrive([], lambda *_: None)
    with pytest.raises(UsageError, match="HEADWATER_SERVE_CONTROLS"):
        controls.cancel([])


def test_each_job_is_cancelled_by_itself(plant: Plant) -> None:
    """One that has ended already keeps none of the others from ending."""
    jobs = Jobs(plant.ledger, plant.clock)
    with jobs.run("replay", "of a", "me"):
        ended = jobs.all()[0].id
    with jobs.run("replay", "of b", "me"):
        running = jobs.all()[0].id
        assert list(controls_of(plant).cancel([ended, "nonsense", running])) == [ended, "nonsense"]
        assert jobs.get(running).cancel
    assert cancel_summary([ended, running], {ended: "it is done"}) == f"{running} asked to end; it is done"


def test_looking_gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts wait longer: an answer that is not waited for may have been a yes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    settings = Settings()
    config = _with_short_timeouts(Services(settings, load(settings.pipeline))).ledger._client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (2, 8, 2)


def test_there_is_a_thread_for_every_question_and_some_for_acts(plant: Plant) -> None:
    async def work(state: ConsoleState) -> int:
        return len(state.polls)

    assert run(work, plant) + 4 <= state_module._THREADS


def test_unknown_paths_of_the_api_are_its_own(plant: Plant) -> None:
    """Problem details, and behind the key: not the console's page of what is not found."""
    store = KeyStore(plant.tables, plant.settings.gateway.keys_table, plant.clock)
    app = create_app(
        open_reader(plant), plant.settings.serve, Authenticator(GatewaySettings(), store, None, plant.clock)
    )
    app.mount("/", SimpleNamespace(__call__=None))  # type: ignore[arg-type]  # any app will do
    client = TestClient(app)
    _, key = store.create("reader", frozenset({"views"}))
    for path in ("/v1/nonsense", "/v1/", "/v1", "/v1/views/../x/y/z"):
        assert client.get(path).status_code == 401
        answer = client.get(path, headers={"x-api-key": key})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert client.post("/v1/alerts", headers={"x-api-key": key}).status_code == 405
    assert client.get("/v1/views", headers={"x-api-key": key}).status_code == 200
