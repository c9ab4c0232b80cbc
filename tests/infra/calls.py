"""What services asked of the emulator, from its recording; and whether a role's statements allow it.

Each service runs under an access key of its own name, so a recorded request says whose it is. Requests are taken at the
server: what Arrow's C++ client asks of S3 is among them.
"""

import base64
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from infra.settings import Deployment

__all__ = ["Call", "allowed", "recorded"]

_CALLER = re.compile(r"Credential=([\w-]+)/\d+/[\w-]+/(\w+)/")
_OBJECT = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject", "DELETE": "DeleteObject"}


@dataclass(frozen=True)
class Call:
    """`resources`: all of them have to be allowed."""

    service: str
    action: str
    resources: tuple[str, ...]


def recorded(path: Path, deployed: Deployment, callers: Collection[str]) -> Iterator[Call]:
    """In order, each as often as it was made; those of other callers are left out."""
    for request in _requests(path.read_text()):
        headers = {name.lower(): value for name, value in request["headers"].items()}
        caller = _CALLER.search(headers.get("authorization", ""))
        if caller is None or caller[1] not in callers:
            continue
        who, service = caller.groups()
        if service == "s3":
            yield Call(who, *_s3(request))
        else:
            for action, resources in _json(service, headers, request, deployed):
                yield Call(who, action, resources)


def _requests(text: str) -> Iterator[dict[str, Any]]:
    """One JSON value after another. The server writes a request and its line's end apart: another may come between."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        request, at = decoder.raw_decode(text, at)
        yield request


def _s3(request: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    parts = urlsplit(request["url"])
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if not key:
        return "s3:DeleteObject" if "delete" in query else "s3:ListBucket", (f"arn:aws:s3:::{bucket}",)
    action = (
        "AbortMultipartUpload" if "uploadId" in query and request["method"] == "DELETE" else _OBJECT[request["method"]]
    )
    return f"s3:{action}", (f"arn:aws:s3:::{bucket}/{key}",)


def _json(
    service: str, headers: dict[str, str], request: dict[str, Any], deployed: Deployment
) -> Iterator[tuple[str, tuple[str, ...]]]:
    action = headers["x-amz-target"].rsplit(".", 1)[1]
    raw = request["body"]
    body = json.loads(base64.b64decode(raw) if request["body_encoded"] else raw or "{}")
    here = f"{deployed.region}:{deployed.account}"
    if service == "kinesis":
        # a call with an iterator alone is on the iterator's stream, and there is but one
        yield f"kinesis:{action}", (f"arn:aws:kinesis:{here}:stream/{body.get('StreamName', deployed.stream)}",)
    elif service == "dynamodb" and "Statements" in body:
        for one in body["Statements"]:
            words, table = one["Statement"].split(), one["Statement"].split('"')[1]
            yield f"dynamodb:PartiQL{words[0].capitalize()}", (f"arn:aws:dynamodb:{here}:table/{table}",)
    elif service == "dynamodb":
        index = f"/index/{body['IndexName']}" if "IndexName" in body else ""
        tables = body["RequestItems"] if action.startswith("Batch") else [body["TableName"]]
        yield f"dynamodb:{action}", tuple(f"arn:aws:dynamodb:{here}:table/{table}{index}" for table in tables)
    else:
        yield f"{service}:{action}", _glue(body, f"arn:aws:glue:{here}") if service == "glue" else ()


def _glue(body: dict[str, Any], arn: str) -> tuple[str, ...]:
    database = body.get("DatabaseName") or body.get("DatabaseInput", {}).get("Name") or body.get("Name")
    table = (body.get("Name") if "DatabaseName" in body else None) or body.get("TableInput", {}).get("Name")
    found = [f"{arn}:catalog", f"{arn}:database/{database}"]
    return (*found, f"{arn}:table/{database}/{table}") if table else tuple(found)


def allowed(call: Call, statements: Sequence[dict[str, Any]]) -> bool:
    """Whether every resource of the call is covered by a statement that allows the action."""

    def covers(statement: dict[str, Any], resource: str) -> bool:
        actions, resources = _list(statement["Action"]), _list(statement["Resource"])
        named = [one for one in resources if isinstance(one, str)]
        return call.action in actions and any(fnmatchcase(resource, one) for one in named)

    return all(any(covers(one, resource) for one in statements) for resource in call.resources)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
