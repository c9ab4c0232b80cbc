"""Which events a producer accepted, for the audit: intervals per origin, told on the stream as control records."""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from headwater.contract import Contract
from headwater.lineage import OriginSets

__all__ = ["Accepted"]

MAX_BODY_BYTES = 500_000


class Accepted:
    """The accepted events not yet told.

    Numbered events only: a session's own, and those of a contract whose own id has a sequence. Ids that are one text
    would need a receipt as large as the events. Not thread-safe.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._sets = OriginSets()

    def add_session(self, origin: str, first_seq: int, count: int) -> None:
        self._sets.add_intervals(origin, [(first_seq, first_seq + count)], 0)

    def add_own(self, table: pa.Table) -> None:
        """The ids in the columns of accepted events."""
        own = self._contract.id
        if own is None or own.seq is None or not table.num_rows:
            return
        column = table.column(own.origin).unify_dictionaries().combine_chunks()
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        codes = self._sets.codes(coded.dictionary)[coded.indices.to_numpy()]
        seqs = table.column(own.seq).to_numpy().astype(np.int64)
        self._sets.add(codes, seqs, np.zeros(len(codes), np.int64))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not len(self._sets)

    def take(self) -> "Accepted":
        """What there is to tell; from now on a new one is collected."""
        taken = Accepted(self._contract)
        taken._sets, self._sets = self._sets, taken._sets
        return taken

    def put_back(self, taken: "Accepted") -> None:
        """It could not be told; next time."""
        self._sets.update(taken._sets)

    def bodies(self) -> Iterator[dict[str, object]]:
        """The receipts' bodies, each below 500 KB."""
        intervals: dict[str, list[list[int]]] = {}
        size = 0
        for origin in self._sets.origins():
            name_bytes = len(json.dumps(origin))
            for start, stop in self._sets.get(origin):
                intervals.setdefault(origin, []).append([start, stop])
                size += 48 + name_bytes
                if size > MAX_BODY_BYTES:
                    yield {"contract": self._contract.name, "intervals": intervals}
                    intervals, size = {}, 0
        if intervals:
            yield {"contract": self._contract.name, "intervals": intervals}
