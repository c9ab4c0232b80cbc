"""A project of one's own: what `check` refuses, where paths lead, and a pipeline over events in one call."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from headwater import InvalidEvent, Pipeline, Reference, UsageError, count, tumbling
from headwater.processors.definition.loading import load
from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.processors.references import read_source
from headwater.testing import Fleet, run_pipeline
from headwater.testing.plugin import run_pipeline_file as run_pipeline_file  # a fixture
from tests.called import called

ROOT = Path(__file__).parents[2]
HEAD = """
import pyarrow as pa, pyarrow.compute as pc
from headwater import Pipeline, Reference, count, first, max, mean, quantile, sum, tumbling
made = Pipeline("p", contract="telemetry")
"""
EVENT = {"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.5}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `init` makes, while the working folder is another."""
    monkeypatch.chdir(tmp_path)
    assert called("init", "plant").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "plant"


def test_what_init_makes_fits_itself(project: Path) -> None:
    """From any working folder: paths are relative to the pipeline file."""
    ran = called("check", str(project / "pipeline.py"), "--sample", str(project / "sample.ndjson"))
    assert (ran.code, ran.err) == (0, "")
    assert "view site_1m: site, events, mean, most; 3 rows" in ran.out
    assert "starter" not in "".join(file.read_text() for file in project.iterdir() if file.is_file())
    assert "tried on no events" in called("check", str(project / "pipeline.py")).out


def test_what_init_says_comes_next_can_be_run(project: Path) -> None:
    """Run the first two as they are printed, with `local` alone installed; the third has tests of its own."""
    said = re.findall("^    (.+)", called("init", "other").out, re.MULTILINE)
    assert said[2] == "HEADWATER_PIPELINE=pipeline.py headwater up"
    for command in said[:2]:
        module = command.removeprefix("python ").replace("headwater", "-m headwater", 1)
        ran = subprocess.run([sys.executable, *module.split()], cwd="other", capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    local = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["local"]
    assert any(one.startswith("pytest>") for one in local)


def test_check_without_a_file_is_of_the_one_that_is_here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the settings name another; where neither is, of the example that is shipped."""
    shipped = called("check").out.splitlines()[0]
    assert "fits contract telemetry" in shipped
    monkeypatch.chdir(project)
    assert called("check").out.startswith("pipeline plant fits")
    (project / "other.py").write_text(HEAD + "made = made.lake('p')\n")
    assert called("check", environment={"HEADWATER_PIPELINE": "other.py:made"}).out.startswith("pipeline p fits")


@pytest.mark.parametrize("name", ["plant", "Bad", "a b", "-a", "ä", "x" * 65])
def test_a_name_that_cannot_be_and_a_folder_that_is_there(name: str, project: Path) -> None:
    """Nothing is overwritten."""
    called("init", "--", str(project.parent / name)).failed(2)


def test_a_folder_that_is_there_is_taken_while_it_has_no_files(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But hidden ones, such as those of git, which stay as they are."""
    (project.parent / "elsewhere" / ".git").mkdir()
    (project.parent / "elsewhere" / ".env").write_text("starter")
    assert called("init", ".").out.startswith("elsewhere is made. Then:")
    assert called("check").out.startswith("pipeline elsewhere fits")
    assert (project.parent / "elsewhere" / ".env").read_text() == "starter"
    called("init", ".").failed(2, "there already")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("made.view('v', by=['device'], m=mean('metric'))", ["m=mean('metric')", "needs a column of numbers"]),
        ("made.view('v', by=['device'], m=quantile('ts', 0.5))", ["quantile('ts')", "timestamp"]),
        ("made.view('v', by=['devise'], n=count())", ["devise", "did you mean 'device'"]),
        ("made.map(lambda e: e, adds={'twice': 'double'}).lake('p')", ["map", "no column 'twice'"]),
        ("made.map(lambda e: e['nope'], adds={'twice': 'double'}).lake('p')", ["map", "nope"]),
        ("made.map(lambda e: pa.table({'t': e['metric']}), adds={'t': 'double'}).lake('p')", ["t is declared double"]),
        ("made.map(lambda e: pa.table({'t': e['value']}), adds={'t': 'string'}).lake('p')", ["t is declared string"]),
        ("made.where(lambda e: e['metric'].nope).lake('p')", ["where", "nope"]),
        ("made.where(lambda e: 1 / len(e)).lake('p')", ["where", "division by zero"]),
        ("made.view('v', by=['device'], n=count())", [".lake('NAME')"]),
        (
            "made.enrich(Reference('r', 'r.csv', key='device', columns={'site': 'string'}), on='device').lake('p')",
            ["r.csv"],
        ),
        ("Pipeline('p', contract='no.yaml').lake('p')", ["no.yaml"]),
        ("1 / 0", ["division by zero"]),
    ],
)
def test_check_refuses_in_one_line(text: str, words: list[str], tmp_path: Path) -> None:
    """Types, columns and functions, without AWS and without events."""
    (tmp_path / "p.py").write_text(f"{HEAD}pipeline = {text}\n")
    called("check", str(tmp_path / "p.py")).failed(2, *words)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ('{"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": "much"}\n', ["row 1", "value"]),
        (
            '{"device": "bad", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1}\n',
            ["1 events", "an unlucky one"],
        ),
        ("{\n", ["row 1"]),
    ],
)
def test_check_names_what_the_sample_lacks(sample: str, words: list[str], tmp_path: Path) -> None:
    """An event that breaks the contract, and one that a function fails on."""
    fails = (
        "def unlucky(events):\n    if 'bad' in events['device'].to_pylist():\n"
        "        raise ValueError('an unlucky one')\n"
        "    return pa.table({'n': [1] * len(events)})\n"
    )
    (tmp_path / "p.py").write_text(f"{HEAD}{fails}pipeline = made.map(unlucky, adds={{'n': 'long'}}).lake('p')\n")
    (tmp_path / "s.ndjson").write_text(sample)
    ran = called("check", str(tmp_path / "p.py"), "--sample", str(tmp_path / "s.ndjson"))
    ran.failed(1, *words)


