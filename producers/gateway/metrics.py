"""What the gateway counts, in Prometheus' text form."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from producers.settings import ProducerStats

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of requests, and what the producers say of themselves. Names begin with headwater_gateway_."""

    def __init__(self, stats: Callable[[], Mapping[str, ProducerStats]], room: Callable[[], int]) -> None:
        self._stats, self._room = stats, room
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "headwater_gateway_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self._events = Counter(
            "headwater_gateway_events",
            "Events by outcome: acknowledged, rejected (they break the contract), or unconfirmed in time.",
            ("contract", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "headwater_gateway_request_seconds",
            "From the first byte of a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def events(self, contract: str, outcome: str, number: int) -> None:
        if number:
            self._events.labels(contract, outcome).inc(number)

    def collect(self) -> Iterable[Metric]:
        """The producers' counters and the memory in use, as of now."""
        room = GaugeMetricFamily("headwater_gateway_inflight_bytes", "Memory of requests that are not answered yet.")
        room.add_metric([], self._room())
        buffered = GaugeMetricFamily(
            "headwater_gateway_buffered_bytes", "Events that wait for Kinesis.", labels=["contract"]
        )
        counted = CounterMetricFamily(
            "headwater_gateway_producer",
            "Events accepted, delivered and failed by the producers; records retried.",
            labels=["contract", "what"],
        )
        for contract, stats in self._stats().items():
            buffered.add_metric([contract], stats.buffered_bytes)
            for what in ("accepted", "delivered", "retried", "failed"):
                counted.add_metric([contract, what], getattr(stats, what))
        return [room, buffered, counted]

    def describe(self) -> Iterable[Metric]:
        return []

    def observe(self, meter: Any) -> None:
        """The same over OpenTelemetry: counters and gauges under the same names."""
        from opentelemetry.metrics import Observation

        def reading(name: str) -> Callable[[Any], Iterable[Any]]:
            def read(_: Any) -> Iterable[Any]:
                for family in self._registry.collect():
                    for sample in family.samples:
                        if sample.name == name:
                            yield Observation(sample.value, sample.labels)

            return read

        for name in ("requests_total", "events_total", "producer_total"):
            meter.create_observable_counter(f"headwater_gateway_{name}", [reading(f"headwater_gateway_{name}")])
        for name in ("inflight_bytes", "buffered_bytes"):
            meter.create_observable_gauge(f"headwater_gateway_{name}", [reading(f"headwater_gateway_{name}")])

    def text(self) -> bytes:
        found: bytes = generate_latest(self._registry)
        return found
