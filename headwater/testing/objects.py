"""An in-memory bucket with the calls of headwater.aws.Objects."""

from collections.abc import Iterator

__all__ = ["MemoryObjects"]


class MemoryObjects:
    """Whole objects by key."""

    def __init__(self, bucket: str = "memory") -> None:
        self.bucket = bucket
        self.bodies: dict[str, bytes] = {}

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        self.bodies[key] = body
        return self.uri(key)

    def get(self, key: str) -> bytes:
        return self.bodies[key]

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self.bodies if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.bodies.pop(key, None)
