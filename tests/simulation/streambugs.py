"""Mistakes in what carries events on to another stream, to be planted: see `tests/simulation/bugs.py`."""

from typing import Any

from headwater.processors.shard.outgoing import Outgoing

__all__ = ["STREAM_BUGS"]


def _nothing(*_: Any, **__: Any) -> None:
    return None


STREAM_BUGS: dict[str, list[tuple[Any, str, Any]]] = {
    "a commit does not wait for what goes on": [(Outgoing, "before_commit", _nothing)],
}
