"""The checklist in docs/security.md has each requirement of ASVS 4.0.3 up to level 2 once, with its test or reason."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAST = {
    "1.1": 7, "1.2": 4, "1.4": 5, "1.5": 4, "1.6": 4, "1.7": 2, "1.8": 2, "1.9": 2, "1.10": 1, "1.11": 2, "1.12": 2,
    "1.14": 6, "2.1": 12, "2.2": 3, "2.3": 3, "2.4": 5, "2.5": 7, "2.6": 3, "2.7": 6, "2.8": 7, "2.9": 3, "2.10": 4,
    "3.1": 1, "3.2": 4, "3.3": 4, "3.4": 5, "3.5": 3, "3.7": 1, "4.1": 5, "4.2": 2, "4.3": 3, "5.1": 5, "5.2": 8,
    "5.3": 10, "5.4": 3, "5.5": 4, "6.1": 3, "6.2": 6, "6.3": 2, "6.4": 2, "7.1": 4, "7.2": 2, "7.3": 4, "7.4": 3,
    "8.1": 4, "8.2": 3, "8.3": 8, "9.1": 3, "9.2": 4, "10.2": 2, "10.3": 3, "11.1": 8, "12.1": 3, "12.2": 1, "12.3": 6,
    "12.4": 2, "12.5": 2, "12.6": 1, "13.1": 5, "13.2": 6, "13.3": 2, "13.4": 2, "14.1": 4, "14.2": 6, "14.3": 3,
    "14.4": 7, "14.5": 4,
}  # fmt: skip
"""By section the last requirement of level 1 or 2; those of level 3 alone come behind."""
DELETED = {"1.4.2", "1.4.3", "1.12.1", "4.1.4", "7.3.2", "13.1.2", "13.2.4", "14.3.1"}
"""Numbers that version 4.0.3 has given up."""


def expanded(cell: str) -> Iterator[str]:
    """`1.1.1 to 1.1.3, 1.2.1` as single requirements."""
    for part in cell.split(", "):
        first, _, last = part.partition(" to ")
        section, _, number = first.rpartition(".")
        assert not last or last.rpartition(".")[0] == section, part
        stop = int((last or first).rpartition(".")[2])
        yield from (f"{section}.{at}" for at in range(int(number), stop + 1))


def test_every_requirement_is_there_once_with_its_test_or_a_reason() -> None:
    """That a named test exists is looked at for the whole page (tests/infra/test_docs.py)."""
    text = (ROOT / "docs" / "security.md").read_text().partition("## OWASP ASVS")[2].partition("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if re.match(r"\| \d", row)]
    found = Counter(one for row in rows for one in expanded(row[0]))
    wanted = {f"{section}.{at}" for section, last in LAST.items() for at in range(1, last + 1)} - DELETED
    assert {one: times for one, times in found.items() if times > 1} == {}
    assert set(found) == wanted
    assert [row[0] for row in rows if "`tests/" not in row[2] and not row[2].startswith("reason: ")] == []
