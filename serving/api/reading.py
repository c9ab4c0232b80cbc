"""Read rows of views, with what a reader has to know of them: how far the stream was read, which windows are final.

Questions and answers only: no HTTP, no caching of answers, and nothing that changes something.
"""

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from headwater.clock import Clock
from headwater.errors import UsageError
from headwater.ledger import Ledger, ShardEntry
from headwater.processors.alerts.store import AlertStore, alert_rows
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import Serving
from headwater.processors.jobs import Jobs
from headwater.processors.ports import StreamClient
from headwater.processors.watermark import final_until
from headwater.serving.api.times import clamp_ms
from headwater.sinks.views.items import MAX_KEY_BYTES, key_parts, key_text
from headwater.sinks.views.store import ViewStore
from headwater.stream.shards import list_shards

__all__ = ["InvalidQuery", "NoSuchKey", "ReadProgress", "ViewReader", "view_json"]

_PROGRESS_MS = 1_000
MOST_ROWS = 1_000
_LONGEST_SK = 64
"""Bytes; the beginning of a window, as text, has less."""


class InvalidQuery(UsageError):
    """Refuse a question that has no answer, such as a page of an earlier generation. Answered 400."""


class NoSuchKey(UsageError):
    """Refuse a key that no row of the view can have. Answered 404."""


@dataclass(frozen=True)
class ReadProgress:
    """Hold up to where windows are final (None while a shard has nothing yet), and the slowest shard's last commit.

    Both in epoch milliseconds; the first is event time, the second the processor's clock.
    """

    watermark_ms: int | None
    as_of_ms: int | None

    def is_final(self, window_end_ms: int) -> bool:
        """Say whether only late events can still come for a window; those amend it."""
        return self.watermark_ms is not None and window_end_ms <= self.watermark_ms


