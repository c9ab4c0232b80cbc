"""Run the embedded AWS and every service in one process."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

from headwater.announcing import put_control
from headwater.clock import Clock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.commands.serving import open_service
from headwater.config import GatewaySettings, ServeSettings, Settings
from headwater.errors import HeadwaterError
from headwater.processors.alerts.publishers import publish_to
from headwater.processors.alerts.service import Alerts
from headwater.processors.definition.loading import absolute
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.references import check_sources
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.gateway.asgi import create_app
from headwater.producers.gateway.server import gateway_contracts, make_gateway
from headwater.serving.api.server import check_settings
from headwater.web.http_server import bound_socket, serving

__all__ = ["Up"]


class Up:
    """Run `headwater up`. When `running` yields, everything is there and every shard's reader has started."""

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        clock: Clock,
        shards: int,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._pipeline, self._say = pipeline, say or (lambda _: None)
        gateway = settings.gateway
        if "auth" not in gateway.model_fields_set:
            gateway = gateway.model_copy(update={"auth": "none"})  # on loopback, and nothing here is worth a key
        serve = settings.serve
        if "auth" not in serve.model_fields_set:
            serve = serve.model_copy(update={"auth": "none"})
        changes: dict[str, Any] = {"serve": serve.model_copy(update={"host": "127.0.0.1"})}
        changes |= {"gateway": gateway.model_copy(update={"host": "127.0.0.1"})}
        self._settings = settings.model_copy(update=changes)
        self._check()
        self._clock = clock
        self._shards = shards
        self._errors: list[str] = []
        self._aws = EmbeddedAws()
        self._servers: dict[str, Callable[[], bool]] = {}

    def _check(self) -> None:
        """Refuse what cannot run, before anything is built."""
        check_sources(self._pipeline)
        check_settings(self._settings.serve)
        gateway_contracts(self._settings.gateway, self._pipeline.contract)
        publish_to(self._settings.alerts_to, lambda _: None)

    @contextmanager
    def running(self) -> Iterator[dict[str, Any]]:
        """Run everything while the block runs; yield the endpoints and the settings for other commands."""
        stop = Event()
        with ExitStack() as stack:
            (of_web, web), (of_gateway, gateway) = (
                stack.enter_context(_listener(one, f"HEADWATER_{name}_PORT"))
                for name, one in (("SERVE", self._settings.serve), ("GATEWAY", self._settings.gateway))
            )
            self._say("starting an embedded AWS; all of it takes half a minute …")
            aws = stack.enter_context(self._aws)
            aws.use()
            self._say(f"making stream {self._settings.stream}, tables, bucket and database …")
            provision(self._settings, shards=self._shards, others=[step.stream for step in self._pipeline.streams])
            services = Services(self._settings, self._pipeline, self._clock)
            jobs = self._jobs(services, stop)
            threads = [
                Thread(target=self._guarded, args=(name, job, stop), name=name, daemon=True)
                for name, job in jobs.items()
            ]
            stack.callback(self._end, stop, threads)
            self._say("starting processor, publisher and alerts …")
            for thread in threads:
                thread.start()
            self._say("starting API, console and gateway …")
            self._servers["API and console"] = stack.enter_context(serving(open_service(services), of_web))
            app = create_app(make_gateway(self._settings, self._pipeline.contract, self._clock))
            self._servers["gateway"] = stack.enter_context(serving(app, of_gateway))
            grpc = {} if app.state.grpc_port < 0 else {"otlp_grpc": f"127.0.0.1:{app.state.grpc_port}"}
            yield {
                "aws": aws.endpoint,
                "gateway": f"http://{gateway}",
                **grpc,
                "api": f"http://{web}/v1/views",
                "console": f"http://{web}",
                "stream": self._settings.stream,
                "settings": dict(aws.environment) | {"HEADWATER_PIPELINE": absolute(self._settings.pipeline)},
            }

    def _jobs(self, services: Services, stop: Event) -> dict[str, Callable[[], object]]:
        """Prepare processor, publisher and alerts; return how each is run until stopped, by name."""
        services.prepare()
        settings, stream = self._settings, self._settings.stream
        runner = EmbeddedRunner(self._pipeline, services.kinesis, services.ports, settings, self._clock, new_owner())
        announce = partial(put_control, services.kinesis, stream, key=services.control_key(stream))
        loop = services.publish_loop(new_owner(), announce)
        loop.prepare()
        alerts = Alerts(services.alert_ports, publish_to(settings.alerts_to, services.client), new_owner())
        return {
            "process": lambda: runner.run(stop),
            "publish": lambda: loop.run(stop),
            "alerts": lambda: alerts.run(stop, settings.alerts_seconds),
        }

    def check(self) -> None:
        """Raise HeadwaterError with what a service died of; the embedded AWS first, without which others die."""
        if self._aws.ended:
            raise HeadwaterError(f"the embedded AWS has ended, and all that was in it is gone: {self._aws.ended}")
        if self._errors:
            raise HeadwaterError(self._errors[0])
        for name, runs in self._servers.items():
            if not runs():
                raise HeadwaterError(f"{name}: the server has ended")

    def _guarded(self, name: str, job: Any, stop: Event) -> None:
        try:
            job()
        except Exception as error:  # told to whoever watches
            self._errors.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if not stop.is_set():
                self._errors.append(f"{name}: has ended by itself")

    def _end(self, stop: Event, threads: list[Thread]) -> None:
        stop.set()
        for thread in threads if not self._aws.ended else ():  # without AWS there is nowhere to commit
            thread.join(timeout=30)


def _listener(
    settings: GatewaySettings | ServeSettings, variable: str
) -> AbstractContextManager[tuple[socket.socket, str]]:
    """Return a socket on the settings' port, or on a free one where that is taken and nobody has asked for it."""
    asked = "port" in settings.model_fields_set
    return bound_socket("127.0.0.1", settings.port, variable, or_free=not asked)
