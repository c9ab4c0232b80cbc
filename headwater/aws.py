"""boto3 clients and the object store: where the process meets AWS.

boto3 itself reads AWS_ENDPOINT_URL, credentials and region; without AWS_ENDPOINT_URL everything talks to the real AWS.
"""

from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config

from headwater.config import Settings

__all__ = ["Objects", "client"]


def client(service: str, settings: Settings, **config: Any) -> Any:
    """A boto3 client with adaptive-free standard retries; `config` overrides botocore's options."""
    options: dict[str, Any] = {
        "retries": {"mode": "standard", "max_attempts": 5},
        "max_pool_connections": 32,
        "connect_timeout": 5,
        "read_timeout": 30,
    }
    session = boto3.session.Session()
    region = session.region_name or settings.region
    return session.client(service, region_name=region, config=Config(**(options | config)))  # type: ignore[call-overload]


class Objects:
    """One bucket: whole objects by key."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        """Write the object, whole or not at all; returns its URI."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def get(self, key: str) -> bytes:
        body: bytes = self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def list(self, prefix: str) -> Iterator[str]:
        """Keys below the prefix, in order."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield item["Key"]

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.bucket, Key=key)
