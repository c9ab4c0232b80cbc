"""Place records in a stream's hash space.

Kinesis places a record by a hash key: the explicit one of the request, or the MD5 of the partition key. Hash keys are
integers from 0 up to 2**128 - 1, and each open shard owns one inclusive range of them.
"""

import hashlib

__all__ = ["HASH_SPACE", "hash_key_of"]

HASH_SPACE = 1 << 128
"""The number of hash keys (API reference of PutRecord: "128-bit integer values")."""


def hash_key_of(partition_key: str) -> int:
    """Return the hash key at which Kinesis places a record that has no explicit hash key.

    >>> hash_key_of("device-7") < HASH_SPACE
    True
    """
    # MD5 is the service's own rule, not a choice of ours.
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
