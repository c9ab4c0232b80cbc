"""Describe answers for the OpenAPI document. Answers are not checked against these models when they are sent."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, Field, create_model

from headwater.aggregates import Aggregate
from headwater.processors.definition.parts import View

__all__ = ["AlertList", "AlertState", "JobList", "ProblemDetails", "ViewList", "rows_model"]


class ProblemDetails(BaseModel):
    """Describe problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


AlertState = Literal["firing", "pending", "cleared"]


class AlertRow(BaseModel):
    """Describe the last episode of an alert and a key; times are event time."""

    alert: str
    key: str = Field(description="Its parts are joined with |.")
    state: AlertState
    since: str
    cleared: str | None
    value: float | None = Field(description="What was measured when the state changed.")
    condition: str
    view: str
    summary: str
    episode: str = Field(description="The same in the events that were published of it.")
    unpublished: int = Field(description="Events not known to be published.")


class AlertList(BaseModel):
    """Describe a list of alerts."""

    alerts: list[AlertRow]
    more: bool = Field(description="Whether there are others beyond the limit.")


class JobRow(BaseModel):
    """Describe a long command that runs or ran."""

    id: str
    kind: str
    subject: str
    owner: str
    state: Literal["running", "cancelling", "lost", "done", "failed", "cancelled", "interrupted"]
    started_ms: int
    updated_ms: int
    events: int
    done: int = Field(description="Of the total, in its unit.")
    total: int | None
    message: str


class JobList(BaseModel):
    """Describe a list of jobs."""

    jobs: list[JobRow]


class Duration(BaseModel):
    """Describe a window: its size and the distance between two beginnings, in milliseconds, or a calendar's unit."""

    size_ms: int | None = None
    every_ms: int | None = None
    calendar: Literal["day", "week", "month"] | None = None
    zone: str | None = Field(None, description="Of a calendar, a name of the tz database.")


class AggregateRow(BaseModel):
    """Describe an aggregate of a view."""

    name: str
    function: str
    field: str | None
    where: str | None


class ViewRow(BaseModel):
    """Describe a view, in the version that serves."""

    name: str
    version: int
    by: list[str]
    window: Duration | None
    aggregates: list[AggregateRow]


class ViewList(BaseModel):
    """Describe a list of views."""

    views: list[ViewRow]


def rows_model(versions: Sequence[View], schema: pa.Schema) -> type[BaseModel]:
    """Return the model of a view's rows over all its versions: key columns, window, one column an aggregate."""
    name = versions[0].name
    columns: dict[str, tuple[Any, Any, str]] = {}
    for view in versions:
        for one in view.aggregates:
            columns.setdefault(one.name, (_of_all(versions, one.name, schema), None, one.said))
        for column in view.by:
            default = ... if all(column in other.by for other in versions) else None
            columns[column] = (_of_all(versions, column, schema), default, "Part of the key.")
    windowed = [view.window is not None for view in versions]
    if any(windowed):
        kind, default = (str, ...) if all(windowed) else (str | None, None)
        columns["window_start"] = (kind, default, "")
        columns["window_end"] = (kind, default, "")
    columns["final"] = (bool, ..., "No event that is in time can change it any more.")
    row = create_model(f"{name}_row", **_aliased(columns))  # a type that is made here, which mypy cannot know
    return create_model(
        f"{name}_rows",
        watermark=(str | None, Field(description="Event time up to which all shards were read.")),
        as_of=(str | None, Field(description="When the slowest shard committed last.")),
        freshness_ms=(int | None, ...),
        rows=(list[row], ...),  # type: ignore[valid-type]  # a type that is made here
        next=(str | None, Field(description="For the next page; null at the end.")),
    )


def _aliased(columns: dict[str, tuple[Any, Any, str]]) -> dict[str, Any]:
    """Rename columns to names that a model can have: a view's may begin with _, or be a method of models."""
    return {
        f"column_{number}": (kind, Field(default, alias=name, title=name, description=said or None))
        for number, (name, (kind, default, said)) in enumerate(columns.items())
    }


def _of_all(versions: Sequence[View], column: str, schema: pa.Schema) -> Any:
    """Return the type of a column's values over all versions."""
    kinds = [_plain(schema.field(column).type, key=True) for view in versions if column in view.by]
    kinds += [_value(one, schema) for view in versions for one in view.aggregates if one.name == column]
    return Any if Any in kinds else reduce(or_, kinds)


def _value(aggregate: Aggregate, schema: pa.Schema) -> Any:
    """Return the type of an aggregate; null for no values but nulls, except counts, and for numbers that JSON lacks."""
    if aggregate.function in ("count", "distinct"):
        return int
    if aggregate.function in ("mean", "variance", "quantile") or aggregate.field is None:
        return float | None
    kind = schema.field(aggregate.field).type
    of_numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if aggregate.function == "sum" and not of_numbers:
        return Any
    return _plain(kind)


def _plain(kind: pa.DataType, *, key: bool = False) -> Any:
    for holds, found in _PLAIN:
        if holds(kind):
            # in a key NaN, infinities and the very large are text
            return float | str | None if key and found is float else found | None
    return Any


_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], Any], ...] = (
    (pa.types.is_boolean, bool),
    (pa.types.is_integer, int),
    (pa.types.is_floating, float),
    (pa.types.is_string, str),
    (pa.types.is_decimal, str),
    (pa.types.is_fixed_size_binary, str),
    (pa.types.is_temporal, str),
)
