"""Every Python program in the pages for users runs, in order, from an empty folder."""

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.compile(r"```(python|yaml)\n(?:# (\S+\.\w+)\n)?(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["project.md", "programming.md"])
def test_the_programs_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with a file's name is written to it; all else runs, with what ran before."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page}
    text = (DOCS / page).read_text()
    programs = BLOCKS.findall(text)
    assert len(programs) == text.count("```python") + text.count("```yaml") > 1
    for kind, file, body in programs:
        if file:
            (tmp_path / file).write_text(body)
        assert file or kind == "python", body
        if kind == "python":
            exec(compile(body, f"{page}: {file or body.splitlines()[0]}", "exec"), names)
