"""Cut what is written together into parts that a request or an object can hold. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_parts"]

T = TypeVar("T")


def in_parts(items: Iterable[T], size: Callable[[T], int], most: int, most_bytes: int) -> Iterator[list[T]]:
    """Yield the items in parts of at most so many, and of so many bytes but for one item that has more.

    `size` returns the bytes of an item.

    >>> list(in_parts([b"abc", b"d", b"e", b"f"], len, 2, 3))
    [[b'abc'], [b'd', b'e'], [b'f']]
    """
    part: list[T] = []
    total = 0
    for item in items:
        if part and (len(part) == most or total + size(item) > most_bytes):
            yield part
            part, total = [], 0
        part.append(item)
        total += size(item)
    if part:
        yield part
