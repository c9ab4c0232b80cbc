"""The OpenAPI document against the gateway, by schemathesis: what it promises is so, what it forbids is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.clock import SystemClock
from headwater.contract import load_contract
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.web.keys import KeyStore
from tests.gateway import TELEMETRY, served

CONFIG = """
[checks]
# a body of valid and invalid events is answered 207, which says which are which; two under one key 409
negative_data_rejection.expected-statuses = [207, 400, 409, 415, 422]
"""


@pytest.mark.parametrize("bodies", ["json", "all"])
def test_schemathesis_finds_no_failure(tmp_path: Path, bodies: str) -> None:
    """Of JSON every check; no schema says what valid CSV or Arrow is, so of those all but whether valid is accepted.

    The latter with keys: what they are asked for is asked for, and with one the document holds as without keys.
    """
    config, description = tmp_path / "schemathesis.toml", tmp_path / "openapi.json"
    config.write_text(CONFIG)
    program = str(Path(sys.executable).with_name("schemathesis"))
    options = ["--max-examples", "40", "--seed", "1", "--generation-database", "none", "--no-color"]
    store, auth = None, "none"
    if bodies == "all":
        tables = MemoryDynamoDB()
        tables.create_table(TableName="keys", KeySchema=[{"AttributeName": "id"}])
        store, auth = KeyStore(tables, "keys", SystemClock()), "keys"
        options += ["--header", f"Authorization: Bearer {store.create('k', frozenset({'*'}))[1]}"]
    with served(contracts=(TELEMETRY, load_contract("otel_logs")), store=store, auth=auth) as found:
        document = found.client.get("/openapi.json").json()
        if bodies == "json":
            for path in document["paths"].values():
                for operation in path.values():
                    content = operation.get("requestBody", {}).get("content", {})
                    for kind in content.keys() - {"application/json"}:
                        del content[kind]
        else:
            options += ["--exclude-checks", "positive_data_acceptance"]
        description.write_text(json.dumps(document))
        done = subprocess.run(
            [
                program,
                "--config-file",
                str(config),
                "run",
                str(description),
                "--url",
                str(found.client.base_url),
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "4 selected / 4 total" in done.stdout, done.stdout[-3000:]


def test_the_document_names_every_contract() -> None:
    with served() as found:
        document = found.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/events/telemetry" in document["paths"]
    fields = document["components"]["schemas"]["telemetry"]["properties"]
    assert set(fields) == {field.name for field in TELEMETRY.fields}
