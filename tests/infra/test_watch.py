"""Alarms, their pages, and what they count in the logs."""

import json
import logging
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from headwater.telemetry.logs import JsonLines
from infra.stacks.watch import PATTERNS
from tests.infra.synthesis import Synthesis

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
HURTS = {"iterator-age", "audit-gaps", "fenced", "write-throttles", "dead-letters", "publisher-age"}


def matches(pattern: str, line: str) -> bool:
    """CloudWatch's filter patterns on JSON, as far as they are used here: no mixture of && and ||."""
    found = json.loads(line)

    def one(term: str) -> bool:
        name, operator, value = re.fullmatch(r"\$\.(\w+) (=|IS) (.+)", term.strip()).groups()  # type: ignore[union-attr]  # a term that does not match fails the test
        if operator == "IS":
            return found.get(name) is (value == "TRUE")
        wanted = value.strip('"')
        text = str(found.get(name, ""))
        return text.startswith(wanted[:-1]) if wanted.endswith("*") else text == wanted

    inner = pattern.strip("{} ")
    if "||" in inner:
        return any(map(one, inner.split("||")))
    return all(map(one, inner.split("&&")))


def line(message: str, **extra: object) -> str:
    """As the services write it."""
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    log = logging.Logger("headwater.test")
    log.addHandler(handler)
    log.warning(message, extra=extra)
    return out.getvalue()


def named_by_errors() -> set[str]:
    """The pages that an error's text leads to."""
    sources = (path.read_text() for path in (PAGES.parents[1] / "processors").rglob("*.py"))
    return {page for text in sources for page in re.findall(r"docs/runbooks/([\w-]+)\.md", text)}


def test_every_alarm_says_what_to_do(containers: Synthesis, serverless: Synthesis) -> None:
    linked = set()
    for made in (containers, serverless):
        alarms = [one["Properties"] for _, one in made.of("AWS::CloudWatch::Alarm", "watch")]
        names = {one["AlarmName"].removeprefix(f"{made.deployed.name}-") for one in alarms}
        assert names >= HURTS
        for alarm in alarms:
            page = re.search(r"docs/runbooks/([\w-]+)\.md$", alarm["AlarmDescription"])
            assert page, alarm
            text = (PAGES / f"{page[1]}.md").read_text()
            assert "**Means.**" in text
            assert "**Do.**" in text
            assert alarm["AlarmActions"]
            linked.add(page[1])
    assert linked | named_by_errors() == {path.stem for path in PAGES.glob("*.md")}


def alarms_of(made: Synthesis) -> dict[str, dict[str, Any]]:
    """By the names that runbooks have for them."""
    found = [one["Properties"] for _, one in made.of("AWS::CloudWatch::Alarm", "watch")]
    return {one["AlarmName"].removeprefix(f"{made.deployed.name}-"): one for one in found}


def series(metric: Mapping[str, Any]) -> str:
    """A name for what a metric counts: its own, and of which service or resource."""
    values = [one["Value"] for one in metric.get("Dimensions", ())]
    named = [value.rpartition("/")[2] if isinstance(value, str) else json.dumps(value) for value in values]
    return " ".join([metric["MetricName"], *sorted(named)])


def figures(alarm: Mapping[str, Any]) -> dict[str, str]:
    """The series that an alarm reads, by their ids in its expression."""
    if "MetricName" in alarm:
        return {"one": series(alarm)}
    return {one["Id"]: series(one["MetricStat"]["Metric"]) for one in alarm["Metrics"] if "MetricStat" in one}


def fires(alarm: Mapping[str, Any], emitted: Mapping[str, float]) -> bool:
    """As CloudWatch judges periods that are all like these values; what is not in them is missing."""
    read = {name: emitted.get(one) for name, one in figures(alarm).items()}
    if "MetricName" in alarm:
        value = read["one"]
    else:
        (expression,) = (one["Expression"] for one in alarm["Metrics"] if "Expression" in one)
        fill = {"FILL": lambda known, other: other if known is None else known}
        text = expression.replace("AND", "and").replace("IF(", "_if(")
        value = eval(text, fill | {"_if": lambda asked, yes, no: yes if asked else no}, read)
    if value is None:
        return bool(alarm["TreatMissingData"] == "breaching")
    below = alarm["ComparisonOperator"] == "LessThanThreshold"
    return bool(value < alarm["Threshold"] if below else value > alarm["Threshold"])


QUIET = (
    *("Throttle", "Exceeded", "5XX", "Errors", "DeadLetters"),
    *("Fenced", "AuditGaps", "Visible", "IteratorAge", "Oldest"),
)
"""What is nothing as long as all is well."""


def all_well(made: Synthesis) -> dict[str, float]:
    """Every series of every alarm as it is when all works: nothing throttled or failed, and work is done."""
    names = {one for alarm in alarms_of(made).values() for one in figures(alarm).values()}
    return {name: 0.0 if any(quiet in name for quiet in QUIET) else 100.0 for name in names}


