"""Hold an S3 bucket in memory, with the calls of `headwater.aws.Objects`."""

from collections.abc import Iterator

__all__ = ["MemoryObjects"]


class MemoryObjects:
    """Hold whole objects by key. A read sees every write before it, as S3 promises; `bodies` is open to tests.

    >>> objects = MemoryObjects()
    >>> objects.put("lake/a.parquet", b"PAR1")
    's3://memory/lake/a.parquet'
    >>> list(objects.list("lake/"))
    ['lake/a.parquet']
    """

    def __init__(self, bucket: str = "memory") -> None:
        self.bucket = bucket
        self.bodies: dict[str, bytes] = {}

    def uri(self, key: str) -> str:
        """Return the `s3://` address of a key."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> str:
        """Write an object, whole, over one that is there; return its address."""
        self.bodies[key] = body
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """Return an object's bytes; raise KeyError when there is none."""
        return self.bodies[key]

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a prefix, in order."""
        yield from sorted(key for key in self.bodies if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is deleted already."""
        self.bodies.pop(key, None)
