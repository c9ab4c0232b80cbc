"""Turn every error into problem details: 4xx blames the request, 503 means that a retry may succeed."""

import logging

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headwater.errors import HeadwaterError, Throttled
from headwater.processors.jobs import NoSuchJob
from headwater.serving.api.reading import InvalidQuery, NoSuchKey
from headwater.web.problems import Problem, problem_response

__all__ = ["add_error_handlers", "problem_of"]

log = logging.getLogger(__name__)
_AGAIN_SECONDS = 5
_KINDS = {404: "not-found", 405: "method-not-allowed"}


def problem_of(error: Exception) -> Problem:
    """Return the problem that a client sees; of AWS errors only the code, since their texts name accounts."""
    match error:
        case Problem():
            return error
        case NoSuchKey() | NoSuchJob():
            return Problem(404, "not-found", str(error))
        case InvalidQuery():
            return Problem(400, "invalid-header", str(error))
        case RequestValidationError():
            detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            return Problem(422, "invalid-header", detail)
        case HTTPException():
            kind = _KINDS.get(error.status_code, "internal")
            return Problem(error.status_code, kind, str(error.detail), error.headers)
        case HeadwaterError():
            return Problem.retryable(
                503, "not-ready", str(error), _AGAIN_SECONDS if isinstance(error, Throttled) else 1
            )
        case ClientError():
            code = error.response.get("Error", {}).get("Code", "an error")
            return Problem.retryable(503, "not-ready", f"AWS {error.operation_name}: {code}", _AGAIN_SECONDS)
        case BotoCoreError() | ResponseParserError() | OSError():
            return Problem.retryable(503, "not-ready", "AWS does not answer", _AGAIN_SECONDS)
    return Problem(500, "internal", "the service's log says why")


def add_error_handlers(app: FastAPI) -> None:
    """Answer whatever a route raises. Faults of the service itself the server logs with their traceback."""

    async def refused(_: Request, error: Exception) -> Response:
        return problem_response(problem_of(error))

    async def failed(request: Request, error: Exception) -> Response:
        log.warning("%s: %s: %s", request.url.path, type(error).__name__, " ".join(str(error).split()))
        return problem_response(problem_of(error))

    quiet: tuple[type[Exception], ...] = (Problem, HeadwaterError, RequestValidationError, HTTPException, Exception)
    for kind in quiet:
        app.add_exception_handler(kind, refused)
    logged: tuple[type[Exception], ...] = (ClientError, BotoCoreError, ResponseParserError, OSError)
    for kind in logged:
        app.add_exception_handler(kind, failed)
