"""The alerts service, two processes of it, over the view by time: what they read, and what two targets were told."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ReadTimeoutError

from headwater.ledger import Ledger
from headwater.processors.alerts.events import About
from headwater.processors.alerts.progress import DOCUMENT
from headwater.processors.alerts.publishers import publish_to
from headwater.processors.alerts.readings import WindowSpan
from headwater.processors.alerts.rules import Rule
from headwater.processors.alerts.service import AlertPorts, Alerts, Turn
from headwater.processors.alerts.store import AlertStore
from headwater.processors.generations import Serving
from headwater.processors.ports import PipelineStores, StreamClient
from headwater.processors.watermark import final_until
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.store import ViewStore
from headwater.stream.shards import list_shards
from tests.simulation.ledgerguard import LEDGER, VIEWS
from tests.simulation.workload import WINDOW_MS
from tests.simulation.world import Proxy

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["Alerting", "InlinePool", "Reading", "Told"]

_TARGETS = "arn:aws:sns:eu-west-1:111122223333:alerts,https://sqs.test/111122223333/alerts"
_PERIOD_SECONDS = 8.0
_SKEW_MS, _BEFORE_MS = 90_000, 120_000
_MOST_FAILURES = 3
Reading = tuple[int, int, Mapping[int, Mapping[str, int]]]
"""Of windows that end in `(after, until]`, by end, the events of each key that has a row."""
Told = Mapping[str, Any]
"""An event, as a target has it."""


class InlinePool:
    """A pool without threads: who hands work in does it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *given: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(work(*given))
        except Exception as error:  # a crash ends the process at once
            done.set_exception(error)
        return done

    def map(self, work: Callable[..., Any], *of: Iterable[Any]) -> Iterator[Any]:
        return iter([work(*one) for one in zip(*of, strict=False)])


