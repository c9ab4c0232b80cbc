"""Act for an operator: end jobs, put dead letters back on the stream.

Everything that changes something goes through here, and nothing here only looks. Blocking; called in threads.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.jobs import Jobs
from headwater.processors.ports import PipelineStores, StreamClient
from headwater.producers.redriving import Redrive
from headwater.serving.console.letter_reader import CachedLetterStore
from headwater.sinks.deadletter import DeadLetter, DeadLetters

__all__ = ["Controls"]


class Controls:
    """Act on one pipeline. With `enabled` False every act raises UsageError and names the command to use instead."""

    def __init__(self, stores: PipelineStores, stream: StreamClient, *, enabled: bool) -> None:
        self._stores, self._stream = stores, stream
        self.enabled = enabled

    def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Ask jobs to end, each by itself; return the reason of each that cannot be asked."""
        self._check("headwater jobs cancel")
        jobs = Jobs(self._stores.ledger, self._stores.clock)
        refused = {}
        for job_id in job_ids:
            try:
                jobs.cancel(job_id, "the console")
            except (HeadwaterError, ClientError, BotoCoreError) as error:
                refused[job_id] = str(error)
        return refused

    def redrive(self, names: Collection[str] | None, on_progress: Callable[[int, int], None]) -> int:
        """Put letters on the stream again, those with these names or all that wait as of now; return how many.

        `on_progress` is called with the letters sent and those to send. Letters that come back meanwhile wait for
        another time: the listing is taken whole before the first letter is sent.
        """
        self._check("headwater dlq redrive")
        stores, pipeline = self._stores, self._stores.pipeline
        store = CachedLetterStore(stores.objects)
        redrive = Redrive(self._stream.kinesis, self._stream.stream, pipeline.contract, stores.clock)
        sent = 0

        def put(letters: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
            nonlocal sent
            for letter in redrive.put(letters):
                sent += 1
                on_progress(sent, store.waiting if names is None else len(names))
                yield letter

        return DeadLetters(store).redrive(pipeline.name, put, names)

    def _check(self, instead: str) -> None:
        if not self.enabled:
            raise UsageError(f"HEADWATER_SERVE_CONTROLS is off here: use {instead}")
