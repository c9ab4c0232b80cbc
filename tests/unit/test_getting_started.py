"""What the page for newcomers tells them to type is right: its samples load, conform and fit each other."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from headwater import Contract, load_contract
from headwater.contract import parse_contract, validate_row
from headwater.processors.definition.loading import load

PAGE = (Path(__file__).parents[2] / "docs" / "getting-started.md").read_text()
FILES = dict(re.findall(r"cat > (\S+) <<'EOF'\n(.*?)EOF\n", PAGE, re.DOTALL))
PROGRAMS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def telemetry() -> Contract:
    return load_contract("telemetry")


def test_every_file_that_the_page_uses_is_on_the_page() -> None:
    """Nobody has to guess what is in it."""
    used = set(re.findall(r"\b[\w-]+\.(?:ndjson|csv|py)\b", PAGE))
    assert used == set(FILES) | set(PROGRAMS)
    assert set(FILES) == {"readings.ndjson", "devices.csv"}


def test_the_sample_events_conform(telemetry: Contract) -> None:
    """`produce` takes all of them, and the program's one, too."""
    lines = FILES["readings.ndjson"].splitlines()
    assert len([validate_row(telemetry, json.loads(line)) for line in lines]) == 4
    (event,) = re.findall(r"producer\.put\((\{.*?\})\)", PROGRAMS["send.py"])
    assert validate_row(telemetry, json.loads(event))["device"] == "dev-1"


def test_the_pipeline_loads_and_fits_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference table's columns are in the sample, and its keys are those of the events."""
    monkeypatch.chdir(tmp_path)
    for name, text in (FILES | PROGRAMS).items():
        (tmp_path / name).write_text(text)
    pipeline = load("fleet.py:pipeline")
    assert pipeline.lake_to.table == "fleet"
    (devices,) = pipeline.references
    rows = list(csv.DictReader(io.StringIO(FILES[Path(devices.source).name])))
    assert {devices.key, *devices.columns} == set(rows[0])
    sent = {json.loads(line)["device"] for line in FILES["readings.ndjson"].splitlines()}
    assert sent == {row["device"] for row in rows}


def test_the_sample_contract_is_one() -> None:
    """With an id of its own."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    own = parse_contract(text, "orders.yaml").id
    assert own is not None
    assert own.origin == "order"


def test_the_page_says_what_a_newcomer_missed() -> None:
    """The environment is activated, and the lake is required."""
    assert "activate" in PAGE
    assert 'Every pipeline needs `.lake("NAME")`' in PAGE