@dataclass
class _Target:
    """A topic or a queue. It refuses some of a request now and then, and keeps what it takes, in its order.

    A few requests fail whole, with what they hold taken or not: at any time, for most are sent when all else is over.
    """

    system: "System"
    told: list[Told] = field(default_factory=list)
    failures: int = 0

    def publish_batch(self, TopicArn: str, PublishBatchRequestEntries: Sequence[Mapping[str, Any]]) -> Any:  # noqa: N803 (boto3's names)
        return self._take([one["Message"] for one in PublishBatchRequestEntries])

    def send_message_batch(self, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> Any:  # noqa: N803 (boto3's names)
        return self._take([one["MessageBody"] for one in Entries])

    def _take(self, bodies: Sequence[str]) -> Any:
        world, failed = self.system.world, []
        if world.chance("partial put"):
            failed = [at for at in range(len(bodies)) if world.random.random() < 0.5]
        fails = self.failures < _MOST_FAILURES and world.random.random() < 0.15
        if fails and world.random.random() < 0.5:
            failed = list(range(len(bodies)))
        self.told += [json.loads(body) for at, body in enumerate(bodies) if at not in failed]
        world.fired["* alerts"] += len(bodies) - len(failed)
        if fails:
            self.failures += 1
            raise ReadTimeoutError(endpoint_url="simulated target")
        return {"Failed": [{"Id": str(at), "Code": "InternalError"} for at in failed]}


class _Watched(ViewStore):
    """The view's rows, and for the auditors which of them were read to judge which windows."""

    def __init__(self, alerting: "Alerting", client: Any) -> None:
        system = alerting.system
        super().__init__(client, VIEWS, clock=system.clock, chance=system.world.random.random)
        self._alerting = alerting
        self.spans: Mapping[Rule, WindowSpan] = {}

    def at(self, view: ViewSpec, starts_ms: Sequence[int]) -> Iterator[dict[str, object]]:
        rows = list(super().at(view, starts_ms))
        for rule, (after, until) in self.spans.items():
            self._alerting.note(rule, after, until, rows)
        return iter(rows)


class _Service(Alerts):
    """The service, which says what it is about to judge."""

    def __init__(self, ports: AlertPorts, targets: Any, owner: str, views: _Watched) -> None:
        super().__init__(ports, targets, owner)
        self._watched = views

    def _judge(self, view: str, spans: Mapping[Rule, WindowSpan]) -> Turn:
        self._watched.spans = spans
        return super()._judge(view, spans)


@dataclass
class Alerting:
    """Services, targets, and what the services have read."""

    system: "System"
    stream: str
    idle_seconds: float
    """0: a window is judged when every shard has been read so far; else an event may come after it was judged."""
    topic: _Target = field(init=False)
    queue: _Target = field(init=False)
    reads: dict[str, list[Reading]] = field(default_factory=dict)
    """Hold by rule what was read of the windows that were to be judged, as often as it was read."""
    skipped: dict[str, WindowSpan] = field(default_factory=dict)
    """Hold by rule the windows that nobody has judged."""

    def __post_init__(self) -> None:
        self.topic, self.queue = _Target(self.system), _Target(self.system)
        # as if there had been a service before: a rule that is new looks back no further than it takes to fire
        to = (self.system.world.now - _BEFORE_MS) // WINDOW_MS * WINDOW_MS
        rules = {
            one.rule: {"to": to, "view": one.view, "condition": one.condition, "summary": one.summary}
            for one in map(About.of, self.system.after.alerts)
        }
        self.system.ledger.put_document(DOCUMENT, {"rules": rules}, 0)

    def skip(self) -> None:
        """Have the rules go on where the time is now, for it has jumped.

        Of the windows between a service judges 240 in a turn: the 345,600 of forty days would take minutes a seed.
        """
        to = (self.system.world.now - _BEFORE_MS) // WINDOW_MS * WINDOW_MS

        def moved(old: dict[str, Any]) -> dict[str, Any]:
            self.skipped = {name: (one["to"], to) for name, one in old["rules"].items()}
            return {**old, "rules": {name: {**one, "to": to} for name, one in old["rules"].items()}}

        self.system.ledger.change(DOCUMENT, moved)

    def is_judged(self, rule: str, end: int) -> bool:
        """Tell whether the window that ends then has been judged for good."""
        reached, (after, until) = self._reached(), self.skipped.get(rule, (0, 0))
        return end <= reached[rule] and not after < end <= until

    def note(self, rule: Rule, after: int, until: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take down what was read of the windows that end in `(after, until]`."""
        found: dict[int, dict[str, int]] = {}
        for row in rows:
            end = round(datetime.fromisoformat(row["window_end"]).timestamp() * 1000)
            if after < end <= until:
                found.setdefault(end, {})[row["device"]] = row["events"]
        self.reads.setdefault(rule.name, []).append((after, until, found))

    def run(self, owner: str, stop: Any) -> None:
        """One process of the service."""
        system = self.system
        world, pipeline = system.world, system.after
        dynamodb, ledger = Proxy(world, "dynamodb", system.dynamodb), self._ledger()
        objects: Any = Proxy(world, "s3", system.objects)
        clients = {"sns": Proxy(world, "sns", self.topic), "sqs": Proxy(world, "sqs", self.queue)}
        views = _Watched(self, dynamodb)
        ports = AlertPorts(
            PipelineStores(pipeline, ledger, objects, system.clock),
            StreamClient(system.client(), self.stream),
            views,
            Serving(ledger, pipeline, system.clock),
            AlertStore(dynamodb, LEDGER, pipeline.name),
            self.idle_seconds,
            1,
        )
        _Service(ports, publish_to(_TARGETS, clients.__getitem__), owner, views).run(stop, _PERIOD_SECONDS)

    def is_settled(self) -> bool:
        """Whether all that is final for a service with a clock behind is judged, and all targets have all of it."""
        system = self.system
        entries = system.ledger.shards()
        listed = {one.shard_id: one.parents for one in list_shards(system.kinesis, self.stream)}
        mark = final_until(system.after, self.idle_seconds, entries, listed, system.world.now - _SKEW_MS)
        judged, store = self._reached(), AlertStore(system.dynamodb, LEDGER, system.after.name)
        for rule in system.after.alerts:
            if mark is not None and judged[rule.name] < mark // WINDOW_MS * WINDOW_MS:
                return False
            if any(one.waiting for one in store.entries(rule.name).values()):
                return False
        return True

    def _reached(self) -> dict[str, int]:
        """Return by rule the end of the last window that has been judged for good."""
        return {name: one["to"] for name, one in self.system.ledger.document(DOCUMENT)[0]["rules"].items()}

    def _ledger(self) -> Ledger:
        system = self.system
        return Ledger(Proxy(system.world, "dynamodb", system.dynamodb), LEDGER, system.after.name)
