"""What becomes of each pending file, by what the table has, what its visible history had and what was tried."""

from dataclasses import dataclass, field

import pytest

from headwater.ledger import PendingFile
from headwater.sinks.lake.standing import FilePlan, Paths, TableState, digest, plan_files


@dataclass(frozen=True)
class Asked(TableState):
    """A table's state that remembers how far back its history was asked for."""

    before: list[int] = field(default_factory=list)

    def history(self, before: int) -> tuple[Paths, int]:
        self.before.append(before)
        return super().history(before)


def pending(names: str) -> list[PendingFile]:
    return [PendingFile("t", name, 1, 1) for name in names]


def tried(**names: int) -> dict[str, int]:
    return {digest(name): number for name, number in names.items()}


def test_a_files_digest_is_written_down_and_never_changes() -> None:
    assert digest("s3://bucket/lake/t/data/a.parquet") == "9fd2101fbcf0f324"


def test_a_table_without_a_snapshot_has_given_out_no_number() -> None:
    state = TableState(frozenset())
    assert (state.sequence, state.history(0)) == (0, (frozenset(), 0))


def test_a_file_stands_if_the_table_has_it_or_had_it_after_it_was_tried() -> None:
    """One that nobody has tried is in no history, whatever that says; that is read once, as far as is needed."""
    state = Asked(frozenset("az"), frozenset("bf"), 7)
    attempts = tried(a=1, b=5, c=9, d=3, y=2)
    wanted = FilePlan(("c", "e", "f"), frozenset("ab"), frozenset("d"))
    assert plan_files(pending("abbcdefa"), state, attempts) == wanted
    assert state.before == [3]
    for names, plan in (("ze", FilePlan(("e",), frozenset("z"))), ("", FilePlan((), frozenset()))):
        assert plan_files(pending(names), state, attempts) == plan
    assert state.before == [3], "nothing that was tried is missing"


@pytest.mark.parametrize(("visible_from", "decided"), [(7, True), (8, False)])
def test_a_file_is_undecided_where_the_snapshot_after_its_attempt_is_not_visible(
    visible_from: int, decided: bool
) -> None:
    """That has the next number at least."""
    plan = plan_files(pending("c"), TableState(frozenset(), frozenset(), visible_from), tried(c=6))
    assert plan == (FilePlan(("c",), frozenset()) if decided else FilePlan((), frozenset(), frozenset("c")))
