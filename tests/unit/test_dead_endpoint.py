"""Where nothing answers at a local endpoint, every command says so in the same line, at once."""

import pytest

from tests.called import called

ENDPOINT = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "arguments",
    [
        "process",
        "publish",
        "audit",
        "reference publish sites",
        "shards map",
        "shards heat",
        "autoscale --dry-run",
        "view versions",
        "jobs list",
        "dlq list",
        "lake health",
        "lake query SELECT+1",
        "names list",
        "alerts list",
        "keys list",
    ],
)
def test_a_dead_endpoint_is_told_in_one_way(arguments: str) -> None:
    """With the address, the variable that sets it and what may be missing; exit code 1."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    words = [word.replace("+", " ") for word in arguments.split()]
    ran = called(*words, environment=keys | {"AWS_ENDPOINT_URL": ENDPOINT})
    ran.failed(1, f"headwater: nothing answers at {ENDPOINT} (AWS_ENDPOINT_URL): ", "is `headwater up` running?\n")