class ViewReader:
    """Answer questions about one pipeline's views, jobs and alerts. Blocking; every answer is a dict that becomes JSON.

    `idle_seconds`: a shard without commits for so long counts as read up to so long ago; 0 for never.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ledger: Ledger,
        stream: StreamClient,
        views: ViewStore,
        alerts: AlertStore,
        clock: Clock,
        idle_seconds: float = 0.0,
    ) -> None:
        self._pipeline, self._ledger, self._clock = pipeline, ledger, clock
        self._stream, self._views, self._alerts, self._idle_seconds = stream, views, alerts, idle_seconds
        self._serving = Serving(self._ledger, self._pipeline, self._clock)
        self._progress = (-(1 << 62), ReadProgress(None, None))
        self._claimed: set[tuple[str, bool]] = set()
        self._listed: dict[str, Sequence[str]] = {}
        self.jobs = Jobs(self._ledger, self._clock)
        self.schema = self._pipeline.schema
        """Schema of the events, with the columns that the pipeline's steps add."""
        self.names = [view.name for view in self._pipeline.views]

    def versions_of(self, name: str) -> list[View]:
        """Return a view in all the versions that the pipeline has."""
        return [view for view in self._pipeline.definitions if view.name == name]

    def view_definitions(self) -> list[dict[str, Any]]:
        """Return what the views are, in the versions that serve."""
        found = self._serving.views()
        return [view_json(view) | {"name": name} for name, view in found.items()]

    def progress(self) -> ReadProgress:
        """Return how far the stream was read, at most a second ago."""
        now = self._clock.now_ms()
        if now - self._progress[0] >= _PROGRESS_MS:
            entries = self._ledger.shards()
            mark = final_until(self._pipeline, self._idle_seconds, entries, self._shards(entries), now)
            read = [entry for entry in entries if not entry.closed] or entries
            as_of = min((entry.updated_ms for entry in read), default=None)
            self._progress = (now, ReadProgress(mark, as_of))
        return self._progress[1]

    def _shards(self, entries: Sequence[ShardEntry]) -> Mapping[str, Sequence[str]]:
        """Return the stream's shards and their parents, listed again when one was claimed or read to its end.

        Listed also while a shard waits to be claimed, so that a reshard is seen before its first commit.
        """
        claimed = {(entry.shard_id, entry.closed) for entry in entries}
        if claimed != self._claimed or not self._listed.keys() <= {shard_id for shard_id, _ in claimed}:
            found = list_shards(self._stream.kinesis, self._stream.stream)
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
        """Return the windows of one key that begin in `[start_ms, stop_ms)`, a page of them, oldest or newest first.

        `after` is the `next` of an earlier answer. NoSuchKey for a key that the view cannot have.
        """
        view = self._serving.view(name)
        if key and not view.by:
            raise NoSuchKey(f"view {name} is over all keys: it has no {key[:64]!r}")
        parts = key_parts(key) if view.by else []
        if len(parts) != len(view.by):
            raise NoSuchKey(f"view {name} has keys of {len(view.by)} parts ({', '.join(view.by)}), joined with |")
        if _bytes(key_text(parts)) > MAX_KEY_BYTES:
            raise NoSuchKey(f"keys are at most {MAX_KEY_BYTES:,} bytes long")
        if after and newest_first:
            stop_ms = clamp_ms(_decoded(after, int))
        elif after:
            start_ms = clamp_ms(_decoded(after, int) + 1)
        if view.window is None:
            start_ms = stop_ms = None
        progress = self.progress()
        found = self._views.windows(view.spec, parts, start_ms, stop_ms, limit=limit + 1, newest_first=newest_first)
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
        """Return rows whose key begins with `prefix`, of windows that begin in `[start_ms, stop_ms)`, in order.

        A page at a time; `after` is the `next` of an earlier answer.
        """
        if _bytes(prefix) > MAX_KEY_BYTES:
            raise InvalidQuery(f"prefix: keys are at most {MAX_KEY_BYTES:,} bytes long")
        progress = self.progress()
        view = self._serving.view(name)
        where = _place(after) if after else None
        if where is not None and where[0] != view.name:
            raise InvalidQuery("next is of an earlier generation of the view, which has been rebuilt: begin again")
        if view.window is None:
            start_ms = stop_ms = None
        since = None if where is None else (where[1], where[2])
        rows, place = self._views.page(view.spec, prefix, limit, since, start_ms, stop_ms)
        return self._answer(progress, rows, _encoded([view.name, *place]) if place else None)

    def alerts(self, state: str | None, limit: int) -> Any:
        """Return what the alerts service has found, or those alerts in one state."""
        rows = alert_rows(self._pipeline.name, self._pipeline.alerts, self._alerts)
        wanted = [row for row in rows if state in (None, row["state"])]
        return {"alerts": wanted[:limit], "more": len(wanted) > limit}

    def _answer(self, progress: ReadProgress, rows: Sequence[Mapping[str, object]], after: str | None) -> Any:
        now = self._clock.now_ms()
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
    """Return a view's definition as JSON has it."""
    window = view.window
    return {
        "name": view.name,
        "version": view.version,
        "by": list(view.by),
        "window": None if window is None else window.to_json(),
        "aggregates": [
            {"name": one.name, "function": one.function, "field": one.field, "where": one.where}
            for one in view.aggregates
        ],
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
        raise InvalidQuery("next is not what an earlier answer gave")
    return value


def _place(text: str) -> tuple[str, str, str]:
    """Return the stored view name, key and `sk` in a `next`; refuse sizes that the table does not take."""
    match _decoded(text, list):
        case [str(name), str(key), str(sk)] if _bytes(key) <= MAX_KEY_BYTES and _bytes(sk) <= _LONGEST_SK:
            return name, key, sk
    raise InvalidQuery("next is not what an earlier answer gave")


def _bytes(text: str) -> int:
    """Return the length in UTF-8; the largest integer for lone surrogates, which JSON may hold and UTF-8 may not."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return sys.maxsize
