"""Run the notebooks for the documentation site, into build/notebooks: `make site` does, before MkDocs.

A notebook is run again when it, or what it shares with the others, has changed. `infra.site` shows what the last run of
just these cells gave; a site that is built without has the cells alone.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from headwater.config import use_environment

__all__ = ["main", "ran"]

ROOT = Path(__file__).parents[1]
NOTEBOOKS, BUILD = ROOT / "notebooks", ROOT / "build" / "notebooks"
_TIMEOUT_S = 600
"""Seconds that one cell may take, on a busy machine."""


def ran(path: Path) -> Path:
    """Return where a notebook lies with its outputs, once it was run as it is now."""
    source = path.read_bytes() + (NOTEBOOKS / "lake.py").read_bytes()
    return BUILD / f"{path.stem}-{hashlib.sha256(source).hexdigest()[:16]}.ipynb"


def main() -> int:
    """Run those that have changed; raise the error of a cell that fails."""
    BUILD.mkdir(parents=True, exist_ok=True)
    use_environment({"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        made = ran(path)
        if made.exists():
            continue
        sys.stderr.write(f"running {path.name}\n")
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=_TIMEOUT_S, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
        for old in BUILD.glob(f"{path.stem}-*.ipynb"):
            old.unlink()
        nbformat.write(notebook, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
