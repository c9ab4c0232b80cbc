"""The in-memory DynamoDB over HTTP, with faults by script: boto3's own retries and parsing are part of a test."""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from botocore.exceptions import ClientError

from headwater.testing.dynamodb import MemoryDynamoDB

__all__ = ["LOST", "DynamoServer", "dynamodb_server"]

LOST = "lost"
"""The request is carried out and its connection cut instead of an answer."""
_METHODS = {
    "PutItem": "put_item",
    "BatchExecuteStatement": "batch_execute_statement",
    "GetItem": "get_item",
    "BatchGetItem": "batch_get_item",
    "Query": "query",
    "Scan": "scan",
}


class DynamoServer:
    """What it was asked, and what is to go wrong: an error code, LOST or nothing for each request to come."""

    def __init__(self, dynamodb: MemoryDynamoDB) -> None:
        self.dynamodb = dynamodb
        self.asked: Counter[str] = Counter()
        self.puts: Counter[tuple[str, str]] = Counter()
        self._script: list[str] = []
        self._lock = Lock()

    def script(self, faults: Iterable[str]) -> None:
        with self._lock:
            self._script = list(faults)

    def answer(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Status and body; None to cut the connection."""
        with self._lock:
            fault = self._script.pop(0) if self._script else ""
            self.asked[operation] += 1
            if operation == "PutItem":
                self.puts[body["Item"]["pk"]["S"], body["Item"]["sk"]["S"]] += 1
        if fault not in ("", LOST):
            status = 500 if fault == "InternalServerError" else 400
            return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{fault}", "message": "by script"}
        try:
            found = 200, getattr(self.dynamodb, _METHODS[operation])(**_decoded(body))
        except ClientError as error:
            said = error.response
            found = 400, {"__type": f"x#{said['Error']['Code']}", "message": "-"}
            found[1].update({"Item": said["Item"]} if "Item" in said else {})  # type: ignore[typeddict-item]  # some errors have it
        return None if fault == LOST else found


@contextmanager
def dynamodb_server(dynamodb: MemoryDynamoDB) -> Iterator[tuple[DynamoServer, str]]:
    """The server and its URL."""
    found = DynamoServer(dynamodb)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = found.answer(self.headers["x-amz-target"].rpartition(".")[2], body)
            if answer is None:
                self.close_connection = True
                return
            text = json.dumps(answer[1], default=_encoded).encode()
            self.send_response(answer[0])
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _decoded(value: Any) -> Any:
    """Binary attributes as boto3 gives them to a client."""
    if isinstance(value, dict):
        return {
            name: base64.b64decode(one) if name == "B" and isinstance(one, str) else _decoded(one)
            for name, one in value.items()
        }
    return [_decoded(one) for one in value] if isinstance(value, list) else value
