"""Kinesis sequence numbers as text that sorts.

A sequence number has up to 56 digits and DynamoDB numbers keep 38, so they are stored zero-padded.
"""

__all__ = ["NONE", "WIDTH", "pad", "unpad"]

WIDTH = 56
NONE = "0" * WIDTH
"""Before the first record of a shard."""


def pad(sequence_number: str) -> str:
    """Pad a sequence number to 56 digits: comparing two padded ones as text compares them as numbers.

    Raise ValueError for a text that is no sequence number.

    >>> pad("42") < pad("100")
    True
    """
    if len(sequence_number) > WIDTH or not sequence_number.isdigit():
        raise ValueError(f"not a Kinesis sequence number: {sequence_number!r}")
    return sequence_number.zfill(WIDTH)


def unpad(padded: str) -> str:
    """Strip the padding: the form that the Kinesis API takes.

    >>> unpad(pad("42"))
    '42'
    """
    return padded.lstrip("0") or "0"
