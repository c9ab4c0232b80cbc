"""The gateway on loopback, in front of a stream in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.applications import Starlette

from headwater.clock import Clock, SystemClock
from headwater.config import GatewaySettings
from headwater.contract import Contract, load_contract
from headwater.producers.gateway.app import Gateway
from headwater.producers.gateway.asgi import create_app
from headwater.producers.gateway.writer import ContractWriter
from headwater.web.auth import Authenticator, JwtVerifier
from headwater.web.http_server import serve_in_thread
from headwater.web.keys import KeyStore
from headwater.web.limits import Limits
from tests.producer_stream import FakeStream

__all__ = ["TELEMETRY", "Served", "event", "served"]

TELEMETRY = load_contract("telemetry")


@dataclass(frozen=True)
class Served:
    """A gateway that runs, a client of it and the stream behind it."""

    client: httpx.Client
    stream: FakeStream
    gateway: Gateway
    app: Starlette

    def post(
        self, content: Any, kind: str = "application/json", to: str = "telemetry", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"/v1/events/{to}", content=content, headers={"content-type": kind} | named)

    def values(self, contract: Contract = TELEMETRY) -> list[Any]:
        """The events' values on the stream, in its order, copies included."""
        return [row["value"] for one in self.stream.decoded(contract) for row in one.table.to_pylist()]


def event(value: float | None = 1.0, **more: object) -> dict[str, object]:
    return {"device": "d", "metric": "m", "ts": "2026-01-01T00:00:00Z", "value": value} | more


@contextmanager
def served(
    stream: FakeStream | None = None,
    *,
    contracts: Sequence[Contract] = (TELEMETRY,),
    store: KeyStore | None = None,
    verifier: JwtVerifier | None = None,
    clock: Clock | None = None,
    **settings: Any,
) -> Iterator[Served]:
    """Drained when the block ends."""
    stream, clock = stream or FakeStream(), clock or SystemClock()
    values: dict[str, Any] = {"auth": "none", "linger_ms": 5}
    wanted = GatewaySettings(**(values | settings))
    writers = {one.name: ContractWriter(one, "s", stream, wanted, SystemClock()) for one in contracts}
    limits = Limits(store)
    gateway = Gateway(writers, wanted, Authenticator(wanted, store, verifier, clock), limits, clock)
    app = create_app(gateway)
    with serve_in_thread(app, 0) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield Served(client, stream, gateway, app)
