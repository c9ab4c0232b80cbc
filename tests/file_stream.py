"""A stream in a file, for producers in processes of their own: a line for each record with the process that put it."""

import json
import os
from pathlib import Path
from typing import Any

from tests.producer_stream import FakeStream


class FileStream(FakeStream):
    """Take PutRecords of any process; control records are not kept."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._pid = os.getpid()

    def put_records(self, **request: Any) -> dict[str, Any]:
        if os.getpid() != self._pid:
            raise RuntimeError("a connection of another process is used")
        answer = super().put_records(**request)
        lines = [json.dumps([os.getpid(), record["Data"].hex()]) + "\n" for record in request["Records"]]
        with self._path.open("a") as file:  # one write, so that lines of two processes do not mix
            file.write("".join(lines))
        return answer
