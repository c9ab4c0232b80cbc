"""Links of the console's places, what stands at them, and the span of time that a chart shows."""

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import UsageError
from headwater.processors.audit.report import AuditReport, ForeignAudit, MinuteAudit, OriginAudit, SingleEventsAudit
from headwater.serving.console.audit import minute_rows, origin_facts
from headwater.serving.console.charts import rate_options, view_options, window_times
from headwater.serving.console.formatting import failure
from headwater.serving.console.jobs import job_cells, job_facts
from headwater.serving.console.overview import shard_rows
from headwater.serving.console.places import SECTIONS, Place, link_to, place_of
from headwater.serving.console.shards import shard_facts
from headwater.serving.console.spans import SPANS, outside_text, span_of
from tests.unit.test_console import FOUND


@given(st.sampled_from([*SECTIONS]), st.lists(st.text(min_size=1, max_size=60), max_size=3))
def test_a_link_leads_to_what_it_was_made_for(section: str, names: list[str]) -> None:
    link = link_to(section, *names)
    assert place_of(link) == Place(section, tuple(names))
    assert set(link) <= set("#/%-._~") | set(map(chr, range(48, 58))) | set(map(chr, range(65, 123)))


def test_names_in_the_middle_may_be_empty() -> None:
    assert place_of(link_to("views", "v", "", "mean", "")) == Place("views", ("v", "", "mean"))


@given(
    st.one_of(st.text(), st.none(), st.integers(), st.dictionaries(st.text(), st.text()), st.just("#shards/" * 9999))
)
def test_whatever_a_browser_sends_is_a_place(sent: object) -> None:
    assert place_of(sent).section in {"", *SECTIONS}


def test_a_shard_names_its_parents_and_children() -> None:
    rows = shard_rows(FOUND)
    parent = dict(shard_facts("shardId-000000000000", rows))
    child = dict(shard_facts("shardId-000000000002", rows))
    assert parent["state"] == "closed, read to its end"
    assert [parent[f"child {number}"][0] for number in (1, 2)] == ["1", "2"]
    assert child["parent 1"] == ("0", "shardId-000000000000", "#shards/shardId-000000000000")
    assert child["share of the hash space"] == "50.0%, from 50.0% to 100.0%"
    assert list(shard_facts("nosuch", rows)) == []


JOB: dict[str, Any] = {
    "id": "replay-1",
    "kind": "replay",
    "subject": "s",
    "owner": "me",
    "state": "running",
    "message": "m",
    "done": 1,
    "total": 4,
    "events": 7,
    "started_ms": 0,
    "updated_ms": 1_000,
}


def test_a_job_has_its_facts() -> None:
    assert job_cells(JOB)[0] == ("replay-1", "replay-1", "#jobs/replay-1")
    facts = dict(job_facts("replay-1", [JOB | {"id": "other"}, JOB]))
    assert (facts["done"], facts["events"], facts["owner"]) == ("25%", "7", "me")
    assert list(job_facts("nosuch", [JOB])) == []


def test_an_origin_has_all_its_gaps() -> None:
    gaps = tuple((at, at + 1) for at in range(0, 400, 2))
    one = OriginAudit("o", 500, 400, 1, 199, 0, (), (), gaps, (), 0)
    report = AuditReport("p", (one,), ForeignAudit(0, 0, 0, 0, 0), {}, 0, 0)
    facts = dict(origin_facts("o", report))
    assert facts["verdict"] == "not exact"
    assert str(facts["not in lake"]).endswith("396, 398")
    assert facts["unexpected"] == "none"
    assert list(origin_facts("nosuch", report)) == []
    assert list(minute_rows(report)) == []


def test_where_every_event_is_an_origin_the_audit_is_by_shard_and_minute() -> None:
    amiss = MinuteAudit("shardId-000000000007", 60_000, 1, 2, 3, 4, ("a", "b"))
    single = SingleEventsAudit(9, 9, 0, 6, 0, 0, 0, 0, (amiss, replace(amiss, shard_id="")))
    report = AuditReport("p", (), ForeignAudit(0, 0, 0, 0, 0), {}, 0, 0, single=single)
    first, second = minute_rows(report)
    link = "#shards/shardId-000000000007"
    assert first == (("7 · 1970-01-01 00:01:00", "shardId-000000000007", link), "1", "2", "3", "4", "a, b")
    assert second[0] == ("no shard · 1970-01-01 00:01:00", "", "#shards")
    many = replace(single, minutes=(amiss,) * 2_000)
    assert len(list(minute_rows(replace(report, single=many)))) == 1_000


MINUTE, DAY = 60_000, 86_400_000


def test_a_stray_does_not_stretch_a_chart() -> None:
    """One event of eleven months ago, and one of a clock that runs ahead; the line says so, and all can be had."""
    usual = [340 * DAY + at * MINUTE for at in range(60)]
    times = [0, *usual, 9_000 * DAY]
    assert span_of(times) == (usual[0], usual[-1])
    assert outside_text(times, span_of(times)) == (
        "2 of 62 points lie outside, from 1970-01-01 00:00 to 1994-08-23 00:00 UTC"
    )
    assert span_of(times, "all") == (0, 9_000 * DAY)
    assert span_of(times, "1h") == (usual[0], usual[-1])
    assert span_of([0, *usual[:2]]) == span_of([*usual[:2], 9_000 * DAY]) == (usual[0], usual[1])
    assert span_of([0, *usual[::30]]) == (usual[0], usual[30])
    assert span_of(usual[:3]) == (usual[0], usual[2])
    assert span_of([*usual[:1] * 5, usual[1], 9_000 * DAY]) == (usual[0], usual[1])
    days = [340 * DAY + at * 6 * 60 * MINUTE for at in range(60)]
    assert span_of([0, *days], "1d") == (days[-1] - DAY, days[-1])


@given(st.lists(st.integers(0, 2**42), max_size=60), st.sampled_from([*SPANS]))
def test_a_span_holds_nearly_all_unless_less_was_chosen(times: list[int], choice: str) -> None:
    span = span_of(times, choice)
    inside = [one for one in times if span and span[0] <= one <= span[1]]
    assert bool(inside) == bool(times)
    assert bool(outside_text(times, span)) == (len(inside) < len(times))
    if choice == "all":
        assert inside == times
    if choice == "":
        assert len({*times}) - len({*inside}) <= max(2, len({*times}) // 10)


def test_charts_show_their_span_alone() -> None:
    rows = [{"k": "a", "window_start": f"2026-0{month}-01T00:00:00Z", "v": month} for month in range(1, 7)]
    times = window_times([*rows, {"k": "a", "v": 1}])
    assert len(times) == 6
    (line,) = view_options(rows, ["k"], "v", (times[2], times[4]))["series"]
    assert [value for _, value in line["data"]] == [3, 4, 5]
    assert "min" not in rate_options(())["xAxis"]
    axis = rate_options([(1_000_000, {})])["xAxis"]
    assert (axis["min"], axis["max"]) == (100_000, 1_000_000)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("a\n b"), "a b"),
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "arn:aws:iam::1"}}, "Scan"),
            "AWS refuses Scan: AccessDenied",
        ),
        (EndpointConnectionError(endpoint_url="http://secret"), "AWS does not answer"),
        (RuntimeError("x" * 1_000), "RuntimeError: " + "x" * 286 + "…"),
    ],
)
def test_a_failure_is_one_line(error: Exception, said: str) -> None:
    assert failure(error) == said
