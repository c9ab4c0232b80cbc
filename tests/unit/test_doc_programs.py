"""Every Python program in the pages for users runs, in order, from an empty folder."""

import re
from pathlib import Path
from typing import Any

import pytest

from headwater import load_contract

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.compile(r"```(python|yaml)\n(?:# (\S+\.\w+)\n)?(.*?)```", re.DOTALL)


PAGES = ["alerts.md", "formats.md", "lake.md", "programming.md", "project.md"]
ELSEWHERE = {
    "gateway.md": "tests/integration/test_gateway_docs.py",
    "getting-started.md": "tests/unit/test_getting_started.py",
    "tutorials/analyst.md": "tests/integration/test_tutorials.py",
    "tutorials/shards.md": "tests/integration/test_tutorials.py",
}
"""Pages whose programs need more than an empty folder, with the test that runs them."""


def test_no_page_has_a_program_that_nothing_runs() -> None:
    pages = {
        str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if re.search("```(python|yaml)", page.read_text())
    }
    assert pages == {*PAGES, *ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (DOCS.parent / test).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with a file's name is written to it; all else runs, with what ran before."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page}
    text = (DOCS / page).read_text()
    programs = BLOCKS.findall(text)
    assert len(programs) == text.count("```python") + text.count("```yaml") > 0
    for kind, file, body in programs:
        if file:
            (tmp_path / file).write_text(body)
            if file.endswith(".yaml"):
                assert load_contract(file).name == file.removesuffix(".yaml")
        assert file or kind == "python", body
        if kind == "python":
            exec(compile(body, f"{page}: {file or body.splitlines()[0]}", "exec"), names)
