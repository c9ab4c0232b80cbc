"""The embedded AWS and every service in one process."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import HeadwaterError
from headwater.local.embedded import EmbeddedAws
from headwater.local.provision import provision
from headwater.serving.server import make_service
from headwater.web.serving import serving
from processors.alerts.publishers import publish_to
from processors.alerts.service import Alerts
from processors.pipeline import Pipeline
from processors.publishing import PublishLoop
from processors.references import ensure_initial
from processors.runners.embedded import EmbeddedRunner
from processors.services import Services, new_owner
from producers.controls import put_control
from producers.gateway.server import make_gateway

__all__ = ["Up"]


class Up:
    """Ready when `running` yields: everything is there and every shard's reader has started."""

    def __init__(self, pipeline: Pipeline, settings: Settings, clock: Clock, shards: int) -> None:
        self._pipeline = pipeline
        changes: dict[str, Any] = {"commit_seconds": min(settings.commit_seconds, 10.0), "publish_seconds": 5.0}
        gateway = settings.gateway
        if "auth" not in gateway.model_fields_set:
            gateway = gateway.model_copy(update={"auth": "none"})  # on loopback, and nothing here is worth a key
        serve = settings.serve
        if "auth" not in serve.model_fields_set:
            serve = serve.model_copy(update={"auth": "none"})
        changes |= {"serve": serve.model_copy(update={"host": "127.0.0.1"})}
        changes |= {"gateway": gateway.model_copy(update={"host": "127.0.0.1"})}
        self._settings = settings.model_copy(update=changes)
        self._clock = clock
        self._shards = shards
        self._errors: list[str] = []

    @contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        """Yields the endpoints and the settings by which other commands find them."""
        stop = Event()
        with ExitStack() as stack:
            aws = stack.enter_context(EmbeddedAws())
            aws.use()
            provision(self._settings, shards=self._shards)
            services = Services(self._settings, self._pipeline, self._clock)
            ensure_initial(self._pipeline, services.ledger, services.objects, services.client)
            runner = EmbeddedRunner(
                self._pipeline, services.kinesis, services.ports, self._settings, self._clock, new_owner()
            )
            loop = PublishLoop(services, partial(put_control, services.kinesis, self._settings.stream))
            loop.prepare()
            alerts = Alerts(services, publish_to(self._settings.alerts_to, services.client), new_owner())
            jobs = {
                "process": lambda: runner.run(stop),
                "publish": lambda: loop.run(stop),
                "alerts": lambda: alerts.run(stop, self._settings.alerts_seconds),
            }
            threads = [
                Thread(target=self._guarded, args=(name, job), name=name, daemon=True) for name, job in jobs.items()
            ]
            stack.callback(self._end, stop, threads)
            for thread in threads:
                thread.start()
            web = stack.enter_context(serving(make_service(services), self._settings.serve.port))
            gateway = make_gateway(self._settings, self._pipeline.contract, self._clock)
            yield {
                "aws": aws.endpoint,
                "gateway": stack.enter_context(serving(gateway.app(), gateway.settings.port)),
                "api": f"{web}/v1/views",
                "console": web,
                "stream": self._settings.stream,
                "settings": dict(aws.environment) | {"HEADWATER_PIPELINE": self._settings.pipeline},
            }

    def check(self) -> None:
        """Raise what a service died of."""
        if self._errors:
            raise HeadwaterError(self._errors[0])

    def _guarded(self, name: str, job: Any) -> None:
        try:
            job()
        except Exception as error:  # told to whoever watches
            self._errors.append(f"{name}: {type(error).__name__}: {error}")

    def _end(self, stop: Event, threads: list[Thread]) -> None:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
