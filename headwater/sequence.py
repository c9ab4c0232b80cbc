"""Kinesis sequence numbers as text that sorts.

A sequence number has up to 56 digits and DynamoDB numbers keep 38, so they are stored zero-padded.
"""

__all__ = ["NONE", "WIDTH", "pad", "unpad"]

WIDTH = 56
NONE = "0" * WIDTH
"""Before the first record of a shard."""


def pad(sequence_number: str) -> str:
    """`'42'` → 56 digits; comparing two padded numbers as text compares them as numbers."""
    if len(sequence_number) > WIDTH or not sequence_number.isdigit():
        raise ValueError(f"not a Kinesis sequence number: {sequence_number!r}")
    return sequence_number.zfill(WIDTH)


def unpad(padded: str) -> str:
    """The form the Kinesis API takes."""
    return padded.lstrip("0") or "0"
