"""The rule by which `make soak` tells a leak from noise."""

import os
import random
from pathlib import Path

import pytest

from tests.chaos.flatness import ALLOWED, FEWEST, growth
from tests.chaos.samples import Samples, process_uses

RSS = ALLOWED["rss MB"]


def noisy(values: list[float], seed: int = 7) -> list[float]:
    """The values, with spikes as a parser's or a compaction's."""
    dice = random.Random(seed)
    return [value + dice.choice([0, 0, 0, 1, 2, 80]) for value in values]


@pytest.mark.parametrize("seed", range(5))
def test_what_settles_is_flat_whatever_its_spikes(seed: int) -> None:
    """A process that fills its caches in the first quarter, and one that gets smaller."""
    warm = [120 + min(at, 60) for at in range(240)]
    for series in (warm, [200.0] * 240, [300 - at / 4 for at in range(240)]):
        found = growth(noisy([float(value) for value in series], seed), RSS)
        assert found is not None
        assert found.flat, found


@pytest.mark.parametrize(("leak", "flat"), [(0.02, True), (0.2, False), (1.0, False)])
def test_what_grows_all_the_time_is_not(leak: float, flat: bool) -> None:
    """In MB a sample: 0.2 of them are 48 in a run of 240."""
    found = growth(noisy([200 + leak * at for at in range(240)]), RSS)
    assert found is not None
    assert found.flat is flat, found


def test_a_leak_that_begins_late_is_seen() -> None:
    """Descriptors that are lost from the middle of the run on."""
    found = growth([30.0] * 120 + [30 + at / 4 for at in range(120)], ALLOWED["fds"])
    assert found is not None
    assert not found.flat


def test_a_short_life_is_not_judged() -> None:
    """A process that was killed soon has no long run."""
    assert growth([float(at) for at in range(FEWEST - 1)], RSS) is None


def test_samples_are_kept_judged_and_drawn(tmp_path: Path) -> None:
    """A line of JSON each, a verdict a series, a panel a measure."""
    samples = Samples(tmp_path / "samples.jsonl")
    used = process_uses(os.getpid())
    assert used["rss MB"] > 10
    assert used["threads"] >= 1
    assert process_uses(2**22 + 1) == {}
    for at in range(90):
        samples.add(at, "leaky (1)", {"fds": 10.0 + at, "threads": 4.0})
    judged = {measure: found.flat for measure, _, found in samples.judged()}
    assert judged == {"fds": False, "threads": True}
    samples.plot(tmp_path / "soak.svg")
    drawn = (tmp_path / "soak.svg").read_text()
    assert drawn.startswith("<?xml")
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 90
