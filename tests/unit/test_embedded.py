"""The embedded runner's view of other owners."""

from headwater.ledger import ShardEntry
from processors.runners.embedded import is_held


def test_a_shard_is_left_to_an_owner_that_goes_on_committing() -> None:
    """Not to one that has stopped, nor to ourselves; a shard that nobody has is free."""
    entry = ShardEntry("p", "s", 3, "other", updated_ms=10_000)
    assert is_held(entry, "me", 12_999, 3_000)
    assert not is_held(entry, "me", 13_000, 3_000)
    assert not is_held(entry, "other", 10_000, 3_000)
    assert not is_held(None, "me", 0, 3_000)
