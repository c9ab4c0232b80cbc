"""Alarms, their pages, and what they count in the logs."""

import json
import logging
import re
from io import StringIO
from pathlib import Path

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
        name, operator, value = re.fullmatch(r"\$\.(\w+) (=|IS) (.+)", term.strip()).groups()  # type: ignore[union-attr]
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


def test_alarms_that_listen_for_silence(containers: Synthesis) -> None:
    """No data is an alarm where a service that has died would send none."""
    found = [one["Properties"] for _, one in containers.of("AWS::CloudWatch::Alarm", "watch")]
    alarms = {one["AlarmName"]: one for one in found}
    silent = {name for name, alarm in alarms.items() if alarm.get("TreatMissingData") == "breaching"}
    assert silent == {"headwater-prod-publisher-age", "headwater-prod-audit-silent"}


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
