"""A one-shard stream for the producer's tests: takes PutRecords, fails as the script says."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError

from headwater.codec import Control, Decoded, decode_record
from headwater.contract import Contract

Fault = Callable[[Sequence[dict[str, Any]]], Any]


def client_error(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "as scripted"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutRecords")


class FakeStream:
    """`faults` are used up one a call: an exception is raised, a set of indices fails, "lost" is done and raises."""

    def __init__(self, faults: Sequence[Any] = ()) -> None:
        self.faults = list(faults)
        self.always: Exception | None = None
        self.records: list[dict[str, Any]] = []
        self.requests: list[list[dict[str, Any]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        """Set once a request has come, also while it waits at the gate."""

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        self.asked.set()
        if not self.gate.wait(60):  # a failing test shall end
            self.gate.set()
        self.requests.append(Records)
        if self.always is not None:
            raise self.always
        fault = self.faults.pop(0) if self.faults else set()
        if isinstance(fault, Exception):
            raise fault
        entries = []
        for index, record in enumerate(Records):
            if fault != "lost" and index in fault:
                entries.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                entries.append(self._take(record))
        if fault == "lost":
            raise ConnectionResetError("the answer was lost")
        return {"Records": entries}

    def put_record(self, **record: Any) -> dict[str, Any]:
        if self.always is not None:
            raise self.always
        return self._take(record)

    def list_shards(self, **_: Any) -> dict[str, Any]:
        keys = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        shard = {"ShardId": "shardId-0", "HashKeyRange": keys, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
        return {"Shards": [shard]}

    def _take(self, record: dict[str, Any]) -> dict[str, Any]:
        self.records.append(record)
        return {"ShardId": "shardId-0", "SequenceNumber": str(len(self.records))}

    def decoded(self, contract: Contract) -> list[Decoded]:
        """The batches on the stream, copies included."""
        found = [decode_record(record["Data"], contract) for record in self.records]
        return [one for one in found if isinstance(one, Decoded)]

    def controls(self, contract: Contract) -> list[Control]:
        found = [decode_record(record["Data"], contract) for record in self.records]
        return [one for one in found if isinstance(one, Control)]

    def identities(self, contract: Contract) -> list[tuple[str, int]]:
        """(origin, seq) of each event on the stream, copies included."""
        return [(one.origin or "", one.first_seq + int(row)) for one in self.decoded(contract) for row in one.rows]
