"""What the HTTP services ask when they start is granted to their roles, and answered in one line where it lacks."""

from collections.abc import Iterator

import botocore.client
import pytest

from headwater.clock import ManualClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.commands.serving import open_service
from headwater.config import Settings
from headwater.contract import load_contract
from headwater.errors import UsageError
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.producers.gateway.server import make_gateway
from infra.permissions import ROLES

CLOCK = ManualClock(1_762_160_400_000)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        found = Settings()
        provision(found, shards=1)
        yield found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Actions, and the last part of the table's name."""
    found: set[tuple[str, str]] = set()
    ask = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]  # botocore's own, which its stubs leave out

    def recorded(self: botocore.client.BaseClient, operation: str, given: dict[str, str]) -> object:
        service = self.meta.service_model.endpoint_prefix
        found.add((f"{service}:{operation}", given.get("TableName", "").rpartition("-")[2]))
        return ask(self, operation, given)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    return found


def granted(service: str) -> set[tuple[str, str]]:
    return {
        (action, one.rpartition("-")[2] if ":table/" in one else "")
        for grant in ROLES[service]
        for action in grant.actions
        for one in grant.on
    }


def test_what_the_query_api_asks_at_its_start_is_granted(settings: Settings, asked: set[tuple[str, str]]) -> None:
    open_service(Services(settings, load(settings.pipeline), CLOCK), console=False)
    assert ("dynamodb:GetItem", "keys") in asked
    assert asked <= granted("serve")


def test_what_the_gateway_asks_at_its_start_is_granted(settings: Settings, asked: set[tuple[str, str]]) -> None:
    for writer in make_gateway(settings, load_contract("telemetry"), CLOCK).writers.values():
        writer.close()
    assert {("dynamodb:GetItem", "keys"), ("kinesis:ListShards", "")} <= asked
    assert asked <= granted("gateway")


def test_a_table_of_keys_that_is_not_there(settings: Settings) -> None:
    lacking = settings.model_copy(update={"gateway": settings.gateway.model_copy(update={"keys_table": "none"})})
    with pytest.raises(UsageError, match="there is no table none"):
        open_service(Services(lacking, load(settings.pipeline), CLOCK), console=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tls_certificate", "/nowhere"),
        ("tls_key", "/nowhere"),
    ],
)
def test_settings_that_cannot_be(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in a line that names the variable."""
    monkeypatch.setenv(f"HEADWATER_SERVE_{name.upper()}", value)
    settings = Settings()
    with pytest.raises(UsageError, match=f"HEADWATER_SERVE_{name.upper()}"):
        open_service(Services(settings, load(settings.pipeline), CLOCK), console=False)
