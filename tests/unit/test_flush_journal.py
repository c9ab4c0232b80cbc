"""The journal of slots that are flushed ahead of a commit: what an owner writes down, the next one knows."""

from typing import Any

import pytest

from headwater.errors import Fenced
from headwater.ledger import Ledger
from headwater.processors.operators.aggregate import SlotName
from headwater.processors.shard import flushes
from headwater.processors.shard.flushes import FlushJournal, flush_document, forget_flushed
from headwater.stream import sequence
from headwater.testing import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects
from tests.typed import a_key

SHARD = "shard-1"


def pos(number: int) -> str:
    return sequence.pad(str(number))


def slot(key: str, window: int = 0, bucket: int = 0, more: int = 7) -> SlotName:
    return SlotName((key, more), window, window + 60, bucket)


ALWAYS = SlotName(("d", 7), None, None, 3)


class World:
    """A shard's ledger and objects."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        db: Any = MemoryDynamoDB()
        keys = [{"AttributeName": n, "KeyType": k} for n, k in (("pipeline", "HASH"), ("item", "RANGE"))]
        db.create_table(TableName="ledger", KeySchema=keys)
        self.ledger = Ledger(db, "ledger", "p")

    def owner(self, epoch: int, position: int = 0) -> FlushJournal:
        return FlushJournal(self.ledger, self.objects, ("p", SHARD), epoch, pos(position))

    @property
    def revision(self) -> int:
        return self.ledger.document(flush_document(SHARD))[1]

    def known(self, epoch: int, position: int = 0, view: str = "v") -> list[SlotName]:
        """What an owner that begins at the position inherits of a view."""
        return self.owner(epoch, position).orphans(view, pos(1 << 60))


@pytest.fixture(params=[True, False], ids=["in the document", "in an object"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(flushes, "INLINE_STATE", 1 << 20 if request.param else 10)
    return World()


def test_the_next_owner_knows_what_was_flushed_and_not_committed(world: World) -> None:
    """Of any view and window, with the position up to which it had to be made."""
    first = world.owner(1)
    revision = world.revision
    first.note({"v": []}, pos(5))
    assert world.revision == revision, "nothing is written for no slot"
    first.note({"v": [slot("a"), ALWAYS], "w": [slot("a", 60, 2)]}, pos(5))
    first.note({"v": [slot("b")]}, pos(9))
    assert world.known(2) == [slot("a"), ALWAYS, slot("b")]
    assert world.known(2, view="w") == [slot("a", 60, 2)]
    assert world.known(3, 4) == [slot("a"), ALWAYS, slot("b")]
    assert world.known(3, 5) == [slot("b")]
    assert world.known(3, 9) == []


def test_an_orphan_is_what_was_not_made_again_by_its_position(world: World) -> None:
    world.owner(1).note({"v": [slot("a")], "w": [slot("a")]}, pos(5))
    second = world.owner(2)
    assert second.orphans("v", pos(4)) == []
    assert second.orphans("v", pos(5)) == second.orphans("w", pos(6)) == [slot("a")]
    second.wrote("v", [slot("a"), slot("b")])
    assert (second.orphans("v", pos(5)), second.orphans("w", pos(5))) == ([], [slot("a")])
    second.committed(pos(4))
    assert second.orphans("w", pos(5)) == [slot("a")]
    second.committed(pos(5))
    assert second.orphans("w", pos(5)) == []
    second.wrote("w", [slot("a")])


def test_what_is_committed_or_made_again_is_written_down_no_more(world: World) -> None:
    """What is inherited is, until then."""
    world.owner(1).note({"v": [slot("a"), slot("b"), slot("c")]}, pos(5))
    second = world.owner(2)
    second.wrote("v", [slot("a")])
    second.note({"v": [slot("a")]}, pos(3))
    assert world.known(3) == [slot("b"), slot("c"), slot("a")]
    fourth = world.owner(4)
    fourth.note({"v": [slot("d")]}, pos(6))
    fourth.committed(pos(6))
    fourth.note({"v": [slot("e")]}, pos(8))
    assert world.known(5) == [slot("e")]


def test_an_owner_that_was_replaced_notes_nothing_and_one_of_before_does_not_begin(world: World) -> None:
    """Whether or not it had written anything."""
    first = world.owner(1)
    noted = world.owner(1)
    noted.note({"v": [slot("a")]}, pos(5))
    world.owner(2)
    for old in (first, noted):
        with pytest.raises(Fenced):
            old.note({"v": [slot("b")]}, pos(6))
    with pytest.raises(Fenced, match="shard shard-1 of pipeline p: another owner has taken it"):
        world.owner(1)
    with pytest.raises(Fenced, match="shard shard-1 of pipeline p: another owner has taken it"):
        first.note({"v": [slot("b")]}, pos(6))
    assert world.known(2) == [slot("a")]


def test_an_object_holds_what_the_document_cannot_and_only_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a byte more."""
    sizes = list[int]()
    monkeypatch.setattr(flushes, "INLINE_STATE", 10)
    world = World()
    first = world.owner(1)
    for number in (5, 6):
        first.note({"v": [slot("a", number)]}, pos(number))
        (key,) = world.objects.bodies
        assert first.key == key
        assert key.startswith(f"state/p/{SHARD}/flushed-00000001-")
        sizes.append(len(world.objects.bodies[key]))
    second = world.owner(2)
    assert second.key == key
    monkeypatch.setattr(flushes, "INLINE_STATE", 1 << 20)
    second.note({"v": [slot("b")]}, pos(9))
    assert (second.key, world.objects.bodies) == ("", {})
    assert len(world.known(3)) == 3
    for most, inside in ((sizes[0], True), (sizes[0] - 1, False)):
        monkeypatch.setattr(flushes, "INLINE_STATE", most)
        other = World()
        other.owner(1).note({"v": [slot("a", 5)]}, pos(5))
        assert (not other.objects.bodies) == inside


def test_a_key_that_is_forgotten_leaves_the_journal(world: World) -> None:
    """Of the views that have it in this column, and no other key's slots; twice is as once."""
    by = {"v": ["device", "more"], "w": ["site", "device"]}
    forget_flushed(world.ledger, world.objects, SHARD, by, a_key("device", "a"))
    assert world.revision == 0, "nothing is made where there is none"
    world.owner(1).note({"v": [slot("a"), slot("b"), ALWAYS], "w": [slot("a")], "x": [slot("a")]}, pos(5))
    for column, value in (("device", "a"), ("more", "8"), ("device", "a")):
        forget_flushed(
            world.ledger, world.objects, SHARD, by, a_key(column, value, "long" if column == "more" else "string")
        )
        assert world.objects.bodies == {}
        assert world.known(1) == [slot("b"), ALWAYS]
        assert world.known(1, view="w") == world.known(1, view="x") == [slot("a")]
    forget_flushed(world.ledger, world.objects, SHARD, by, a_key("device", "7", "long"))
    assert (world.known(1, view="w"), len(world.known(1))) == ([], 2)
    forget_flushed(world.ledger, world.objects, SHARD, by, a_key("more", "7", "long"))
    assert world.known(1) == []
