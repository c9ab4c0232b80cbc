"""Explain an error to the person at the terminal: one line, and the exit code."""

from traceback import walk_tb
from typing import Any

from headwater.errors import HeadwaterError, UsageError

__all__ = ["explain"]

_HINTS = {
    "ResourceNotFoundException": "is it there? `headwater up` makes it; settings are HEADWATER_… variables",
    "NoSuchBucket": "is it there? `headwater up` makes it; settings are HEADWATER_… variables",
    "EntityNotFoundException": "is it there? `headwater up` makes it; settings are HEADWATER_… variables",
    "UnrecognizedClientException": "check the credentials",
    "InvalidClientTokenId": "check the credentials",
    "InvalidAccessKeyId": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "AccessDenied": "the credentials do not allow it",
    "AccessDeniedException": "the credentials do not allow it",
}

_OF_EXTRAS = {
    "lake": "pyiceberg duckdb",
    "pandas": "pandas",
    "formats": "fastavro",
    "local": "moto",
    "kcl": "amazon_kclpy",
    "web": "fastapi starlette uvicorn uvloop httptools jwt prometheus_client opentelemetry grpc google sse_starlette "
    "nicegui",
}
_EXTRAS = {module: extra for extra, modules in _OF_EXTRAS.items() for module in modules.split()}
"""The extra that brings each module; several bring `opentelemetry`."""
_PLAIN = frozenset({"builtins", "json", "pydantic_core", "struct", "zlib"})
"""Modules of errors that do not say whose they are."""


def explain(error: Exception) -> tuple[str, int]:
    """Return one line for stderr and the exit code: 2 when the command or its input is wrong, else 1."""
    if isinstance(error, UsageError):
        return _line(error), 2
    if isinstance(error, HeadwaterError):
        return _line(error), 1
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
        context = getattr(error, "ctx", None)
        path = context.command_path.removeprefix("headwater").strip() if context else ""
        if type(error).__name__ == "NoArgsIsHelpError":
            # its message is the help text
            return error.format_message(), 2
        return f"{path + ': ' if path else ''}{_text(error.format_message())}", 2
    return _of_library(error)


def _of_library(error: Exception) -> tuple[str, int]:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _EXTRAS:
        name = str(error.name).split(".")[0]
        return f"this needs {name}: pip install 'headwater[{_EXTRAS[name]}]'", 1
    module = type(error).__module__.split(".")[0]
    if module in _PLAIN and _is_within(error, "pyiceberg"):  # of bytes that are cut it raises anything
        return f"a file of the lake cannot be read: {type(error).__name__}: {_line(error)}; try again", 1
    if module == "pydantic_core":
        from headwater.config import setting_faults

        return "; ".join(setting_faults(error)), 2  # type: ignore[arg-type]  # settings are what we validate by it
    if module in ("botocore", "boto3"):
        return _aws(error), 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", 1
    if module in ("pyiceberg", "pyarrow", "duckdb") or isinstance(error, OSError):
        return f"{type(error).__name__}: {_line(error)}", 1
    return f"unexpected {type(error).__name__}: {_line(error)} (HEADWATER_DEBUG=1 shows where)", 1


def _is_within(error: Exception, package: str) -> bool:
    names = (str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__))
    return any(name.split(".")[0] == package for name in names)


def _aws(error: Any) -> str:
    """Return a line that names the service's operation and endpoint, as far as botocore says them."""
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        found = error.response.get("Error", {})
        code = str(found.get("Code", "error"))
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        return f"AWS {error.operation_name}: {code}: {_text(str(found.get('Message', '')))}{hint}"
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return "AWS: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile (aws configure)"
    if isinstance(error, aws.ConnectionError | aws.HTTPClientError):
        return f"AWS cannot be reached: {_line(error)} (AWS_ENDPOINT_URL and the network decide where)"
    return f"AWS: {_line(error)}"


def _line(error: Exception) -> str:
    return _text(str(error)) or type(error).__name__


def _text(text: str) -> str:
    return " ".join(text.split())
