"""boto3 clients and the object store: where the process meets AWS.

boto3 itself reads AWS_ENDPOINT_URL, credentials and region; without AWS_ENDPOINT_URL everything talks to the real AWS.
No other module makes a client, so that all of them share what follows.

botocore takes an answer whose connection broke in its middle for a whole one: of a GetItem that found an item it then
says that there is none. Clients made here look at each answer's length and send the request again. And where S3 says
`100 Continue`, and the connection breaks before the empty line behind it, botocore looks for that line for ever: it is
not asked for.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError
from botocore.handlers import add_expect_header

from headwater.config import Settings
from headwater.errors import UsageError

__all__ = ["Objects", "client"]


@cache
def _loader() -> Any:
    """Load botocore's service descriptions, once: each session by itself takes 50 to 100 ms for a client's."""
    return botocore.session.Session().get_component("data_loader")


def client(service: str, settings: Settings, **config: Any) -> Any:
    """Make a boto3 client with the standard retries of botocore; `config` overrides botocore's options.

    Raises UsageError for an endpoint that is no URL.
    """
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "max_attempts": 5},
        "max_pool_connections": max(32, settings.view_writers),
        "connect_timeout": 5,
        "read_timeout": 30,
        # to look at the types of a request costs as much as to send it; the values of items are made here
        "parameter_validation": service != "dynamodb",
    }
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    session = boto3.session.Session(botocore_session=core)
    region = session.region_name or settings.region
    try:
        made = session.client(service, region_name=region, config=Config(**(options | config)))  # type: ignore[call-overload]  # the stubs know each service by its literal
        _check_url(made.meta.endpoint_url)
    except BotoCoreError:
        raise  # some are ValueErrors as well, and all say by themselves what is wrong
    except ValueError as error:
        raise UsageError(f"the endpoint of {service} cannot be used (AWS_ENDPOINT_URL): {error}") from None
    made.meta.events.unregister("before-call.s3", add_expect_header)
    made.meta.events.register_first(f"needs-retry.{made.meta.service_model.service_id.hyphenize()}", _again_when_cut)
    return made


def _check_url(url: str) -> None:
    """Raise ValueError for an endpoint that botocore takes, and finds no server by."""
    parts = urlsplit(url)
    _ = parts.port  # raises for one that is none
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url} is no http(s) URL")


def _again_when_cut(response: Any, operation: Any, attempts: int, request_dict: Any, **_: Any) -> float | None:
    """Answer botocore's question whether to send again: the seconds to wait, or None for no reason to."""
    if response is None or not _is_cut(response[0], operation, request_dict["method"]):
        return None
    # botocore's own look at a DynamoDB answer reads it as a number, and it may be cut, too
    response[0].headers.pop("x-amz-crc32", None)
    retries = request_dict["context"]["client_config"].retries
    if attempts >= retries.get("total_max_attempts", 1):
        raise ConnectionClosedError(endpoint_url=request_dict["url"])
    return float(0.1 * 2**attempts)


def _is_cut(answer: Any, operation: Any, method: str) -> bool:
    """Tell whether the answer is shorter than it says, or ends in its headers, before it says how long it is."""
    if method == "HEAD" or answer.status_code in (204, 304) or operation.has_event_stream_output:
        return False
    length = answer.headers.get("content-length")
    if length is None:
        chunked = "transfer-encoding" in answer.headers
        return not chunked and (operation.has_streaming_output or not answer.content)
    # a stream's length is checked by who reads it
    return not operation.has_streaming_output and len(answer.content) < int(length)


class Objects:
    """Read and write whole objects of one bucket, by key."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    def uri(self, key: str) -> str:
        """Return the object's `s3://` URI."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        """Write the object, whole or not at all; returns its URI."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def put_file(self, key: str, path: Path) -> str:
        """Write a file's bytes as the object, as `put` does, some at a time."""
        with path.open("rb") as body:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """Read the object. Raise botocore's ClientError (NoSuchKey) when there is none."""
        body: bytes = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def list(self, prefix: str) -> Iterator[str]:
        """Iterate over the keys below the prefix, in order."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield item["Key"]

    def dated(self, prefix: str) -> Iterator[tuple[str, int, int]]:
        """Iterate over key, bytes and time of the last change (epoch ms) of every object below the prefix."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield item["Key"], item["Size"], round(item["LastModified"].timestamp() * 1000)

    def delete(self, key: str) -> None:
        """Delete the object; one that is not there is no error."""
        self._s3.delete_object(Bucket=self.bucket, Key=key)
