"""Rows of views with what a reader has to know of them: how far the stream was read, and which windows are final."""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headwater.errors import UsageError
from headwater.ledger import ShardEntry
from headwater.serving.times import clamped
from processors.alerts.store import alert_rows
from processors.finality import final_until
from processors.jobs import Jobs
from processors.pipeline import View
from processors.runners.embedded import list_shards
from processors.services import Services
from sinks.viewitems import LONGEST_KEY, key_parts, key_text

__all__ = ["BadQuestion", "NoSuchKey", "Progress", "ViewReader", "view_json"]

_PROGRESS_MS = 1_000
MOST_ROWS = 1_000
_LONGEST_SK = 64
"""Bytes; the beginning of a window, as text, has less."""


class BadQuestion(UsageError):
    """Something in the question that no answer has."""


class NoSuchKey(UsageError):
    """A key that no row of the view can have."""


@dataclass(frozen=True)
class Progress:
    """Up to where windows are final, None while a shard has nothing yet; and when the slowest of the shards that are
    read committed last."""

    watermark_ms: int | None
    as_of_ms: int | None

    def is_final(self, window_end_ms: int) -> bool:
        """Whether no event that is not late can come for a window any more. A late one still amends it."""
        return self.watermark_ms is not None and window_end_ms <= self.watermark_ms


class ViewReader:
    """Blocking. One answer is a dict that becomes JSON."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._progress = (-(1 << 62), Progress(None, None))
        self._claimed: set[tuple[str, bool]] = set()
        self._listed: dict[str, Sequence[str]] = {}
        self.jobs = Jobs(services.ledger, services.clock)
        self.schema = services.pipeline.schema
        """Of the events, with the columns that steps add."""
        self.names = [view.name for view in services.pipeline.views]

    def definitions(self, name: str) -> list[View]:
        """A view in all the versions that the pipeline has."""
        return [view for view in self._services.pipeline.definitions if view.name == name]

    def described(self) -> list[dict[str, Any]]:
        """What the views are, in the versions that serve."""
        found = self._services.serving.views()
        return [view_json(view) | {"name": name} for name, view in found.items()]

    def progress(self) -> Progress:
        """At most a second old."""
        services = self._services
        now = services.clock.now_ms()
        if now - self._progress[0] >= _PROGRESS_MS:
            entries = services.ledger.shards()
            mark = final_until(services.pipeline, services.settings, entries, self._shards(entries), now)
            read = [entry for entry in entries if not entry.closed] or entries
            as_of = min((entry.updated_ms for entry in read), default=None)
            self._progress = (now, Progress(mark, as_of))
        return self._progress[1]

    def _shards(self, entries: Sequence[ShardEntry]) -> Mapping[str, Sequence[str]]:
        """The stream's, asked for again when one was claimed or read to its end, and while one waits to be claimed."""
        claimed = {(entry.shard_id, entry.closed) for entry in entries}
        if claimed != self._claimed or not self._listed.keys() <= {shard_id for shard_id, _ in claimed}:
            found = list_shards(self._services.kinesis, self._services.settings.stream)
            self._listed, self._claimed = {one.shard_id: one.parents for one in found}, claimed
        return self._listed

    def key(
        self,
        name: str,
        key: str,
        start_ms: int | None = None,
        stop_ms: int | None = None,
        *,
        limit: int,
        after: str = "",
        newest_first: bool = False,
    ) -> Any:
        """The windows of one key that begin in `[start, stop)`, in order, or the newest first."""
        view = self._services.serving.view(name)
        if key and not view.by:
            raise NoSuchKey(f"view {name} is over all keys: it has no {key[:64]!r}")
        parts = key_parts(key) if view.by else []
        if len(parts) != len(view.by):
            raise NoSuchKey(f"view {name} has keys of {len(view.by)} parts ({', '.join(view.by)}), joined with |")
        if _bytes(key_text(parts)) > LONGEST_KEY:
            raise NoSuchKey(f"keys are at most {LONGEST_KEY:,} bytes long")
        if after and newest_first:
            stop_ms = clamped(_decoded(after, int))
        elif after:
            start_ms = clamped(_decoded(after, int) + 1)
        if view.window is None:
            start_ms = stop_ms = None
        progress = self.progress()
        found = self._services.views.windows(
            view.spec, parts, start_ms, stop_ms, limit=limit + 1, newest_first=newest_first
        )
        page = found[:limit]
        more = len(found) > limit and "window_start" in page[-1]
        return self._answer(progress, page, _encoded(_ms(page[-1]["window_start"])) if more else None)

    def prefix(
        self,
        name: str,
        prefix: str,
        start_ms: int | None = None,
        stop_ms: int | None = None,
        *,
        limit: int,
        after: str = "",
    ) -> Any:
        """Rows whose key begins so, of windows that begin in `[start, stop)`, by key and window, a page at a time."""
        if _bytes(prefix) > LONGEST_KEY:
            raise BadQuestion(f"prefix: keys are at most {LONGEST_KEY:,} bytes long")
        progress = self.progress()
        view = self._services.serving.view(name)
        where = _place(after) if after else None
        if where is not None and where[0] != view.name:
            raise BadQuestion("next is of an earlier generation of the view, which has been rebuilt: begin again")
        if view.window is None:
            start_ms = stop_ms = None
        since = None if where is None else (where[1], where[2])
        rows, place = self._services.views.page(view.spec, prefix, limit, since, start_ms, stop_ms)
        return self._answer(progress, rows, _encoded([view.name, *place]) if place else None)

    def alerts(self, state: str | None, limit: int) -> Any:
        """What the alerts service has found, or those in one state."""
        pipeline = self._services.pipeline
        rows = alert_rows(pipeline.name, pipeline.alerts, self._services.alerts)
        wanted = [row for row in rows if state in (None, row["state"])]
        return {"alerts": wanted[:limit], "more": len(wanted) > limit}

    def _answer(self, progress: Progress, rows: Sequence[Mapping[str, object]], after: str | None) -> Any:
        now = self._services.clock.now_ms()
        return {
            "watermark": _iso(progress.watermark_ms),
            "as_of": _iso(progress.as_of_ms),
            "freshness_ms": None if progress.as_of_ms is None else max(0, now - progress.as_of_ms),
            "rows": [
                {**row, "final": "window_end" in row and progress.is_final(_ms(row["window_end"]))} for row in rows
            ],
            "next": after,
        }


def view_json(view: View) -> dict[str, Any]:
    """What a view is."""
    window = view.window
    return {
        "name": view.name,
        "version": view.version,
        "by": list(view.by),
        "window": None if window is None else {"size_ms": window.size_ms, "every_ms": window.every_ms},
        "aggregates": [{"name": one.name, "function": one.function, "field": one.field} for one in view.aggregates],
    }


def _iso(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _ms(text: object) -> int:
    return round(datetime.fromisoformat(str(text)).timestamp() * 1000)


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, ensure_ascii=False).encode()).decode().rstrip("=")


def _decoded(text: str, kind: type) -> Any:
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadQuestion("next is not what an earlier answer gave")
    return value


def _place(text: str) -> tuple[str, str, str]:
    """The stored name of a view, a key and the `sk` of a row, as `prefix` gave them: of a size that the table takes."""
    match _decoded(text, list):
        case [str(name), str(key), str(sk)] if _bytes(key) <= LONGEST_KEY and _bytes(sk) <= _LONGEST_SK:
            return name, key, sk
    raise BadQuestion("next is not what an earlier answer gave")


def _bytes(text: str) -> int:
    """As UTF-8; without end where it is none, as JSON may have it."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return sys.maxsize
