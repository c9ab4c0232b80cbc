"""Leadership: of several processes that run the same service, one works at a time.

A lease is a ledger document with the leader's name (`owner`), the time until which it leads (`until_ms`, epoch
milliseconds) and how long that was when it was written (`held_ms`); what a service keeps for its next leader lies in
the same document. Every write is conditional on the document's revision, so a leader that was overtaken meets Fenced at
its next write, however wrong the clocks are: the lease decides who works, the conditional write what counts.

Nor can a wrong clock keep a lease for ever. A lease that ends later than it lasts was written by a clock ahead of ours;
such a one counts for as long as it lasts from when it was first seen, by the observer's clock, and again from each
renewal. The first sight lies in a document of its own (`<name>.seen`), so that an observer may begin anew.

Only leadership belongs here. What a leader does in a turn, and what it keeps in the document, is the service's.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, UsageError
from headwater.stores import DocumentStore

__all__ = ["PASSING", "Lease", "Stop", "run_service"]

PASSING = (HeadwaterError, ClientError, BotoCoreError, ResponseParserError, OSError)
"""Errors that may occur in one turn of a service without ending the service."""

_SKEW_MS = 60_000
"""Largest difference of two clocks that raises no doubt: far more than that of machines that ask a time server."""
_SIGHT_MS = 86_400_000
"""A first sight longer ago than that is none: the observer's own clock may have been wrong."""
_RELEASE_TRIES = 3
_RELEASE_PAUSE = 0.5

log = logging.getLogger(__name__)


class Stop(Protocol):
    """Tell a service to end: `threading.Event`, as far as it is needed here."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for so many seconds, or less when told to stop; return True when told to."""
        ...


class Lease:
    """Hold one lease, for one owner. Not thread-safe.

    `acquire` before each turn; `renew` often during a long one; `update` to keep something in the document, which
    renews as well; `release` at the end. Every method but `release` raises what the ledger raises.

    >>> from headwater.clock import ManualClock
    >>> from headwater.ledger import Ledger
    >>> from headwater.testing.dynamodb import MemoryDynamoDB
    >>> memory, clock = MemoryDynamoDB(), ManualClock()
    >>> _ = memory.create_table(
    ...     TableName="ledger", KeySchema=[{"AttributeName": "pipeline"}, {"AttributeName": "item"}]
    ... )
    >>> ledger = Ledger(memory, "ledger", "clicks")
    >>> one, other = (Lease(ledger, clock, "publisher", owner) for owner in ("one", "other"))
    >>> one.acquire(60), other.acquire(60)
    (True, False)
    >>> one.release()
    >>> other.acquire(60), other.took_over
    (True, True)
    """

    def __init__(self, documents: DocumentStore, clock: Clock, name: str, owner: str) -> None:
        self.name = name
        self._documents, self._clock, self._owner = documents, clock, owner
        self._document: dict[str, Any] = {}
        self._rev = self._held_ms = self._written_ms = 0
        self.took_over = False
        """True when another owner may have led since this one last did: what is in memory may be stale."""

    @property
    def seconds(self) -> float:
        """Return how long the lease lasts after a renewal, as acquired."""
        return self._held_ms / 1000

    @property
    def document(self) -> Mapping[str, Any]:
        """Return the document as this owner last read or wrote it."""
        return self._document

    def acquire(self, seconds: float) -> bool:
        """Lead for so many seconds from now, or go on leading; return False while another owner leads."""
        self._document, self._rev = self._documents.document(self.name)
        self.took_over = self._document.get("owner") != self._owner
        self._held_ms = round(seconds * 1000)
        if self.took_over and self._is_held():
            return False
        try:
            self.update()
        except Fenced:
            # somebody else was faster: it leads now
            return False
        return True

    def _is_held(self) -> bool:
        """Return whether the other owner leads: its lease has not ended, and can be believed."""
        left = self._document.get("until_ms", 0) - self._clock.now_ms()
        lasts = self._document.get("held_ms", self._held_ms)
        return left > 0 and (left <= lasts + _SKEW_MS or not self._stands_still(lasts))

    def _stands_still(self, lasts_ms: int) -> bool:
        """Return whether the document was the same for so long. Whoever asks first writes down when that was."""
        name, now = f"{self.name}.seen", self._clock.now_ms()
        seen, rev = self._documents.document(name)
        if seen.get("rev") == self._rev and 0 <= now - seen["at_ms"] <= _SIGHT_MS:
            return bool(now - seen["at_ms"] >= lasts_ms)
        log.warning("the lease %s of %s ends later than it lasts: a clock is wrong", self.name, self._document["owner"])
        with suppress(Fenced):  # another observer was faster, and its note is as good
            self._documents.put_document(name, {"rev": self._rev, "at_ms": now}, rev)
        return False

    def renew(self) -> None:
        """Renew the lease once a third of it has passed. Raise Fenced when another owner has taken it."""
        if self._clock.now_ms() - self._written_ms >= self._held_ms // 3:
            self.update()

    def update(self, **changes: Any) -> None:
        """Write these fields of the document and renew the lease. Raise Fenced when another owner has taken it."""
        now = self._clock.now_ms()
        lease = {"owner": self._owner, "until_ms": now + self._held_ms, "held_ms": self._held_ms}
        document = {**self._document, **changes, **lease}
        self._rev = self._documents.put_document(self.name, document, self._rev)
        self._document, self._written_ms = document, now

    def release(self) -> None:
        """Let another owner lead at once, if this one leads. It has to `acquire` before it writes again.

        A passing failure is tried again a few times, then logged: the lease then lasts until it runs out.
        """
        for attempt in range(_RELEASE_TRIES):
            try:
                document, rev = self._documents.document(self.name)
                if document.get("owner") == self._owner:
                    self._documents.put_document(self.name, {**document, "until_ms": 0}, rev)
                return
            except Fenced:
                # taken over between the two calls: there is nothing left to release
                return
            except PASSING as error:
                if attempt == _RELEASE_TRIES - 1:
                    log.warning("the lease %s is kept until it runs out: %s", self.name, error)
                    return
                self._clock.sleep(_RELEASE_PAUSE)


def run_service(
    stop: Stop,
    turn: Callable[[], float],
    lease: Lease,
    log: logging.Logger,
    *,
    pause: float = 0.0,
    retry: float,
    last_turn: bool = False,
) -> None:
    """Call `turn` until told to stop, then release the lease.

    `turn` acquires the lease, does nothing while another owner leads, and returns how many seconds to wait before the
    next one. `pause` is the wait before the first turn, `retry` the wait after a failed one. With `last_turn` one more
    turn is made after the stop, for what came in meanwhile.

    A failure of PASSING ends the turn and not the service. Two do end it: a UsageError of the first turn, since a
    service that cannot begin is set up wrongly, and any other exception, which is a fault of the program. The lease is
    released in all these cases.
    """
    first = True
    try:
        while True:
            stopped = stop.wait(pause)
            if stopped and not last_turn:
                return
            try:
                pause = turn()
            except PASSING as error:
                if first and isinstance(error, UsageError):
                    raise
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}"})
                pause = retry
            first = False
            if stopped:
                return
    finally:
        lease.release()
