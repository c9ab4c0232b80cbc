"""Check that each shipped contract may follow the one at a revision: `python -m infra.contracts REVISION`.

Exit with 1 when one may not.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headwater.contract import check_compatible, load_contract

__all__ = ["faults"]

FOLDER = "headwater/contract/shipped"


def faults(root: Path, revision: str) -> Iterator[str]:
    """Return one line for each change that breaks what conformed before; a contract that is gone breaks everything."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout

    for name in git("ls-tree", "--name-only", revision, f"{FOLDER}/").split():
        if not name.endswith(".yaml"):
            continue
        if not (root / name).exists():
            yield f"{name}: is gone"
            continue
        with tempfile.TemporaryDirectory() as folder:
            old = Path(folder) / "old.yaml"
            old.write_text(git("show", f"{revision}:{name}"))
            before, after = load_contract(str(old)), load_contract(str(root / name))
        if before != after:
            yield from (f"{name}: {fault}" for fault in check_compatible(before, after))


if __name__ == "__main__":
    found = list(faults(Path.cwd(), sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in found) or "every contract may follow the one in force\n")
    sys.exit(bool(found))
