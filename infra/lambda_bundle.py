"""Build the deployment bundles of the Lambda functions: their own dependencies and nothing else.

`python -m infra.lambda_bundle FOLDER FUNCTION` builds one (see BUNDLES) with uv from the locked versions, takes out
what is never loaded there, and says what it weighs. A zip may have 250 MB unpacked; the functions' images
hold the same bundle.
"""

import compileall
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from py_compile import PycInvalidationMode

__all__ = ["AUDIT_NEEDS", "BUNDLES", "NEEDS", "PACKAGES", "PUBLISHER_NEEDS", "build", "sizes", "write_aliases"]

ROOT = Path(__file__).parent.parent
_COMMAND_LINE = ("typer", "rich")


def _declared(*extras: str) -> tuple[str, ...]:
    """The distribution's own dependencies but those of the command line, and those of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = [one for one in project["dependencies"] if not one.startswith(_COMMAND_LINE)]
    return (*own, *(one for extra in extras for one in project["optional-dependencies"][extra]))


NEEDS = _declared("lambda")
"""boto3 is among them because the runtime's own changes without notice."""
AUDIT_NEEDS = _declared("lambda", "lake")
"""More than a zip may hold: an image."""
PUBLISHER_NEEDS = tuple(one for one in AUDIT_NEEDS if not one.startswith("duckdb"))
BUNDLES: Mapping[str, Sequence[str]] = {
    "function": NEEDS,
    "function-publish": PUBLISHER_NEEDS,
    "function-audit": AUDIT_NEEDS,
}
"""Bundles by the function's name in infra.stacks.serverless."""
PACKAGES = ("headwater",)
"""With what its links point to."""
_ALIASES: Mapping[str, str] = {
    "processors/runners/lambda_.py": "from headwater.processors.runners.serverless.handler import handler",
    "processors/runners/lambda_jobs.py": "from headwater.processors.runners.serverless.jobs import audit, publish",
}
"""Handlers by the names of the modules that had them before: functions that are configured so go on working."""
_SERVICES = frozenset({"dynamodb", "glue", "kinesis", "s3", "sts"})
_UNUSED = (
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/tests",
    "pyarrow/libarrow_flight.so*",
    "pyarrow/_flight*",
    "zstandard/_cffi*",
    "zstandard/backend_cffi.py",
    "numpy/f2py",
    "numpy/**/tests",
    "hive_metastore",
    "pygments",
    "headwater/commands",
    "headwater/producers",
    "headwater/serving",
    "headwater/testing",
    "headwater/web",
)


def build(folder: Path, needs: Sequence[str] = NEEDS, platform: str | None = None) -> None:
    """Fill an empty folder. `platform` is named as in uv (`aarch64-manylinux_2_28`); default is this machine's."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--target", str(folder)]
    command += ["--constraint", str(ROOT / "requirements" / "dev.txt"), "--no-build"]
    command += ["--python-platform", platform] if platform else []
    subprocess.run([*command, *needs], check=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    write_aliases(folder)
    for pattern in _UNUSED:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / "botocore" / "data").iterdir():
        if path.is_dir() and path.name not in _SERVICES:
            shutil.rmtree(path)
    # Lambda's file system is read-only: what is not compiled here is compiled at every cold start
    compileall.compile_dir(folder, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def write_aliases(folder: Path) -> None:
    """Write the modules that handlers were once in; each hands out what is defined in its new place."""
    for name, line in _ALIASES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""The handlers, by the name of the module that had them before."""\n\n{line}\n')


def sizes(folder: Path) -> Mapping[str, int]:
    """Return the bytes below each top-level name, largest first."""
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).parts[0]
            found[name] = found.get(name, 0) + path.stat().st_size
    return dict(sorted(found.items(), key=lambda one: -one[1]))


if __name__ == "__main__":
    if sys.argv[2:3] not in [[name] for name in BUNDLES]:
        raise SystemExit(f"usage: python -m infra.lambda_bundle FOLDER {'|'.join(BUNDLES)}")
    target = Path(sys.argv[1])
    build(target, BUNDLES[sys.argv[2]])
    found = sizes(target)
    sys.stdout.write(f"{sum(found.values()) / 1e6:.0f} MB unpacked\n")
    for name, size in list(found.items())[:8]:
        sys.stdout.write(f"  {name:16} {size / 1e6:6.1f} MB\n")
