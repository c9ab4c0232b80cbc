"""No file that is kept has a secret in it: keys of AWS, of code hosts, of this project's gateway, private keys."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = re.compile(
    rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----\n|\bgh[pousr]_[0-9A-Za-z]{36}\b"
    rb"|\bgithub_pat_\w{60}|\bhw_[0-9a-f]{12}_[0-9a-f]{64}\b|\bxox[abprs]-[0-9A-Za-z-]{20}|\bpypi-[0-9A-Za-z_-]{80}"
)


def test_no_kept_file_has_a_secret() -> None:
    """As git lists them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    files = [ROOT / name.decode() for name in listed if name]
    if not files:
        pytest.skip("not a checkout of git")
    found = {file.name: SECRET.search(file.read_bytes()) for file in files if file.is_file()}
    assert {name: match[0] for name, match in found.items() if match} == {}


@pytest.mark.parametrize(
    "text",
    [
        b"AKIA" + b"Q" * 16,
        b"hw_" + b"0" * 12 + b"_" + b"a" * 64,
        b"ghp_" + b"x" * 36,
        b"-----BEGIN " + b"RSA PRIVATE KEY-----\n",
    ],
)
def test_a_secret_is_seen(text: bytes) -> None:
    assert SECRET.search(b'key = "' + text + b'"')
