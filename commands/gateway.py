"""Define the commands of the HTTP gateway: gateway, keys create, keys list, keys revoke."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.commands.options import Json
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.web.keys import ApiKey, KeyStore

__all__ = ["register"]

KeyId = Annotated[str, typer.Argument(help="The id, the part between hw_ and the next _.")]
IdPrefixes = Annotated[
    str,
    typer.Option(
        help="Beginnings of ids that it may write, separated by commas, where events have ids of their own; * is any."
    ),
]
keys = typer.Typer(help="Manage API keys of the gateway; the table holds only hashes of them.", no_args_is_help=True)
_SCOPES = ("*", "console", "views")
"""Names that a key may have beside contracts: all contracts, the console, the query API."""
_WEB = ("starlette", "uvicorn", "uvloop", "jwt", "prometheus_client", "opentelemetry", "google.rpc", "grpc")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(gateway)
    app.add_typer(keys, name="keys")


def gateway(as_json: Json = False) -> None:
    """Take events over HTTP and OTLP until SIGTERM, then drain. Settings are HEADWATER_GATEWAY_… variables."""
    from headwater.clock import SystemClock
    from headwater.config import read_settings
    from headwater.telemetry.logs import to_stdout

    settings = read_settings()
    try:
        from headwater.producers.gateway.server import make_gateway, serve
        from headwater.web.http_server import bound_socket
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    from headwater.commands.services import check_endpoint
    from headwater.processors.definition.loading import load

    to_stdout(settings.log_level, sys.stderr)
    contract = load(settings.pipeline).contract
    made = make_gateway(settings, contract, SystemClock(), check_endpoint)
    scheme = "https" if settings.gateway.tls_certificate else "http"
    with bound_socket(settings.gateway.host, settings.gateway.port, "HEADWATER_GATEWAY_PORT") as (listener, authority):

        def started(grpc_port: int) -> None:
            url = f"{scheme}://{authority}"
            grpc = f"{authority.rpartition(':')[0]}:{grpc_port}" if grpc_port >= 0 else None
            found = {"gateway": url, "otlp_grpc": grpc, "contracts": list(made.writers)}
            text = f"gateway at {url}" + (f", OTLP over gRPC at {grpc}" if grpc else "")
            sys.stdout.write(f"{json.dumps(found) if as_json else text}\n")
            sys.stdout.flush()

        serve(made, listener, started)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    contracts: Annotated[str, typer.Option(help="Contracts it may write to, separated by commas; * is all.")],
    events_per_second: Annotated[float, typer.Option(min=0, help="0 is no limit.")] = 0,
    burst: Annotated[int, typer.Option(min=0, help="Events at once; 0 is ten seconds' worth.")] = 0,
    events_per_day: Annotated[int, typer.Option(min=0, help="Quota; 0 is none.")] = 0,
    id_prefixes: IdPrefixes = "",
    as_json: Json = False,
) -> None:
    """Make a key. It is printed once and stored nowhere."""
    from headwater.commands.output import print_json

    names = _names(contracts)
    _check_contracts(names)
    limits = {"events_per_second": events_per_second, "burst": burst, "events_per_day": events_per_day}
    store = _store()
    store.ensure_table()
    key, text = store.create(name, names, id_prefixes=_names(id_prefixes), **limits)  # type: ignore[arg-type]  # limits are options of one type each, which a dict does not show
    if as_json:
        print_json({"key": text} | _shown(key))
    else:
        sys.stdout.write(f"{text}\n")


@keys.command()
def bind(key_id: KeyId, id_prefixes: IdPrefixes) -> None:
    """Set what the ids begin with that a key may write, of contracts whose events have ids of their own."""
    names = _names(id_prefixes)
    if not names:
        raise UsageError("--id-prefixes names none")
    key = _store().bind(key_id, names)
    sys.stderr.write(f"key {key_id} writes ids that begin with {', '.join(sorted(key.id_prefixes))}\n")


@keys.command("list")
def list_(as_json: Json = False) -> None:
    """List all keys, the revoked too."""
    from headwater.commands.output import print_rows

    print_rows(map(_shown, _store().list()), as_json=as_json, empty="no keys")


@keys.command()
def revoke(key_id: KeyId) -> None:
    """Close a key for good."""
    _store().revoke(key_id)
    sys.stderr.write(f"key {key_id} is revoked\n")


def _shown(key: "ApiKey") -> dict[str, object]:
    from datetime import UTC, datetime

    def time(ms: int) -> datetime | None:
        return datetime.fromtimestamp(ms / 1000, UTC) if ms else None

    return {
        "id": key.key_id,
        "name": key.name,
        "contracts": ",".join(sorted(key.contracts)),
        "events_per_second": key.events_per_second,
        "burst": key.burst,
        "events_per_day": key.events_per_day,
        "id_prefixes": ",".join(sorted(key.id_prefixes)),
        "created": time(key.created_ms),
        "revoked": time(key.revoked_ms),
    }


def _names(text: str) -> frozenset[str]:
    return frozenset(one.strip() for one in text.split(",") if one.strip())


def _check_contracts(names: frozenset[str]) -> None:
    """Raise UsageError for a name that is no scope and no contract: shipped, the pipeline's or in the settings."""
    from headwater.config import read_settings
    from headwater.contract import load_contract
    from headwater.contract.parsing import shipped
    from headwater.processors.definition.loading import load

    settings = read_settings()
    known = {*shipped(), *_SCOPES, load(settings.pipeline).contract.name}
    known |= {load_contract(one).name for one in _names(settings.gateway.contracts)}
    if unknown := sorted(names - known):
        raise UsageError(
            f"--contracts: there is no contract {unknown[0]!r}; there are {', '.join(sorted(known))} "
            "(HEADWATER_GATEWAY_CONTRACTS and HEADWATER_PIPELINE say which)"
        )


def _store() -> "KeyStore":
    from headwater.aws import client
    from headwater.commands.services import check_endpoint
    from headwater.config import read_settings
    from headwater.web.keys import KeyStore

    settings = read_settings()
    dynamodb = client("dynamodb", settings)
    check_endpoint(dynamodb.meta.endpoint_url)
    return KeyStore(dynamodb, settings.gateway.keys_table)


def _missing(error: ModuleNotFoundError) -> Exception:
    if error.name and error.name.startswith(_WEB):
        return UsageError(f"the gateway needs the extra headwater[web]: there is no module {error.name}")
    return error
