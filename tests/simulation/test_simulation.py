"""Whatever crashes, lies or comes late: each event once. And the simulation finds each mistake planted in the code."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from headwater.config import environment
from tests.simulation.bugs import BUGS, planted
from tests.simulation.run import OPERATIONS, run_seed
from tests.simulation.world import FAULTS

SEEDS = 60
"""A seed takes about a second of CPU; `make simulate` and `make nightly` have the long forms."""
QUICK = (
    "a commit does not wait for what goes on",
    "a forgetting counts nothing as excluded",
    "a target's request that failed counts as accepted",
    "an outbox takes up its numbers again",
    "identities are not in the snapshot",
    "of two pipelines that start at once both have the table",
    "user records of another shard count",
    "what another engine rewrote is added again",
)
"""Planted bugs that few seeds show: `make test` has these, `make test-bugs` all."""
MOST = 500


@pytest.mark.timeout(900)
def test_every_event_is_there_once_whatever_happens() -> None:
    """All auditors are content with every seed; and each kind of fault did strike."""
    fired = Counter[str]()
    with ProcessPoolExecutor(2) as pool:
        for result in pool.map(run_seed, range(SEEDS), chunksize=10):
            assert not result.found, f"seed {result.seed}: {result.found[:3]}"
            fired += result.fired
    happening = {*FAULTS, *(f"* {operation}" for operation in OPERATIONS)}
    assert not happening - set(fired), "these never happened"


def test_a_seed_is_the_same_run_again() -> None:
    assert run_seed(7).digest == run_seed(7).digest
    assert run_seed(7).digest != run_seed(8).digest


def test_a_seed_is_the_same_run_in_another_process() -> None:
    """Also where text hashes otherwise, and with it the order of sets."""
    code = "from tests.simulation.run import run_seed; print([run_seed(seed).digest for seed in range(3)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment({"PYTHONHASHSEED": hash_seed}),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert said == {f"{[run_seed(seed).digest for seed in range(3)]}\n"}


ALL_BUGS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in BUGS]


@pytest.mark.parametrize("name", ALL_BUGS)
@pytest.mark.timeout(3600)
def test_a_planted_bug_is_found(name: str) -> None:
    with planted(name):
        found = next((result for result in map(run_seed, range(MOST)) if result.found), None)
    assert found is not None, f"{MOST} seeds did not show it"
    print(f"{name}: seed {found.seed}, {found.found[0]}")
