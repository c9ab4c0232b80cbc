"""Say what went wrong as RFC 9457 problem details."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

__all__ = ["Problem", "problem_response"]

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    "unauthorized": "No valid credentials",
    "forbidden": "Not allowed with this key",
    "not-found": "No such resource",
    "method-not-allowed": "Method not allowed",
    "malformed-body": "The body cannot be read",
    "unsupported-media-type": "The format or encoding is not supported",
    "too-large": "The body is too large",
    "timeout": "The body did not arrive in time",
    "invalid-events": "Events break the contract",
    "invalid-header": "A header or parameter cannot be used",
    "conflict": "Not possible any more",
    "key-reused": "The Idempotency-Key was used with another body",
    "rate-limited": "Too many events",
    "quota-exceeded": "The quota is used up",
    "overloaded": "No room for more now",
    "unconfirmed": "Kinesis has not confirmed the events in time",
    "undelivered": "Kinesis has refused the events",
    "not-ready": "Not ready",
    "internal": "Internal error",
}


class Problem(Exception):
    """End a request with a status and problem details. `kind` ends the type URI; `more` are extension members.

    >>> Problem(404, "not-found", "there is no such contract").body["type"]
    'urn:headwater:problem:not-found'
    """

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    @classmethod
    def retryable(cls, status: int, kind: str, detail: str, seconds: float, **more: Any) -> "Problem":
        """Return a problem that a client may retry after so many seconds, rounded up to whole ones."""
        return cls(status, kind, detail, {"Retry-After": str(max(1, int(seconds + 0.999)))}, **more)

    @property
    def body(self) -> dict[str, Any]:
        """Return the members of the JSON document."""
        head = {"type": f"urn:headwater:problem:{self.kind}", "title": _TITLES[self.kind], "status": self.status}
        return head | {"detail": self.detail} | self.more


def problem_response(problem: Problem) -> Response:
    """Return the problem as an HTTP response."""
    return Response(json.dumps(problem.body), problem.status, problem.headers, MEDIA_TYPE)
