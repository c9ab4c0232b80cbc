"""The documentation site: built strictly, nothing loaded from elsewhere, and everything public is on it."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

from headwater.commands import app
from headwater.producers.producer import Producer
from headwater.producers.settings import Receipt
from infra.site import MODULES, commands, fields, figures, markdown, notebook, signature

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*\shref=\"?(?:https?:)?//[^>]*>"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that links to what is not there, or that no menu has, ends the build."""
    made = tmp_path_factory.mktemp("site")
    (line,) = re.findall(r"^\tNO_MKDOCS_2_WARNING=1 (.+ build .+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = [*line.replace("$(BIN)", str(Path(sys.executable).parent)).split(), "--site-dir", str(made)]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return made


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No fonts, scripts, images or styles of other hosts."""
    pages = [*site.rglob("*.html")]
    assert len(pages) > 50
    assert not [page.name for page in pages if LOADED.search(page.read_text())]
    assert not [
        one for one in site.rglob("*.css") if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", one.read_text())
    ]


def test_every_public_name_has_its_place(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text()
    names = [name for module in MODULES for name in import_module(module).__all__ if not name.startswith("__")]
    assert len(names) > 50
    assert not [name for name in names if f'id="{name}"' not in page]
    assert 'id="Producer.aput"' in page
    assert "A batch is sealed at so many events." in page, "fields of settings are documented"


def test_every_command_is_there(site: Path) -> None:
    page = unescape((site / "reference" / "cli.html").read_text())
    names = [name for name, _ in commands("headwater", typer.main.get_command(app))]
    assert {"headwater audit", "headwater audit accept", "headwater view get"} <= set(names)
    assert not [name for name in names if f'id="{name.replace(" ", "-")}"' not in page]
    assert "--sample" in page


def test_a_notebook_that_was_run_shows_what_it_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as files, tables as they are, text as text, warnings not; and its cells alone before."""
    path, made = tmp_path / "a.ipynb", tmp_path / "ran.ipynb"
    outputs = [
        {"data": {"image/png": "aGk=", "text/plain": "<Figure>"}},
        {"data": {"text/html": "<div>\n <style scoped>\n x {}\n</style>\n <table></table></div>", "text/plain": "t"}},
        {"name": "stdout", "text": ["182 hours", " agree\n"]},
        {"name": "stderr", "text": "a warning"},
    ]
    cell = {"cell_type": "code", "source": ["1 + 1"]}
    path.write_text(json.dumps({"cells": [cell]}))
    made.write_text(json.dumps({"cells": [cell | {"outputs": outputs}]}))
    monkeypatch.setattr("infra.site.ran", lambda _: made)
    assert figures(path) == {"a-0.png": b"hi"}
    page = notebook(path)
    assert "![a figure](a-0.png)" in page
    assert "<div><table></table></div>" in page
    assert "```text\n182 hours agree\n```" in page
    assert "warning" not in page
    made.unlink()
    assert figures(path) == {}
    assert notebook(path).startswith("```python\n1 + 1\n```\n\nTo run it")


def test_prose_of_a_docstring_is_text() -> None:
    """Text that looks like HTML or Markdown is neither; examples are code."""
    assert markdown("Take <b> and a_b_c, `x_<y>`.\n\n>>> 1\n1") == (
        "Take &lt;b> and a\\_b\\_c, `x_<y>`.\n\n```pycon\n>>> 1\n1\n```"
    )

    assert list(fields(Path)) == []


def test_signatures_are_as_one_reads_them() -> None:
    assert signature("Receipt", Receipt).startswith("```python\nReceipt(origin: str, first_seq: int,")
    assert signature("Producer.aput", Producer.aput) == (
        "```python\nawait Producer.aput(event: Mapping[str, object]) -> asyncio.Future[Receipt]\n```"
    )
    made = signature("Producer", Producer)
    assert "    contract: Contract | str | Path,\n    *,\n    client: Any = None,\n" in made
    assert made.endswith("\n)\n```")
