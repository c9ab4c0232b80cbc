"""Wait until committed files are in the table, and say what keeps one out."""

from collections.abc import Callable, Set

from headwater.errors import Retryable
from headwater.ledger import Ledger
from headwater.sinks.lake.quarantine import quarantined_files

__all__ = ["pending_files", "wait_until_published"]

_STEPS = 100


def pending_files(ledger: Ledger) -> set[str]:
    """Return the URIs of the files that are committed and not in the table yet."""
    return {file.uri for entry in ledger.shards() for file in entry.pending}


def wait_until_published(ledger: Ledger, wanted: Set[str], publish: Callable[[], object]) -> None:
    """Wait for these files alone: on a busy stream there is always one more. `publish` makes a publisher's step.

    Raises Retryable when one is not in the table after a hundred steps; it names one that is quarantined, for which no
    publisher can do anything.
    """
    for _ in range(_STEPS):
        wanted = wanted & pending_files(ledger)
        if not wanted:
            return
        publish()
    for one in quarantined_files(ledger):
        if one.uri in wanted:
            raise Retryable(
                f"{one.uri} is quarantined, so its {one.rows:,} rows are not in the table: {one.reason}; "
                "put that right (docs/runbooks/publisher-age.md) and call again"
            )
    raise Retryable(
        f"files of pipeline {ledger.pipeline} wait for the publisher for too long; is one running? "
        "headwater audit says what holds it up"
    )
