"""Mistakes in what carries events on to another stream, to be planted: see `tests/simulation/bugs.py`."""

from typing import Any

from headwater.processors.shard.outgoing import Outgoing
from headwater.stream import sequence

__all__ = ["STREAM_BUGS"]

_claim = Outgoing._claim
_write = Outgoing._write


def _from_the_commit(self: Outgoing) -> None:
    _claim(self)
    self._through = sequence.NONE


def _unwritten(self: Outgoing, through: str, sent: Any, batches: Any) -> None:
    if not batches:
        _write(self, through, sent, batches)


def _put_by_none(self: Outgoing) -> None:
    _claim(self)
    self._waiting = []


def _nothing(*_: Any, **__: Any) -> None:
    return None


STREAM_BUGS: dict[str, list[tuple[Any, str, Any]]] = {
    "what goes on begins at the commit for a new owner": [(Outgoing, "_claim", _from_the_commit)],
    "a commit does not wait for what goes on": [(Outgoing, "before_commit", _nothing)],
    "what goes on is numbered and not written down": [(Outgoing, "_write", _unwritten)],
    "what was written down is not put again": [(Outgoing, "_claim", _put_by_none)],
    "nobody is told of what went on": [(Outgoing, "_announce", _nothing)],
}
