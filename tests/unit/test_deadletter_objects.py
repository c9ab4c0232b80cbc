"""Many dead letters lie in few objects, each is there once, and one that was written alone is read as ever."""

import json
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.sinks.deadletter import MOST_TOGETHER, DeadLetter, DeadLetters
from headwater.testing.objects import MemoryObjects


def letter(number: int, index: int | None = None, payload: bytes = b"{}") -> DeadLetter:
    return DeadLetter("shardId-000000000000", str(10**40 + number), index, "why", None, None, payload, "c", 0)


def test_a_commit_of_the_most_letters_makes_few_puts() -> None:
    """10,000 of them are ten objects: at 30 ms a PUT a third of a second, where it was five minutes."""
    objects = MemoryObjects()
    DeadLetters(objects).write("p", [letter(number) for number in range(10_000)])
    assert len(objects.bodies) == 10_000 // MOST_TOGETHER
    found = [int(one.sequence_number) - 10**40 for one in DeadLetters(objects).list("p")]
    assert found == [*range(10_000)]


def test_large_letters_are_cut_by_their_bytes() -> None:
    """No object grows with what a record may hold."""
    objects = MemoryObjects()
    DeadLetters(objects).write("p", [letter(number, payload=bytes(3 << 20)) for number in range(9)])
    assert len(objects.bodies) == 5


def test_a_letter_written_alone_is_read_as_ever() -> None:
    """Its key and its bytes are those of before there were others."""
    objects = MemoryObjects()
    DeadLetters(objects).write("p", [letter(7, 3, b"\xff")])
    ((key, body),) = objects.bodies.items()
    assert key == f"dlq/p/shardId-000000000000/{10**40 + 7:056d}-000003.json"
    assert json.loads(body)["payload_base64"] == "/w=="
    assert list(DeadLetters(objects).list("p")) == [letter(7, 3, b"\xff")]


WRITES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), max_size=6)


@settings(max_examples=200, deadline=None)
@given(WRITES, st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_each_letter_is_listed_sent_and_removed_once(
    writes: list[list[int]], sent: set[int], removed: set[int]
) -> None:
    """Whatever was written again in other company, as a reader does that begins again at its last commit."""
    objects = MemoryObjects()
    letters = DeadLetters(objects)
    for numbers in writes:
        letters.write("p", [letter(number, number % 3 or None) for number in numbers])

    def waiting() -> list[int]:
        return sorted(int(one.sequence_number) - 10**40 for one in letters.list("p"))

    there = {number for numbers in writes for number in numbers}
    assert waiting() == sorted(there)
    put: list[int] = []

    def sends(some: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
        for one in some:
            put.append(int(one.sequence_number) - 10**40)
            yield one

    chosen = {letter(number, number % 3 or None).name for number in sent & there}
    assert letters.redrive("p", sends, chosen) == len(chosen)
    assert sorted(put) == sorted(sent & there)
    assert waiting() == sorted(there - sent)
    wanted = {str(10**40 + number) for number in removed}
    gone = letters.remove("p", lambda one: one.sequence_number in wanted)
    assert gone == len(removed & there)
    assert waiting() == sorted(there - sent - removed)
    assert letters.remove("p", lambda one: one.sequence_number in wanted) == 0