def test_modules_beside_a_pipeline_and_its_dataclasses(tmp_path: Path) -> None:
    """A pipeline of several files loads as a program of several files runs."""
    (tmp_path / "beside_it.py").write_text("TABLE = 'own'\n")
    (tmp_path / "p.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom beside_it import TABLE\n"
        f"{HEAD}"
        "@dataclass\nclass Limits:\n    most: float = 1.0\npipeline = made.lake(TABLE)\n"
    )
    assert load(str(tmp_path / "p.py")).lake_to.table == "own"


def test_a_path_that_only_the_working_folder_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before there was another rule; the file beside the definition comes first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").write_text("device,site\nd,s\n")
    assert Reference("r", "here.csv", "device", {"site": "string"}).source == "here.csv"
    assert Reference("r", Path(__file__).name, "device", {}).source == str(Path(__file__).resolve())
    assert Reference("r", "s3://bucket/here.csv", "device", {}).source == "s3://bucket/here.csv"


def test_a_shipped_contract_is_shadowed_by_nothing_beside_the_pipeline(tmp_path: Path) -> None:
    """Neither by a folder of its name nor by a file."""
    (tmp_path / "p.py").write_text("from headwater import Pipeline\npipeline = Pipeline('p', 'telemetry').lake('p')\n")
    (tmp_path / "telemetry").write_text("no contract")
    assert load(str(tmp_path / "p.py")).contract.key == "device"


