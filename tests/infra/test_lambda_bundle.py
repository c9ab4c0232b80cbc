"""The bundles of the Lambda functions, as far as no download is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from headwater.config import environment
from infra.lambda_bundle import write_aliases


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("processors.runners.lambda_.handler", "headwater.processors.runners.serverless.handler.handler"),
        ("processors.runners.lambda_jobs.publish", "headwater.processors.runners.serverless.jobs.publish"),
        ("processors.runners.lambda_jobs.audit", "headwater.processors.runners.serverless.jobs.audit"),
    ],
)
def test_a_handler_is_found_by_its_former_name(former: str, present: str, tmp_path: Path) -> None:
    """A function that is configured with the former path of a handler runs the same handler."""
    write_aliases(tmp_path)
    names = [path.rpartition(".") for path in (former, present)]
    program = "import importlib; a, b = (getattr(importlib.import_module(m), n) for m, _, n in {}); assert a is b"
    aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-c", program.format(names)],
        cwd=tmp_path,
        env=environment(aws),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
