"""Serve the embedded AWS: Kinesis and DynamoDB from memory with their real semantics, all else by moto.

moto's conditional writes are not atomic, its Query reads the whole table and its reshards are not those of Kinesis
(docs/adr/0018-the-embedded-aws-is-ours-where-exactness-rests-on-it.md). Here belongs the protocol; what the services do
is in `headwater.testing`.
"""

import asyncio
import base64
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import uvicorn
from botocore import xform_name
from botocore.exceptions import ClientError
from botocore.session import Session

from headwater.clock import SystemClock
from headwater.config import recording_path
from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from headwater.testing.kinesis import MemoryKinesis

__all__ = ["EmbeddedServer", "JsonService"]

log = logging.getLogger(__name__)

_Wsgi = Callable[[dict[str, Any], Callable[..., None]], Iterable[bytes]]


class JsonService:
    """Answer the JSON protocol of a service from an object that has its boto3 client's calls.

    Example:
        >>> service = JsonService("dynamodb", MemoryDynamoDB())
        >>> service.answer("GetItem", b'{"TableName": "t", "Key": {"pk": {"S": "a"}}}')[0]
        400
    """

    def __init__(self, name: str, calls: Any) -> None:
        operations = Session().get_service_model(name).operation_names
        named = {operation: xform_name(operation) for operation in operations}
        self._calls = {name: getattr(calls, method) for name, method in named.items() if hasattr(calls, method)}
        self._name = name

    def answer(self, operation: str, body: bytes) -> tuple[int, bytes]:
        """Return the HTTP status and the body of the answer."""
        if operation not in self._calls:
            return _refused("UnknownOperationException", f"the embedded AWS has no {operation} of {self._name}")
        try:
            request = json.loads(body or b"{}", object_hook=_bytes)
            answer = self._calls[operation](**_by_name(request))
            return 200, json.dumps(answer, default=_plain).encode()
        except ClientError as error:
            details: Any = {name: value for name, value in error.response.items() if name != "Error"}
            found = error.response["Error"]
            return _refused(found["Code"], found["Message"], details)
        except NotImplementedError as error:
            return _refused("UnknownOperationException", f"the embedded AWS does not know {error}")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            log.warning("a request for %s of %s is wrong", operation, self._name, exc_info=True)
            return _refused("ValidationException", f"{operation}: {type(error).__name__}: {error}")


class EmbeddedServer:
    """Lead each request to its service. All run in one thread at a time, so each call is atomic, as AWS's are."""

    def __init__(self) -> None:
        self._services = {
            "Kinesis_20131202": JsonService("kinesis", MemoryKinesis(SystemClock(), limits=False)),
            "DynamoDB_20120810": JsonService("dynamodb", MemoryDynamoDB(Staleness(stale=0.0))),
        }
        self._turn = asyncio.Lock()
        self._recording = recording_path()

    @cached_property
    def _others(self) -> _Wsgi:
        # takes a second, and who only streams needs none of it
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        application: _Wsgi = DomainDispatcherApplication(create_backend_app)
        return application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as ASGI applications do."""
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        target, _, operation = headers.get("x-amz-target", "").partition(".")
        if target in self._services:
            if self._recording is not None:
                _record(self._recording, scope, headers, bytes(body))
            status, answer = self._services[target].answer(operation, bytes(body))
            named = [(b"content-type", b"application/x-amz-json-1.1")]
        else:
            async with self._turn:
                status, named, answer = await asyncio.to_thread(_call, self._others, _environ(scope, headers, body))
        length = [(b"content-length", b"%d" % len(answer))] if scope["method"] != "HEAD" else []
        await send({"type": "http.response.start", "status": status, "headers": [*named, *length]})
        await send({"type": "http.response.body", "body": answer})


def _record(path: Path, scope: Any, headers: Mapping[str, str], body: bytes) -> None:
    """Write a request as moto's recorder writes those that it answers."""
    request = {
        "method": scope["method"],
        "url": f"http://{headers.get('host', '')}{scope['path']}",
        "headers": dict(headers),
        "body": base64.b64encode(body).decode(),
        "body_encoded": True,
    }
    with path.open("a") as file:
        file.write(json.dumps(request) + "\n")


def _environ(scope: Any, headers: Mapping[str, str], body: bytes | bytearray) -> dict[str, Any]:
    """Return a request as WSGI applications take it."""
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    environ |= {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers.items()}
    environ.pop("HTTP_TRANSFER_ENCODING", None)  # the body is whole
    return environ | {"CONTENT_TYPE": headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body))}


def _call(application: _Wsgi, environ: dict[str, Any]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the status, the headers but for the length, and the body of a WSGI application's answer."""
    found: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
        found[:] = [int(status[:3]), headers]

    answer = b"".join(application(environ, start))
    # the length of what a HEAD is about has no body here
    skipped = {"connection", "transfer-encoding", "date", "server"}
    skipped |= set() if environ["REQUEST_METHOD"] == "HEAD" else {"content-length"}
    named = [(n.lower().encode(), v.encode("latin-1")) for n, v in found[1] if n.lower() not in skipped]
    return found[0], named, answer


def _bytes(found: dict[str, Any]) -> dict[str, Any]:
    """Read what the protocol has in base64: a record's data, and binary attributes."""
    for name in ("Data", "B"):
        if isinstance(found.get(name), str):
            found[name] = base64.b64decode(found[name])
    return found


def _by_name(request: dict[str, Any]) -> dict[str, Any]:
    """Name the stream as its ARN does; here is one account and one region."""
    arn = request.pop("StreamARN", None)
    request.pop("StreamId", None)
    return {"StreamName": arn.rpartition("/")[2], **request} if arn else request


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(type(value).__name__)


def _refused(code: str, message: str, details: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
    answer = {"__type": code, "message": message, "Message": message, **(details or {})}
    return 400, json.dumps(answer, default=_plain).encode()


def _follow() -> None:
    """Wait until nobody holds the other end of the standard input: a killed parent leaves no server behind."""
    sys.stdin.buffer.read()
    os._exit(0)


def main(port: int) -> None:
    """Serve on the loopback interface until the process is ended, or the one that started it is gone."""
    threading.Thread(target=_follow, name="parent", daemon=True).start()
    uvicorn.run(EmbeddedServer(), host="127.0.0.1", port=port, lifespan="off", log_level="warning", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
