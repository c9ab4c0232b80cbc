"""Script what goes wrong in an in-memory service, call by call, and raise its errors as boto3 does."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

__all__ = ["Exceptions", "Faults", "client_error", "error_class"]


@cache
def error_class(code: str) -> type[ClientError]:
    """Return the class that `client.exceptions` has under this error code; the same code gives the same class."""
    return type(code, (ClientError,), {"__module__": __name__})


def client_error(method: str, code: str, message: str) -> ClientError:
    """Return the error that boto3 raises for a client's method, an error code of the service and its message.

    >>> print(client_error("put_records", "InternalFailure", "try again"))
    An error occurred (InternalFailure) when calling the PutRecords operation: try again
    """
    operation = "".join(part.capitalize() for part in method.split("_"))
    status = 500 if code in ("InternalFailure", "InternalServerError", "ServiceUnavailable") else 400
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return error_class(code)(answer, operation)


class Exceptions:
    """Have an exception class for every error code, as `client.exceptions` has."""

    def __getattr__(self, code: str) -> Any:
        return error_class(code)


class Faults:
    """Hold the faults to come, for each method in the order given; every call uses one up.

    `calls` counts the calls made, by method.

    >>> from headwater.testing import MemoryDynamoDB
    >>> dynamodb = MemoryDynamoDB()
    >>> _ = dynamodb.create_table(TableName="t", KeySchema=[{"AttributeName": "pk"}])
    >>> dynamodb.faults.fail_next("put_item", "ThrottlingException")
    >>> try:
    ...     dynamodb.put_item(TableName="t", Item={"pk": {"S": "a"}})
    ... except dynamodb.exceptions.ThrottlingException:
    ...     print("throttled", dynamodb.faults.calls["put_item"])
    throttled 1
    """

    def __init__(self) -> None:
        self._before: dict[str, list[Exception]] = {}
        self._after: dict[str, list[Exception]] = {}
        self._partial: list[tuple[frozenset[int], str]] = []
        self.calls: dict[str, int] = {}

    def fail_next(self, method: str, error: Exception | str, times: int = 1) -> None:
        """Let the next calls fail with an exception, or with an error code of the service; nothing is done."""
        fault = error if isinstance(error, Exception) else client_error(method, error, "as scripted")
        self._before.setdefault(method, []).extend([fault] * times)

    def lose_answer(self, method: str, times: int = 1) -> None:
        """Carry out the next calls and raise a ReadTimeoutError instead of answering."""
        lost = ReadTimeoutError(endpoint_url="memory://aws")
        self._after.setdefault(method, []).extend([lost] * times)

    def partial(self, indices: Iterable[int], code: str = "ProvisionedThroughputExceededException") -> None:
        """Let the next PutRecords refuse the records at these indices with an error code, and take the others."""
        self._partial.append((frozenset(indices), code))

    def before(self, method: str) -> None:
        """Count a call and raise what the script has for it; a service asks before it does anything."""
        self.calls[method] = self.calls.get(method, 0) + 1
        if self._before.get(method):
            raise self._before[method].pop(0)

    def after(self, method: str) -> None:
        """Raise what the script has for a call that was carried out."""
        if self._after.get(method):
            raise self._after[method].pop(0)

    def refused(self) -> tuple[frozenset[int], str]:
        """Return the indices that this PutRecords refuses, and the error code."""
        return self._partial.pop(0) if self._partial else (frozenset(), "")
