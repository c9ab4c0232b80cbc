"""Errors, named after what the caller does next.

Every error that concerns the stream carries its stream, shard and sequence number in the text.
"""

__all__ = [
    "BufferFull",
    "CommitUnknown",
    "Fenced",
    "HeadwaterError",
    "InvalidContract",
    "InvalidEvent",
    "InvalidRecord",
    "Retryable",
    "Throttled",
    "UsageError",
]


class HeadwaterError(Exception):
    """Base of all errors; its text is one line fit for a terminal. The commands exit with 1."""


class UsageError(HeadwaterError):
    """The caller asked for something that cannot be: a missing file, an unknown column. The commands exit with 2."""


class InvalidContract(UsageError):
    """A contract file that cannot be used; the text names the file and the place in it."""


class InvalidRecord(HeadwaterError):
    """A Kinesis record that cannot be decoded: it goes to the dead letters, the shard goes on."""


class InvalidEvent(HeadwaterError):
    """An event that breaks its contract; the text names field and reason. Nothing of it was accepted."""


class BufferFull(HeadwaterError):
    """The producer's memory bound is reached and its policy is to raise. The event was not accepted."""


class Retryable(HeadwaterError):
    """A passing failure: do the same again after a pause."""


class Throttled(Retryable):
    """The service asks for less: do the same again after a longer pause."""


class Fenced(HeadwaterError):
    """Another owner has taken the shard or the lease: stop, write nothing, drop what is in memory."""


class CommitUnknown(Retryable):
    """The answer to a write was lost: read back before deciding."""
