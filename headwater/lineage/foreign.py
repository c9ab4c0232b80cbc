"""Tell foreign events by their origin: events that others wrote without an identity."""

import re

__all__ = ["is_foreign"]

_PLACE = re.compile(r"shardId-\d+:\d+")


def is_foreign(origin: str) -> bool:
    """Tell whether the origin is a place in the stream, which is the identity of a foreign event.

    >>> is_foreign("shardId-000000000000:49590338271490256608559692538361571095921575989136588898")
    True
    >>> is_foreign("device-7")
    False
    """
    return _PLACE.fullmatch(origin) is not None
