"""Dead letters: what could not be processed, kept on S3 with the reason until somebody sends it again.

An object's key and bytes follow from the letter, so a replay overwrites it with the same.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from urllib.parse import quote

from headwater import sequence
from headwater.errors import HeadwaterError

__all__ = ["DeadLetter", "DeadLetters", "ObjectStore"]


class ObjectStore(Protocol):
    """Whole objects by key: what headwater.aws.Objects does on S3."""

    def put(self, key: str, body: bytes) -> str: ...

    def get(self, key: str) -> bytes: ...

    def list(self, prefix: str) -> Iterator[str]: ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class DeadLetter:
    """A record that cannot be decoded (index None: payload is the record's data) or one event of a record that breaks
    its contract (index: its row in the record; payload: the event as JSON).
    """

    shard_id: str
    sequence_number: str
    index: int | None
    reason: str
    origin: str | None
    seq: int | None
    payload: bytes
    contract: str
    arrived_ms: int


class DeadLetters:
    """The dead letters of all pipelines, below dlq/, and those sent again, below redriven/."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def write(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; writing one again changes nothing."""
        for letter in letters:
            self._objects.put(f"dlq/{_path(pipeline, letter)}", _body(letter))

    def list(self, pipeline: str) -> Iterator[DeadLetter]:
        """The letters that wait, by shard and sequence number."""
        for key in self._objects.list(f"dlq/{_quoted(pipeline)}/"):
            yield _letter(key, self._objects.get(key))

    def remove(self, pipeline: str, about: Callable[[DeadLetter], bool]) -> int:
        """Delete the letters of which `about` says true, those that wait and those sent again; how many they were."""
        gone = 0
        for top in ("dlq", "redriven"):
            for key in list(self._objects.list(f"{top}/{_quoted(pipeline)}/")):
                if about(_letter(key, self._objects.get(key))):
                    self._objects.delete(key)
                    gone += 1
        return gone

    def redrive(self, pipeline: str, letters: Iterable[DeadLetter], put: Callable[[DeadLetter], None]) -> int:
        """Send each letter by `put`, then move it to redriven/; returns how many were sent.

        A letter is moved only after `put` has returned, so a crash in between sends it again: at least once.
        """
        sent = 0
        for letter in tuple(letters):
            put(letter)
            path = _path(pipeline, letter)
            self._objects.put(f"redriven/{path}", _body(letter))
            self._objects.delete(f"dlq/{path}")
            sent += 1
        return sent


def _quoted(name: str) -> str:
    return quote(name, safe=":@")


def _path(pipeline: str, letter: DeadLetter) -> str:
    index = "" if letter.index is None else f"-{letter.index:06d}"
    number = sequence.pad(letter.sequence_number)
    return f"{_quoted(pipeline)}/{_quoted(letter.shard_id)}/{number}{index}.json"


def _body(letter: DeadLetter) -> bytes:
    document: dict[str, Any] = asdict(letter)
    try:
        document["payload"] = letter.payload.decode()
    except UnicodeDecodeError:
        del document["payload"]
        document["payload_base64"] = base64.b64encode(letter.payload).decode()
    return json.dumps(document, indent=1).encode()


def _letter(key: str, body: bytes) -> DeadLetter:
    try:
        document = json.loads(body)
        if "payload_base64" in document:
            document["payload"] = base64.b64decode(document.pop("payload_base64"))
        else:
            document["payload"] = document["payload"].encode()
        return DeadLetter(**document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HeadwaterError(f"{key} is no dead letter: {error}") from error
