"""Tell failures that pass from those that do not, and repeat a call over those that pass.

Here is the one list of AWS error codes and the one loop of pauses. Which batch is sent again, and when, is the
writer's business; what a failure means to a future is the tracker's.
"""

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    DataNotFoundError,
    HTTPClientError,
    InvalidRetryConfigurationError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    UnknownServiceError,
)

from headwater.awscodes import THROTTLED
from headwater.clock import Clock
from headwater.errors import HeadwaterError, Retryable, Throttled, UsageError

__all__ = [
    "ATTEMPTS",
    "AWS_ERRORS",
    "RequestRefused",
    "advice",
    "aws_error",
    "lacks_credentials",
    "named_error",
    "pause_seconds",
    "retried",
]

ATTEMPTS = 8
"""Attempts of a single call: about ten seconds at the full pauses, on average."""
_BASE_SECONDS, _CAP_SECONDS = 0.1, 5.0

AWS_ERRORS = (ClientError, BotoCoreError, OSError)
"""Errors that a call of a boto3 client raises."""

_PERMANENT = frozenset(
    {"ResourceNotFoundException", "AccessDeniedException", "AccessDenied", "OptInRequired", "UnknownOperationException"}
    | {"KMSAccessDeniedException", "KMSDisabledException", "KMSInvalidStateException", "KMSNotFoundException"}
    | {"KMSOptInRequired"}
)
"""Somebody has to change the account or the stream. All that is not here and not below passes sooner or later: tokens
expire and are renewed, clocks are set, keys become known everywhere, and an unknown code is no proof of anything."""
_REFUSED = frozenset(
    {"ValidationException", "InvalidArgumentException", "SerializationException", "InvalidParameterValue"}
    | {"InvalidParameterCombination", "MissingParameter", "RequestEntityTooLarge", "413"}
)
"""The content of the request can never be taken; other records of it may be well."""
_PERMANENT_HERE = (
    DataNotFoundError,
    InvalidRetryConfigurationError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    UnknownServiceError,
)
"""This process is set up wrong, and stays so."""

T = TypeVar("T")


class RequestRefused(HeadwaterError):
    """The service will never take this request; where it has several records, which of them is to blame is unknown."""


def aws_error(error: Exception, stream: str) -> HeadwaterError:
    """Return our error for one of boto3's: Throttled and Retryable are worth another try, all else is for good."""
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        return named_error(str(said.get("Code", "")), str(said.get("Message", "")), stream, status)
    text = f"stream {stream}: {_line(error)}"
    if isinstance(error, ParamValidationError):
        return RequestRefused(text)
    if isinstance(error, _PERMANENT_HERE):
        return UsageError(text)
    # Also where credentials are not there: the metadata service may be slow to come up, a login may be renewed.
    return Retryable(text)


def lacks_credentials(error: HeadwaterError) -> bool:
    """Tell whether a call failed because its client has no credentials at all."""
    return isinstance(error.__cause__, NoCredentialsError)


def advice(error: HeadwaterError) -> str:
    """Return what to do about a failure of boto3's, with a full stop in front; empty where there is nothing to say."""
    cause = error.__cause__
    if isinstance(cause, NoCredentialsError):
        return (
            ". Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; to try headwater without AWS, run "
            "`headwater up` and set what it prints"
        )
    if isinstance(cause, ConnectionError | HTTPClientError):
        return ". AWS_ENDPOINT_URL, AWS_REGION and the network decide where it goes and whether it gets there"
    code = str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""
    if code in ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return ". AWS does not know these credentials: check the key, the secret and the account"
    if code.startswith("ExpiredToken"):
        return ". The credentials have expired: log in again, or renew the token"
    return ""


def named_error(code: str, message: str, stream: str, status: int = 0) -> HeadwaterError:
    """Return our error for an AWS error code, with the HTTP status where there is one."""
    text = f"stream {stream}: {code}: {_line(message)}"
    if code in THROTTLED:
        return Throttled(text)
    if status < 500 and code in _PERMANENT:
        return HeadwaterError(text)
    if status < 500 and code in _REFUSED:
        return RequestRefused(text)
    return Retryable(text)


def retried(
    stream: str, clock: Clock, random: Callable[[], float], call: Callable[[], T], attempts: int = ATTEMPTS
) -> T:
    """Return the call's answer after at most so many attempts, with full-jitter pauses of up to 5 s between them.

    Raises what `aws_error` makes of a failure that does not pass, or of the last attempt's. Without credentials it is
    the last at once, as a UsageError: somebody waits for the answer of a single call.
    """
    for attempt in range(attempts):
        try:
            return call()
        except AWS_ERRORS as error:
            failure = aws_error(error, stream)
            if isinstance(error, NoCredentialsError):
                raise UsageError(str(failure)) from error
            if not isinstance(failure, Retryable) or attempt == attempts - 1:
                raise failure from error
            clock.sleep(pause_seconds(attempt, random))
    raise AssertionError("the last attempt answers or raises")


def pause_seconds(attempt: int, random: Callable[[], float]) -> float:
    """Return how long to wait after an attempt, the first being 0: full jitter, up to 5 s.

    >>> pause_seconds(0, lambda: 1.0), pause_seconds(9, lambda: 0.5)
    (0.1, 2.5)
    """
    return random() * min(_CAP_SECONDS, _BASE_SECONDS * float(2**attempt))


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