EMITS: Mapping[str, tuple[str, ...]] = {
    "kcl": ("GetRecords", "SubscribeToShardEvent", "Fenced", "DeadLetters"),
    "publish": ("PublisherSteps", "OldestFile"),
    "audit": ("AuditRuns", "AuditGaps"),
    "alerts": ("AlertTurns",),
    "maintain": ("MaintenanceRounds",),
    "gateway": (),
    "serve": (),
}
"""Metrics that are a service's alone, beside its count of tasks and what its load balancer finds."""
FIRE: Mapping[str, set[str]] = {
    "kcl": {"kcl-down", "unread"},
    "publish": {"publish-down", "publisher-age"},
    "audit": {"audit-silent"},
    "alerts": {"alerts-down", "alerts-silent"},
    "maintain": {"maintain-down", "maintain-silent"},
    "gateway": {"gateway-down", "gateway-unhealthy"},
    "serve": {"serve-down", "serve-unhealthy"},
}
"""The alarms of a service that has died; each stands in a runbook's title."""


def test_nothing_fires_while_all_is_well(containers: Synthesis, serverless: Synthesis) -> None:
    for made in (containers, serverless):
        emitted = all_well(made)
        assert {name for name, alarm in alarms_of(made).items() if fires(alarm, emitted)} == set()


@pytest.mark.parametrize("killed", FIRE)
def test_a_service_that_dies_is_noticed_by_its_own_alarms(containers: Synthesis, killed: str) -> None:
    """What it emitted is missing from then on; nothing else changes."""
    emitted = all_well(containers)
    gone = [name for name in emitted if _is_of(name, killed)]
    assert gone
    for name in gone:
        del emitted[name]
    fired = {name for name, alarm in alarms_of(containers).items() if fires(alarm, emitted)}
    assert fired == FIRE[killed]
    titles = "".join(page.read_text().splitlines()[0] for page in PAGES.glob("*.md"))
    assert all(name in titles or f"…-{name.rpartition('-')[2]}" in titles for name in fired)


def _is_of(name: str, service: str) -> bool:
    metric, _, of = name.partition(" ")
    if metric == "RunningTaskCount":
        return service in of.split()
    if metric == "HealthyHostCount":
        return service.capitalize() in of
    return metric.startswith(EMITS[service] or ("nothing",))


def test_records_that_nobody_reads_are_noticed_however_they_are_read(containers: Synthesis) -> None:
    """Polling or fan-out, one of them is enough; an idle stream is no fault."""
    alarm = alarms_of(containers)["unread"]
    came, polled, pushed = (figures(alarm)[name] for name in ("came", "polled", "pushed"))
    assert fires(alarm, {came: 5})
    assert fires(alarm, {came: 5, polled: 0, pushed: 0})
    assert not fires(alarm, {came: 5, polled: 5})
    assert not fires(alarm, {came: 5, pushed: 5})
    assert not fires(alarm, {came: 0})
    assert not fires(alarm, {})


def test_dashboard_shows_every_alarm(containers: Synthesis) -> None:
    ((_, board),) = containers.of("AWS::CloudWatch::Dashboard")
    count = len(containers.of("AWS::CloudWatch::Alarm", "watch"))
    assert str(board["Properties"]["DashboardBody"]).count("Fn::GetAtt") >= count


@pytest.mark.parametrize(
    ("metric", "text", "counted"),
    [
        ("Fenced", line("fenced", shard="shardId-0", reason="…"), True),
        ("Fenced", line("fenced: another owner has the shard", reason="…"), True),
        ("Fenced", line("shard claimed", epoch=2), False),
        ("DeadLetters", line("dead letters", shard="shardId-0", letters=3, reason="…"), True),
        ("DeadLetters", line("shard claimed", epoch=2), False),
        ("PublisherSteps", line("step", leader=True, published=0), True),
        ("PublisherSteps", line("step", leader=False, published=0), False),
        ("OldestFile", line("step", leader=True, oldest_ms=61_000), True),
        ("PublisherSteps", line("will try again", reason="…"), False),
        ("AlertTurns", line("alerts judged", rules=3), True),
        ("MaintenanceRounds", line("maintained", compacted=0), True),
        ("AuditGaps", json.dumps({"pipeline": "p", "exact": False, "missing": 3}), True),
        ("AuditGaps", line("audit", exact=True, missing=0), False),
        ("AuditRuns", line("audit", exact=True, missing=0), True),
        ("AuditRuns", line("audit", exact=False, missing=1), True),
        ("AuditRuns", line("batch", shard="shardId-0"), False),
    ],
)
def test_what_is_counted(metric: str, text: str, counted: bool) -> None:
    assert matches(PATTERNS[metric], text) is counted


def test_each_pattern_counts_in_the_log_of_its_service(containers: Synthesis, serverless: Synthesis) -> None:
    """And in the log group that the service writes to."""
    for made in (containers, serverless):
        groups = {one["Properties"]["LogGroupName"] for _, one in made.of("AWS::Logs::LogGroup")}
        filters = [one["Properties"] for _, one in made.of("AWS::Logs::MetricFilter")]
        assert {one["FilterPattern"] for one in filters} == set(PATTERNS.values())
        assert {one["LogGroupName"] for one in filters} <= groups
