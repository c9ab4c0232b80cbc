"""Mistakes in what carries events on to another stream, to be planted: see `tests/simulation/bugs.py`."""

from typing import Any

from headwater.processors.shard.outgoing import Outgoing
from headwater.stream import sequence

__all__ = ["STREAM_BUGS"]

_claim = Outgoing._claim


def _from_the_commit(self: Outgoing) -> None:
    _claim(self)
    self._through = sequence.NONE


def _nothing(*_: Any, **__: Any) -> None:
    return None


STREAM_BUGS: dict[str, list[tuple[Any, str, Any]]] = {
    "what goes on begins at the commit for a new owner": [(Outgoing, "_claim", _from_the_commit)],
    "a commit does not wait for what goes on": [(Outgoing, "before_commit", _nothing)],
    "nobody is told of what went on": [(Outgoing, "_announce", _nothing)],
}
