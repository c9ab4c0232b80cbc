"""Count requests and events, and write the counts in Prometheus' text form."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headwater.producers.settings import ProducerStats

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Hold the counters of requests, and read the producers' own. Names begin with headwater_gateway_."""

    def __init__(self, stats: Callable[[], Mapping[str, ProducerStats]], inflight_bytes: Callable[[], int]) -> None:
        self._stats, self._inflight_bytes = stats, inflight_bytes
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

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request and the time it took."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_events(self, contract: str, outcome: str, number: int) -> None:
        """Count events by what became of them: acknowledged, rejected or unconfirmed."""
        if number:
            self._events.labels(contract, outcome).inc(number)

    def collect(self) -> Iterable[Metric]:
        """Yield the producers' counters and the memory in use, as of now; prometheus_client calls it."""
        inflight = GaugeMetricFamily(
            "headwater_gateway_inflight_bytes", "Memory of requests that are not answered yet."
        )
        inflight.add_metric([], self._inflight_bytes())
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
        return [inflight, buffered, counted]

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the producers."""
        return []

    def observe(self, meter: Any) -> None:
        """Offer the same counters and gauges to an OpenTelemetry meter, under the same names."""
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
        """Return everything in Prometheus' text form."""
        found: bytes = generate_latest(self._registry)
        return found
