"""What a test wants to go wrong, call by call."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

__all__ = ["Faults", "client_error", "error_class"]

_OPERATIONS = {"put_record": "PutRecord", "put_records": "PutRecords", "get_records": "GetRecords"}


@cache
def error_class(code: str) -> type[ClientError]:
    """What `client.exceptions` has under this code."""
    return type(code, (ClientError,), {})


def client_error(method: str, code: str, message: str) -> ClientError:
    """As boto3 raises it."""
    operation = _OPERATIONS.get(method) or "".join(part.capitalize() for part in method.split("_"))
    status = 500 if code in ("InternalFailure", "ServiceUnavailable") else 400
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return error_class(code)(answer, operation)


class Faults:
    """Used up in the order given, one a call of the method; `calls` counts those made."""

    def __init__(self) -> None:
        self._before: dict[str, list[Exception]] = {}
        self._after: dict[str, list[Exception]] = {}
        self._partial: list[tuple[frozenset[int], str]] = []
        self.calls: dict[str, int] = {}

    def fail_next(self, method: str, error: Exception | str, times: int = 1) -> None:
        """The next calls fail, with an exception or an error code of the service, and nothing is done."""
        fault = error if isinstance(error, Exception) else client_error(method, error, "as scripted")
        self._before.setdefault(method, []).extend([fault] * times)

    def lose_answer(self, method: str, times: int = 1) -> None:
        """The next calls are carried out, and the caller gets a timeout."""
        lost = ReadTimeoutError(endpoint_url="memory://kinesis")
        self._after.setdefault(method, []).extend([lost] * times)

    def partial(self, indices: Iterable[int], code: str = "ProvisionedThroughputExceededException") -> None:
        """The next PutRecords takes all records but these."""
        self._partial.append((frozenset(indices), code))

    def before(self, method: str) -> None:
        """Raises what the script has for this call."""
        self.calls[method] = self.calls.get(method, 0) + 1
        if self._before.get(method):
            raise self._before[method].pop(0)

    def after(self, method: str) -> None:
        if self._after.get(method):
            raise self._after[method].pop(0)

    def refused(self) -> tuple[frozenset[int], str]:
        """Of the next PutRecords: which records, and the code."""
        return self._partial.pop(0) if self._partial else (frozenset(), "")
