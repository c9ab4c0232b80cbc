"""What reads the bytes of others is total: on every input that was ever kept, and on a few changes of each."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing import CORPUS, TARGETS, inputs, mutated


@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_is_read(target: str) -> None:
    """Each ends in rows, refusals or letters, with no event lost."""
    kept = inputs(target)
    assert len(kept) >= 3
    heard = [TARGETS[target](data) for data in kept]
    assert len(set().union(*heard)) >= 3, "the corpus has more than one outcome"


@pytest.mark.parametrize("target", TARGETS)
def test_every_change_of_a_kept_input_is_read(target: str) -> None:
    """The same fuzzer as `make fuzz`, which goes on for as long as it is told to."""
    kept = inputs(target)

    @settings(max_examples=60)
    @given(st.sampled_from(kept), st.integers(0, 2**32))
    def fuzz(data: bytes, seed: int) -> None:
        TARGETS[target](mutated(data, kept, Random(seed)))

    fuzz()


def test_the_corpus_is_of_targets() -> None:
    """No input is kept that nothing reads."""
    assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)