def test_a_run_gives_what_pandas_gives() -> None:
    """Over the shipped pipeline: enrichment, a function, windows, sketches, every event in the lake."""
    pipeline = load("headwater.processors.examples.telemetry:pipeline")
    table = next(Fleet(devices=7).batches(events=6_000, batch=6_000))
    run = run_pipeline(pipeline, table)
    references = {one.name: read_source(one.source, one.name, lambda _: None) for one in pipeline.references}
    frame = enriched(pipeline, table.unify_dictionaries(), references)
    for view in pipeline.views:
        assert differences(view, batch_view(pipeline, view, frame), run.views[view.name]) == []
    assert run.lake.num_rows == run.counts["lake"] == 6_000
    assert run.lake.schema.names == pipeline.lake_schema.names


@pytest.mark.parametrize("make", [list, pa.Table.from_pylist, lambda rows: pa.Table.from_pylist(rows).to_pandas()])
def test_what_events_may_be(make: Callable[[list[dict[str, object]]], object]) -> None:
    """Dicts, an Arrow table and a DataFrame are one; no events are none."""
    pipeline = Pipeline("p", "telemetry").view("v", by=["device"], window=tumbling("1m"), n=count()).lake("p")
    assert run_pipeline(pipeline, make([EVENT, EVENT])).views["v"][0]["n"] == 2
    empty = run_pipeline(pipeline, [])
    assert (empty.views, empty.lake.num_rows, empty.dead_letters, empty.counts) == ({"v": []}, 0, [], {})


def test_records_of_others_and_events_that_break_the_contract() -> None:
    """Bytes go the way of the stream: a bad one is a dead letter. What a producer would refuse is refused."""
    pipeline = Pipeline("p", "telemetry").lake("p")
    good = b'{"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1}'
    run = run_pipeline(pipeline, [good, b"{", good.replace(b"1}", b'"much"}')])
    assert (run.lake.num_rows, len(run.dead_letters)) == (1, 2)
    with pytest.raises(InvalidEvent, match=r"event 1: .*value"):
        run_pipeline(pipeline, [EVENT, EVENT | {"value": "much"}])
    for wrong in (EVENT, "text", b"bytes"):
        with pytest.raises(UsageError, match="a list of dicts or of bytes"):
            run_pipeline(pipeline, wrong)


def test_reference_tables_may_be_given() -> None:
    """Rows in place of a file; a name that there is not is refused."""
    sites = Reference("sites", "nowhere.csv", key="device", columns={"site": "string"})
    pipeline = Pipeline("p", "telemetry").enrich(sites, on="device").lake("p")
    run = run_pipeline(pipeline, [EVENT], references={"sites": [{"device": "d", "site": "north"}]})
    assert run.lake["site"].to_pylist() == ["north"]
    with pytest.raises(UsageError, match=r"nowhere\.csv"):
        run_pipeline(pipeline, [EVENT])
    with pytest.raises(UsageError, match="no reference table 'site'"):
        run_pipeline(pipeline, [EVENT], references={"site": []})


def test_events_with_ids_of_their_own(project: Path) -> None:
    """Copies count once, as on the stream."""
    text = project.joinpath("contract.yaml").read_text().replace("time: at ", "id: note\ntime: at ")
    project.joinpath("contract.yaml").write_text(text.replace("required: false, ", ""))
    event = {"sensor": "s-1", "at": "2026-03-01T12:00:00Z", "kind": "pressure", "value": 1.0, "note": "a"}
    run = run_pipeline(load(str(project / "pipeline.py")), [event, event, event | {"note": "b"}])
    assert (run.lake.num_rows, run.counts["duplicates"]) == (2, 1)


def test_the_fixture_runs_a_file_over_a_file(run_pipeline_file: Callable[..., object], project: Path) -> None:
    """Both relative to the test, or absolute."""
    run = run_pipeline_file(str(project / "pipeline.py"), project / "sample.ndjson")
    assert run.lake.num_rows == 4  # type: ignore[attr-defined]  # of a file that is loaded by name
    assert run_pipeline_file(f"{project / 'pipeline.py'}:pipeline", []).dead_letters == []  # type: ignore[attr-defined]  # the same
