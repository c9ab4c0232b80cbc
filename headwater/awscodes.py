"""Name the error codes of AWS that pass: the one list of them, for every client of every service.

Codes alone. What a caller does about a code, and which codes are permanent for it, is the caller's business.
"""

__all__ = ["SERVICE_FAILED", "THROTTLED"]

THROTTLED = frozenset(
    {
        "KMSThrottlingException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
    }
)
"""The service asks for less: the same request is taken after a pause. From the services' API references."""

SERVICE_FAILED = frozenset(
    {"500", "503", "InternalFailure", "InternalServerError", "RequestTimeout", "ServiceUnavailable"}
)
"""The service failed, or did not answer in its time; whether the request was carried out is unknown."""
