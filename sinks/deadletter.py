"""Keep dead letters on S3: what could not be processed, with the reason, until somebody sends it again.

An object's key and bytes follow from its letters, so a replay overwrites it with the same, or writes some letters once
more, which are known by their place. Who sends a letter again, and
how, is the caller's business.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from headwater.errors import HeadwaterError
from headwater.parts import in_parts
from headwater.stores import ObjectStore
from headwater.stream import sequence

__all__ = ["MOST_TOGETHER", "DeadLetter", "DeadLetters", "Put", "letters_in"]

MOST_TOGETHER = 1_000
"""Letters in one object: of the 10,000 that a commit may have, ten PUTs; and as many at most are sent again when a
redrive is killed."""
_MOST_BYTES = 8 << 20
"""Bytes of payloads in one object, but for one letter that is larger."""

Put = Callable[[Sequence["DeadLetter"]], Iterable["DeadLetter"]]
"""Sends letters again, and yields each once it is sent."""


class DeadLetter(NamedTuple):
    """Hold a record that cannot be decoded, or one event of a record that breaks its contract.

    For a record `index` is None and `payload` is the record's data; for an event `index` is its row in the record and
    `payload` the event as JSON. `arrived_ms` is the record's arrival in Kinesis, epoch ms.
    """

    shard_id: str
    sequence_number: str
    index: int | None  # type: ignore[assignment]  # a tuple has a method of that name, which nobody asks a letter for
    reason: str
    origin: str | None
    seq: int | None
    payload: bytes
    contract: str
    arrived_ms: int

    @property
    def name(self) -> str:
        """Return what a letter is called: SHARD:SEQUENCE-NUMBER, with :ROW for one event of a record."""
        return f"{self.shard_id}:{self.sequence_number}" + ("" if self.index is None else f":{self.index}")


class DeadLetters:
    """Keep the dead letters of all pipelines: those that wait below dlq/, those sent again below redriven/.

    The letters of a write go into few objects, so that many cost a commit little. A letter that is written again, by a
    reader that begins again at its last commit, may lie in two objects: it is one letter still.

    >>> letters = DeadLetters(objects)
    >>> letters.write("telemetry", [DeadLetter("shardId-0", "7", None, "no codec", None, None, b"?", "telemetry", 0)])
    >>> [(letter.sequence_number, letter.reason) for letter in letters.list("telemetry")]
    [('7', 'no codec')]
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def write(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        """Keep the letters; writing one again changes nothing."""
        for shard_id, some in groupby(sorted(letters, key=_place), key=lambda letter: letter.shard_id):
            for together in in_parts(some, lambda letter: len(letter.payload), MOST_TOGETHER, _MOST_BYTES):
                self._objects.put(f"dlq/{_path(pipeline, shard_id, together)}", _body(together))

    def list(self, pipeline: str) -> Iterator[DeadLetter]:
        """Yield the letters that wait, each once, by shard and, but for those written twice, by sequence number."""
        for _, letters, _ in self._stored(f"dlq/{_quoted(pipeline)}/"):
            yield from letters

    def remove(self, pipeline: str, matches: Callable[[DeadLetter], bool]) -> int:
        """Delete the letters for which `matches` returns True, waiting and sent again; return how many."""
        gone = 0
        for top in ("dlq", "redriven"):
            for key, fresh, there in self._stored(f"{top}/{_quoted(pipeline)}/"):
                going = {_place(letter) for letter in there if matches(letter)}
                gone += sum(_place(letter) in going for letter in fresh)
                self._replace(pipeline, key, there, [letter for letter in there if _place(letter) not in going])
        return gone

    def redrive(self, pipeline: str, put: Put, names: Collection[str] | None = None) -> int:
        """Send the letters that wait, or those with these names, then move them to redriven/; return how many.

        `put` gets those of an object together, and yields each once it is sent. They are moved after that, so a crash
        in between sends them again, `MOST_TOGETHER` at most: at least once. Letters that come meanwhile are left.
        """
        sent, last = 0, ("", "", 0)
        missing = None if names is None else set(names)
        for key, fresh, there in self._stored(f"dlq/{_quoted(pipeline)}/"):
            if missing is not None and not missing and _first_place(key) > last:
                break  # nor has any object behind it a copy of one that was sent
            mine = [letter for letter in fresh if names is None or letter.name in names]
            # the copies of those that were met before go with them
            done = {_place(letter) for letter in there if names is None or letter.name in names} - {*map(_place, mine)}
            try:
                for letter in put(mine) if mine else ():
                    done.add(_place(letter))
                    sent += 1
            finally:  # also when one cannot be sent: those before it are not sent again
                self._move(pipeline, [letter for letter in mine if _place(letter) in done])
                self._replace(pipeline, key, there, [letter for letter in there if _place(letter) not in done])
            if missing is not None:
                missing -= {letter.name for letter in mine}
                last = max([last, *map(_place, mine)])
        return sent

    def _move(self, pipeline: str, letters: Sequence[DeadLetter]) -> None:
        if letters:
            self._objects.put(f"redriven/{_path(pipeline, letters[0].shard_id, letters)}", _body(letters))

    def _replace(self, pipeline: str, key: str, there: Sequence[DeadLetter], kept: Sequence[DeadLetter]) -> None:
        """Leave these letters of an object's. An object never changes: those that stay get one of their own."""
        if len(kept) == len(there):
            return
        if kept:
            top = key.partition("/")[0]
            self._objects.put(f"{top}/{_path(pipeline, kept[0].shard_id, kept)}", _body(kept))
        self._objects.delete(key)

    def _stored(self, prefix: str) -> Iterator[tuple[str, Sequence[DeadLetter], Sequence[DeadLetter]]]:
        """Yield the objects in order of their first letter: key, those letters that no earlier one has, all letters."""
        # places by the last place of the object they were met in: what begins behind it cannot have them too
        met: list[tuple[tuple[str, str, int], set[tuple[str, str, int]]]] = []
        for key in list(self._objects.list(prefix)):
            letters = _letters(key, self._objects.get(key))
            first = _first_place(key)
            met = [(last, places) for last, places in met if last >= first]
            fresh = [letter for letter in letters if not any(_place(letter) in places for _, places in met)]
            met.append((max(map(_place, letters)), {_place(letter) for letter in letters}))
            yield key, fresh, letters


def _place(letter: DeadLetter) -> tuple[str, str, int]:
    """Return what a letter is known by: shard, padded sequence number, and the event's place, -1 for a whole record."""
    return letter.shard_id, sequence.pad(letter.sequence_number), -1 if letter.index is None else letter.index


def _quoted(name: str) -> str:
    return quote(name, safe=":@")


def _path(pipeline: str, shard_id: str, letters: Sequence[DeadLetter]) -> str:
    """Return the path of an object: that of its letter, or of the first and last of several."""
    places = [*map(_place, letters)]
    ends = [f"{place[1]}{'' if place[2] < 0 else f'-{place[2]:06d}'}" for place in (places[0], places[-1])]
    # other letters between the same ends, as other code makes them of the same records, are another object
    digest = hashlib.blake2b(repr(places).encode(), digest_size=4).hexdigest()
    name = f"{ends[0]}.json" if len(letters) == 1 else f"{ends[0]}_{ends[1]}_{len(letters)}_{digest}.ndjson"
    return f"{_quoted(pipeline)}/{_quoted(shard_id)}/{name}"


def letters_in(key: str) -> int:
    """Return the number of letters in an object, from its key.

    >>> letters_in("dlq/p/shardId-0/0001.json")
    1
    """
    return int(key.rsplit("_", 2)[1]) if key.endswith(".ndjson") else 1


def _first_place(key: str) -> tuple[str, str, int]:
    """Return the place of the first letter that an object was written with, from its key."""
    _, shard_id, name = key.rsplit("/", 2)
    number, _, index = name.partition(".")[0].partition("_")[0].partition("-")
    return unquote(shard_id), number, int(index) if index else -1


def _body(letters: Sequence[DeadLetter]) -> bytes:
    if len(letters) == 1:
        return json.dumps(_document(letters[0]), indent=1).encode()
    return b"".join(json.dumps(_document(letter)).encode() + b"\n" for letter in letters)


def _document(letter: DeadLetter) -> dict[str, Any]:
    document: dict[str, Any] = letter._asdict()
    try:
        document["payload"] = letter.payload.decode()
    except UnicodeDecodeError:
        del document["payload"]
        document["payload_base64"] = base64.b64encode(letter.payload).decode()
    return document


def _letters(key: str, body: bytes) -> list[DeadLetter]:
    """Return the letters in an object: one over lines, as they were all once written, or one a line."""
    lines = body.splitlines() if key.endswith(".ndjson") else [body]
    return [_letter(key, line) for line in lines]


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
