"""Errors, named after what the caller does next.

    HeadwaterError                  stop; the text says what happened
      x UsageError                  ask for something else
          + InvalidContract         mend the contract file
      x InvalidRecord               set the record aside as a dead letter, go on with the shard
      x InvalidEvent                mend the event, or leave it out; nothing of it was accepted
      x BufferFull                  produce more slowly; the event was not accepted
      x Fenced                      stop, write nothing, drop what is in memory
      x Retryable                   do the same again after a pause
          + Throttled               do the same again after a longer pause
          + CommitUnknown           read back before deciding

A text is one line fit for a terminal. An error that concerns the stream names the stream, and where they are known the
shard and the sequence number. Errors of boto3 become ours where a caller has to decide by them; nothing else belongs
here, so that every module can import it.
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
    """Say in one line what happened. The base of all errors; the commands exit with 1."""


class UsageError(HeadwaterError):
    """Refuse what cannot be: a missing file, an unknown column, an option out of range. The commands exit with 2."""


class InvalidContract(UsageError):
    """Refuse a contract file; the text names the file and the place in it."""


class InvalidRecord(HeadwaterError):
    """Refuse a Kinesis record that cannot be decoded: it becomes a dead letter and the shard goes on."""


class InvalidEvent(HeadwaterError):
    """Refuse an event that breaks its contract; the text names field and reason. Nothing of it was accepted."""


class BufferFull(HeadwaterError):
    """Refuse an event because the producer's memory bound is reached and its policy is to raise."""


class Retryable(HeadwaterError):
    """Report a passing failure: do the same again after a pause."""


class Throttled(Retryable):
    """Report that the service asks for less: do the same again after a longer pause."""


class Fenced(HeadwaterError):
    """Report that another owner has the shard or the lease: stop, write nothing, drop what is in memory."""


class CommitUnknown(Retryable):
    """Report that the answer to a write was lost: read back before deciding."""
