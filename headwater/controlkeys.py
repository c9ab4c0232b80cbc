"""The key that a stream's control records are signed with: one document a stream, in the ledger's table.

All pipelines of a stream share it, and so do its producers, who put receipts: it lies under a hash key of its own, so
that a producer's role can read that and nothing of any pipeline.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from headwater.ledger import Ledger
from headwater.stores import DocumentReader, DocumentStore

__all__ = ["STREAMS", "ensure_control_key", "read_control_key", "streams"]

STREAMS = "@streams"
"""The hash key of all streams' keys in the ledger's table: one that no pipeline can have."""


def streams(client: Any, table: str) -> Ledger:
    """Return the part of the ledger's table that has the keys. `client` is a DynamoDB client of boto3."""
    return Ledger(client, table, STREAMS)


def read_control_key(stream: str, documents: DocumentReader) -> bytes | None:
    """Return the stream's key; None when it has none yet."""
    document, _ = documents.document(stream)
    return bytes.fromhex(document["key"]) if document else None


def ensure_control_key(stream: str, documents: DocumentStore) -> bytes:
    """Return the stream's key, made where there is none. It is never replaced: what it signed lies on the stream.

    >>> from headwater.testing.dynamodb import MemoryDynamoDB
    >>> database = MemoryDynamoDB()
    >>> names = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    >>> _ = database.create_table(TableName="ledger", KeySchema=names)
    >>> keys = streams(database, "ledger")
    >>> ensure_control_key("readings", keys) == read_control_key("readings", keys)
    True
    """

    def made(document: Mapping[str, Any]) -> dict[str, Any] | None:
        return None if document else {"key": secrets.token_hex(32)}

    return read_control_key(stream, documents) or bytes.fromhex(documents.change(stream, made)["key"])
