"""Hold architecture, security and delivery to what is there: each path, test and link that they name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTORS = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
PAGES = ("architecture.md", "whitepaper.md", "security.md", "delivery.md")
CODE = ("headwater", "producers", "processors", "sinks", "serving", "commands")
TOP = (*CODE, "infra", "tests", ".github", "requirements", "docs")


def named(page: str) -> list[str]:
    """Paths in backquotes, with `::test` where there is one."""
    text = (ROOT / "docs" / page).read_text()
    return [one for one in re.findall(r"`([\w./-]+(?:::\w+)?)`", text) if one.startswith(tuple(f"{at}/" for at in TOP))]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_is_there(page: str) -> None:
    found = named(page)
    assert len(found) > 5
    for one in found:
        path, _, test = one.partition("::")
        assert (ROOT / path).exists(), f"{page}: there is no {path}"
        if test:
            names = [n.name for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.FunctionDef)]
            assert test in names, f"{page}: there is no {one}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / page).read_text()):
        assert (ROOT / "docs" / link).exists(), f"{page}: {link}"


def test_every_factor_and_every_threat_has_its_test() -> None:
    text = (ROOT / "docs" / "whitepaper.md").read_text()
    for factor in FACTORS:
        (row,) = re.findall(rf"^\| {factor} .+\|$", text, re.MULTILINE)
        assert "`tests/" in row, factor
    threats = (ROOT / "docs" / "security.md").read_text().partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row for row in rows if "`tests/" not in row] == []
