"""Hold the ports of what is kept outside the process: named documents, and whole objects by key.

A port here is one that several rooms need in the same form. What only one room asks of the ledger or the bucket is a
port of that room's, built on one of these. No implementation belongs here: `headwater.ledger`, `headwater.aws` and
`headwater.testing` have them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

__all__ = ["DocumentReader", "DocumentStore", "ObjectStore"]


class DocumentReader(Protocol):
    """Read named JSON documents: `headwater.ledger.Ledger`, as far as a reader needs it."""

    def document(self, name: str) -> tuple[dict[str, Any], int]:
        """Return a document and its revision; `({}, 0)` when there is none."""


class DocumentStore(DocumentReader, Protocol):
    """Read and write named JSON documents, each write on condition of what was read."""

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int:
        """Replace the document of this revision, else raise Fenced; return the new revision."""

    def change(self, name: str, make: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> dict[str, Any]:
        """Replace a document by what `make` makes of it, and return the new one; None leaves it as it is."""


class ObjectStore(Protocol):
    """Hold whole objects by key: `headwater.aws.Objects` does so on S3."""

    def put(self, key: str, body: bytes) -> str:
        """Write the object, whole or not at all, and return its URI."""

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with `prefix`, in order."""

    def delete(self, key: str) -> None:
        """Delete the object; one that is not there is deleted already."""
