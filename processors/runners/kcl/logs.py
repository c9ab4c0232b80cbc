"""Convert everything a daemon writes into one stream of JSON lines.

stdout is the daemon's own log (logback's JsonEncoder); stderr has what the shards' processes wrote there, our JSON
lines among it, and whatever the JVM or a native library has to say. Every line leaves with time, level, logger,
message, worker, shard and lease; the last two are empty where a line is about no shard.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["from_daemon", "from_shard"]

_SHARD = re.compile(r"shardId-\d{12}")
_LEVELS = {"TRACE": "debug", "DEBUG": "debug", "INFO": "info", "WARN": "warning", "ERROR": "error"}


def from_daemon(text: str, worker: str, table: str, now_ms: int) -> dict[str, Any]:
    """Return the fields of a line of the daemon's stdout."""
    found = _object(text)
    if found is None or "message" not in found:
        return _plain(text, "daemon", worker, table, now_ms, "info")
    message = _formatted(str(found["message"]), found.get("arguments") or [])
    line = _line(
        int(found.get("timestamp", now_ms)),
        _LEVELS.get(str(found.get("level")), "info"),
        str(found.get("loggerName", "daemon")).removeprefix("software.amazon."),
        message,
        worker,
        table,
        str(found.get("mdc", {}).get("ShardId", "")) or _shard_in(message),
    )
    thrown = found.get("throwable")
    if thrown:
        line["exception"] = f"{thrown.get('className')}: {thrown.get('message')}"
    return line


def from_shard(text: str, worker: str, table: str, now_ms: int) -> dict[str, Any]:
    """Return the fields of a line of the daemon's stderr: unchanged when it is one of ours, wrapped when it is not."""
    found = _object(text)
    if found is None or "logger" not in found:
        return _plain(text, "stderr", worker, table, now_ms, "warning")
    return found | {"worker": found.get("worker") or worker}


def _plain(text: str, logger: str, worker: str, table: str, now_ms: int, level: str) -> dict[str, Any]:
    return _line(now_ms, level, logger, text, worker, table, _shard_in(text))


def _line(time_ms: int, level: str, logger: str, message: str, worker: str, table: str, shard: str) -> dict[str, Any]:
    return {
        "time": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "level": level,
        "logger": logger,
        "message": message,
        "shard": shard,
        "worker": worker,
        "lease": f"{table}/{shard}" if shard else "",
    }


def _formatted(template: str, arguments: list[object]) -> str:
    """Fill in slf4j's `{}`: this version of the JsonEncoder leaves that to the reader."""
    parts = template.split("{}")
    filled = [str(arguments[at]) if at < len(arguments) else "{}" for at in range(len(parts) - 1)]
    return "".join(part + value for part, value in zip(parts, [*filled, ""], strict=True))


def _shard_in(text: str) -> str:
    """Return the shard that a message is about; an empty text when it names several or none."""
    found = set(_SHARD.findall(text))
    return found.pop() if len(found) == 1 else ""


def _object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
