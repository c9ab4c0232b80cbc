"""State the bounds on what one record, and one commit, may make of a shard, each with its source.

A record is data: whoever may write to the stream chooses it. What it makes here is bounded, so that no record keeps a
shard from its next commit; the excess is a dead letter with its reason.
"""

from headwater.codec.bounds import MAX_INVALID

__all__ = [
    "MAX_LETTERS",
    "MAX_LETTER_BYTES",
    "MAX_ORIGIN_BYTES",
    "MAX_PENDING_BYTES",
    "pending_bytes",
]

_ENTRY_BYTES = 70
"""A pending entry without its texts: names of attributes 17, numbers up to 22 each, a map and its place 9."""

MAX_PENDING_BYTES = 320_000
"""Bytes of pending entries in a ledger item. A DynamoDB item holds 400 KB, 409,600 bytes
(https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html): beside them there is room for an
inline snapshot of 64 KB and for the counts."""
MAX_LETTERS = MAX_INVALID
"""Most dead letters of one commit, in objects of 1,000. A record with more events that break the contract is one letter
as a whole."""
MAX_LETTER_BYTES = 64 << 20
"""Bytes of letters' payloads after which a commit is due: of the memory that they take, and eight objects or so."""
MAX_ORIGIN_BYTES = 1_024
"""Longest origin of an event, in UTF-8: a shard remembers each for 30 days. As long as a DynamoDB sort key."""


def pending_bytes(table: str, uri: str) -> int:
    """Return at least the bytes of a pending file's entry in the ledger item, by DynamoDB's rules for item sizes."""
    return len(table.encode()) + len(uri.encode()) + _ENTRY_BYTES
