"""One import root: every name a user needs, loaded when used, whatever folders lie beside the user's program."""

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import headwater
from headwater import _HOMES

ROOT = Path(__file__).parents[2]
HEAVY = ("pyarrow", "numpy", "pandas", "boto3", "botocore", "pyiceberg", "duckdb", "typer", "pydantic")


def python(code: str, cwd: Path = ROOT) -> str:
    """Run code in an interpreter of its own; what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_exported_name_is_the_one_where_it_is_defined() -> None:
    """The names for type checkers, the table of homes and what is loaded agree."""
    assert set(headwater.__all__) == {*_HOMES, "__version__"}
    assert headwater.__all__ == sorted(headwater.__all__)
    for name, home in _HOMES.items():
        assert getattr(headwater, name) is getattr(import_module(home), name)
    assert set(dir(headwater)) >= set(headwater.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Producr'"):
        _ = headwater.Producr


def test_all_errors_are_exported() -> None:
    """A user catches any of them from the one root."""
    assert set(import_module("headwater.errors").__all__) <= set(headwater.__all__)


@pytest.mark.parametrize(
    "names",
    [
        "import headwater; headwater.__version__",
        "from headwater import HeadwaterError, BufferFull, Receipt, ProducerSettings",
        "from headwater import count, mean, quantile, tumbling, hopping, above, absent",
    ],
)
def test_light_names_load_nothing_heavy(names: str) -> None:
    """Neither pyarrow nor boto3 is loaded by a program that only names errors, settings, windows or aggregates."""
    code = f"{names}\nimport sys\nprint([one for one in {HEAVY!r} if one in sys.modules])"
    assert python(code) == "[]"


def test_a_producer_loads_no_processor_and_no_lake() -> None:
    """It seals Arrow batches, so pyarrow is there; boto3 and protobuf are loaded when they are first used."""
    code = (
        "from headwater import Producer\nimport sys\n"
        "unwanted = ('headwater.processors', 'headwater.sinks', 'headwater.serving', 'headwater.commands', 'pandas',"
        " 'pyiceberg', 'duckdb', 'typer', 'boto3', 'google.protobuf', 'pydantic', 'pyarrow.parquet')\n"
        "print([one for one in unwanted if one in sys.modules])"
    )
    assert python(code) == "[]"


def test_no_name_changes_where_a_program_finds_its_modules() -> None:
    """A library leaves its host alone: neither importing any name, nor reading and writing KPL aggregates."""
    code = (
        "import os, signal, sys\n"
        "before = list(sys.path), dict(os.environ), signal.getsignal(signal.SIGTERM)\n"
        "import headwater\nfor name in headwater.__all__: getattr(headwater, name)\n"
        "from headwater.codec.kpl import encode_kpl, user_payloads\n"
        "assert user_payloads(encode_kpl([b'x'], 'k', None)) == [b'x']\n"
        "after = list(sys.path), dict(os.environ), signal.getsignal(signal.SIGTERM)\n"
        "print([name for name, one, two in zip(('path', 'environ', 'signal'), before, after) if one != two])"
    )
    assert python(code) == "[]"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A user's program in a folder that has folders of the names that ours have."""
    for name in ("producers", "processors", "sinks", "serving", "commands", "infra", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a folder of the user')\n")
    (tmp_path / "mine.py").write_text(
        "from headwater import Pipeline, count, tumbling\n"
        "pipeline = Pipeline('mine', contract='telemetry')"
        ".view('minute', by=['device'], window=tumbling('1m'), events=count())\n"
    )
    return tmp_path


def test_folders_of_the_user_break_nothing(beside: Path) -> None:
    """The module form of the command puts the working folder first on the path, and still finds its own."""
    done = subprocess.run(
        [sys.executable, "-m", "headwater", "--version"], cwd=beside, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"headwater {headwater.__version__}\n", "")
    loaded = python(
        "from headwater.processors.definition.loading import load\nprint(load('mine:pipeline').name)", beside
    )
    assert loaded == "mine"


def test_the_shipped_example_is_found_under_its_old_name(beside: Path) -> None:
    """`processors.examples.telemetry:pipeline` stays a pipeline setting, also beside a user's `processors`."""
    spec = "processors.examples.telemetry:pipeline"
    code = f"from headwater.processors.definition.loading import load\nprint(load({spec!r}).name)"
    assert python(code) == "telemetry"


def built(kind: str, at: Path) -> Path:
    """A distribution from a copy of the checked-in files, with the installed setuptools and no network."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    copy = at / "checkout"
    for name in tracked.decode().strip("\0").split("\0"):
        source, target = ROOT / name, copy / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    code = f"from setuptools import build_meta\nprint(build_meta.build_{kind}({str(at)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return at / done.stdout.strip().splitlines()[-1]


def sources() -> set[str]:
    """Every module and data file of the packages, as installed."""
    found = set()
    for folder in ("headwater", "producers", "processors", "sinks", "serving", "commands"):
        prefix = "" if folder == "headwater" else "headwater/"
        for path in (ROOT / folder).rglob("*"):
            shown = path.relative_to(ROOT)
            linked = folder == "headwater" and (ROOT / "headwater" / shown.parts[1]).is_symlink()
            shipped = path.suffix in (".py", ".yaml", ".csv", ".sql", ".json")
            if shipped and not linked and "__pycache__" not in shown.parts:
                found.add(f"{prefix}{shown.as_posix()}")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_distribution_holds_everything_and_nothing_beside(kind: str, wheel: Path, tmp_path: Path) -> None:
    """All packages lie below `headwater`, where no other distribution and no folder of a user can collide."""
    archive = wheel if kind == "wheel" else built(kind, tmp_path)
    if kind == "wheel":
        names = set(zipfile.ZipFile(archive).namelist())
        tops = {name.split("/")[0] for name in names}
        assert tops == {"headwater", f"headwater-{headwater.__version__}.dist-info"}
    else:
        with tarfile.open(archive) as tar:
            names = {name.partition("/")[2] for name in tar.getnames()}
    assert sources() <= names
    assert {"headwater/producers/producer.py", "headwater/py.typed"} <= names


def test_a_project_of_one_s_own_runs_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a new environment, outside the repository: what `init` makes passes `check` and its own tests."""
    environment = tmp_path / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)], tmp_path)
    python = str(environment / "bin" / "python")
    uv = str(Path(sys.executable).with_name("uv"))
    run([uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, str(wheel)], tmp_path)
    # the dependencies are those of this environment: a path file of another's folder is not followed further, so
    # headwater itself is the wheel's
    (packages,) = environment.glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    command = str(environment / "bin" / "headwater")
    run([command, "init", "plant"], tmp_path)
    project = tmp_path / "plant"
    assert "4 rows" in run([command, "check", "pipeline.py", "--sample", "sample.ndjson"], project)
    queries = ["env", "HEADWATER_PIPELINE=pipeline.py", command, "lake", "queries"]
    listed = [json.loads(line) for line in run([*queries, "--json"], project).splitlines()]
    assert {"one key", "gaps", "as of"} <= {one["name"] for one in listed}
    (one_key,) = (one for one in listed if one["name"] == "one key")
    assert run([*queries, "one_key"], project) == one_key["sql"] + "\n"
    assert "FROM plant" in one_key["sql"]
    assert json.loads(run([command, "dashboard"], project))["panels"]
    where = "import headwater.testing; print(headwater.testing.__file__)"
    assert run([python, "-c", where], project).startswith(str(packages))
    assert "3 passed" in run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)


def run(command: list[str], cwd: Path) -> str:
    """What a command prints that ends well."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout
