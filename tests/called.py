"""The command `headwater` within this process: for what needs none of its own, since a start takes a second."""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from headwater import commands
from tests.cli import Ran

__all__ = ["called"]


def called(*arguments: str, environment: Mapping[str, str] | None = None) -> Ran:
    """Run it with these variables beside those of the tests, and without anything that boto3 keeps in files."""
    variables = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "NO_COLOR": "1"}
    variables |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull} | dict(environment or {})
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["headwater", *arguments])
        for name, value in variables.items():
            patch.setenv(name, value)
        status = commands._run()
    return Ran(status, out.getvalue(), err.getvalue())
