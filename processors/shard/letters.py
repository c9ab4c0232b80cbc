"""Gather the dead letters of a commit, within bounds, and say at once that there are some."""

import logging
from collections.abc import Sequence

from headwater.clock import Clock
from headwater.processors.engine.bounds import MAX_LETTER_BYTES, MAX_LETTERS
from headwater.processors.shard.context import LetterWriter
from headwater.sinks.deadletter import DeadLetter

__all__ = ["GatheredLetters"]

_TOLD_MS = 10_000
"""Shortest time between a shard's lines on its letters: the alarm on them counts minutes (infra/stacks/watch.py)."""

log = logging.getLogger("headwater.processor")


class GatheredLetters:
    """Hold the letters since the last commit.

    They are told of in the log before the commit that keeps them, which may be a minute away: how many, and the reason
    of one. What is read again is told of again.
    """

    def __init__(self, shard_id: str, clock: Clock) -> None:
        self._shard_id, self._clock = shard_id, clock
        self._letters: list[DeadLetter] = []
        self._bytes = self._told = self._told_ms = 0

    @property
    def are_enough(self) -> bool:
        """Return True when a commit is due because of them."""
        return len(self._letters) >= MAX_LETTERS or self._bytes >= MAX_LETTER_BYTES

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Take in letters."""
        if letters:
            self._letters += letters
            self._bytes += sum(len(letter.payload) for letter in letters)
            if self._clock.now_ms() - self._told_ms >= _TOLD_MS:
                self._tell()

    def write(self, letters: LetterWriter, pipeline: str) -> None:
        """Write them, in few objects."""
        if self._letters:
            self._tell()
            letters.write(pipeline, self._letters)

    def committed(self) -> None:
        """Begin the next commit's."""
        self._letters = []
        self._bytes = self._told = 0

    def _tell(self) -> None:
        fresh = len(self._letters) - self._told
        if fresh:
            reason = self._letters[self._told].reason
            log.warning("dead letters", extra={"shard": self._shard_id, "letters": fresh, "reason": reason})
            self._told, self._told_ms = len(self._letters), self._clock.now_ms()
