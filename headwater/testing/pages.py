"""Page through an in-memory service's answers, and wait for what is there at once, as boto3's helpers do."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Pages", "Waiter"]


class Pages:
    """Ask `call` for page after page, each when the caller comes to it, as boto3's paginators do."""

    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def paginate(
        self,
        *,
        PaginationConfig: Mapping[str, Any] | None = None,  # noqa: N803 (boto3's name)
        **request: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yield each page's answer; `PageSize` bounds the items read for one."""
        if size := (PaginationConfig or {}).get("PageSize"):
            request["Limit"] = size
        while True:
            answer = self._call(**request)
            yield answer
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


class Waiter:
    """Wait for what is there at once."""

    def wait(self, **_: Any) -> None:
        """Return at once."""
