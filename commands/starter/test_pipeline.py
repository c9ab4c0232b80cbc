"""Tests of the pipeline in memory: no AWS, no waiting."""

from pipeline import pipeline

from headwater.testing import run_pipeline

SAMPLE = [
    {"sensor": "s-1", "at": "2026-03-01T12:00:00Z", "kind": "temperature", "value": 21.5},
    {"sensor": "s-1", "at": "2026-03-01T12:00:30Z", "kind": "temperature", "value": 32.5},
]


def test_a_minute_of_a_site():
    run = run_pipeline(pipeline, SAMPLE)
    (row,) = run.views["site_1m"]
    assert (row["site"], row["events"], row["mean"], row["most"]) == ("north", 2, 27.0, 32.5)
    assert run.lake["too_high"].to_pylist() == [False, True]


def test_what_breaks_the_contract_is_a_dead_letter():
    run = run_pipeline(pipeline, [b'{"sensor": "s-1", "kind": "temperature", "value": "much"}'])
    assert [letter.payload for letter in run.dead_letters]
    assert run.lake.num_rows == 0


def test_the_sample_fits(run_pipeline_file):
    run = run_pipeline_file("pipeline.py", "sample.ndjson")
    assert run.dead_letters == []
    assert len(run.views["site_1m"]) == 3
