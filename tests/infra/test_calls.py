"""The recording of what services asked: every request is read, however the emulator's threads wrote it."""

import json
from pathlib import Path

from infra.settings import deployment
from tests.infra.calls import Call, recorded
from tests.infra.synthesis import GIVEN


def request(key: str) -> str:
    signed = "AWS4-HMAC-SHA256 Credential=publish/20260301/us-east-1/s3/aws4_request"
    url = f"http://127.0.0.1:1/bucket/{key}"
    return json.dumps({"headers": {"Authorization": signed}, "method": "GET", "url": url, "body": ""})


def test_requests_that_share_a_line_are_all_read(tmp_path: Path) -> None:
    """A large one, another before its line's end has come, and then that end."""
    recording = tmp_path / "recording"
    recording.write_text(f"{request('a')}\n{request('b')}{request('c')}\n\n{request('d')}\n")
    found = list(recorded(recording, deployment("dev", **GIVEN), {"publish"}))
    assert found == [Call("publish", "s3:GetObject", (f"arn:aws:s3:::bucket/{key}",)) for key in "abcd"]
