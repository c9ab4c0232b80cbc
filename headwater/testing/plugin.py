"""Give pytest fixtures for pipelines of your own: `pytest_plugins = ["headwater.testing.plugin"]` in conftest.py.

def test_the_sample_fits(run_pipeline_file):
    run = run_pipeline_file("pipeline.py", "sample.ndjson")
    assert run.dead_letters == []
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.processors.definition.loading import load
from headwater.testing.pipelines import PipelineRun, read_sample, run_pipeline

__all__ = ["run_pipeline_file"]


@pytest.fixture
def run_pipeline_file(request: pytest.FixtureRequest) -> Callable[..., PipelineRun]:
    """Return a function that runs a pipeline file over events: a file of them, or what `run_pipeline` takes.

    Paths are relative to the file of the test. Of a file with an invalid row the first is named by InvalidEvent.
    """
    folder = Path(request.path).parent

    def run(pipeline: str, events: Any, **options: Any) -> PipelineRun:
        file, _, name = pipeline.partition(":")
        made = load(f"{folder / file}:{name}")
        if isinstance(events, str | Path):
            events = read_sample(folder / events, made.contract)
        return run_pipeline(made, events, **options)

    return run
