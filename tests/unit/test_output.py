"""What commands print for people loses nothing: at 80 columns, in a narrow terminal, and in a pipe."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from headwater.clock import ManualClock
from headwater.commands import tables
from headwater.commands.audit_report import report_tables
from headwater.commands.output import print_json, print_rows
from headwater.commands.tables import show
from headwater.processors.audit.audit import audit
from headwater.processors.scaling.autoscale import Policy
from headwater.processors.scaling.heat import HeavyKey, Sample, heat
from headwater.processors.scaling.plan import Goal, make_plan
from headwater.processors.scaling.pricing import Usage, load_prices
from headwater.processors.scaling.readings import read_topology
from headwater.processors.scaling.render import heat_picture, map_picture, outcome_picture, plan_picture
from headwater.processors.scaling.scalers import contestants
from headwater.processors.scaling.simulate import World, simulate
from headwater.processors.scaling.topology import even_layout
from headwater.processors.scaling.trace import peak_curve, read_trace
from headwater.sinks.lake.quarantine import QuarantinedFile
from tests.streams import memory_stream
from tests.unit.test_audit import batches, state

ORIGINS = [f"{n:x}" * 32 for n in range(1, 12)]
LETTER = "telemetry/dlq/2026-03-01/shardId-000000000007-49590338271490256608559692538361571095.parquet"


@pytest.fixture(params=["80 columns", "40 columns", "pipe"])
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Let all that is printed go where the parameter says; return what came out, without colours."""
    out = io.StringIO()
    columns = request.param.split()[0]
    width = int(columns) if columns.isdecimal() else None
    plain = Console(file=out, width=width, force_terminal=width is not None, color_system=None)
    monkeypatch.setattr(tables, "Console", lambda **options: Console(**options) if options else plain)
    return lambda: re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def whole(text: str, *words: str) -> None:
    """Every word is on one line somewhere, and nothing was cut."""
    assert "…" not in text
    for word in words:
        assert any(word in line for line in text.splitlines()), (word, text)


def test_rows_of_any_width(printed: Callable[[], str]) -> None:
    """Dead letters: long ids, a reason of many words, numbers."""
    reason = "field value: 'x' is not a number, and what comes after it is a long sentence that wraps"
    rows = [{"id": LETTER, "reason": reason, "sequence_number": "495903382714902566085", "events": 12_345_678}]
    print_rows(rows, as_json=False, empty="")
    whole(printed(), LETTER, "495903382714902566085", "12345678", *reason.split())


def test_the_audit_names_origins_whole(printed: Callable[[], str]) -> None:
    """So that they can be copied into a query."""
    events = [(origin, seq) for origin in ORIGINS for seq in range(3)]
    states = [state(set(events), set(events[1:]), set())]
    report_tables(audit("p", [], states, batches(events[2:])), 20)
    text = printed()
    whole(text, *ORIGINS, "accepted, not processed: 0", "processed, not in the lake: 1", "NOT exact")


def test_the_audit_counts_the_quarantined_files_that_it_does_not_name(printed: Callable[[], str]) -> None:
    """Those beyond the limit, and those that the ledger only counts."""
    held = tuple(QuarantinedFile(f"s3://b/{n}.parquet", "t", 1, 1, "no such object", 0) for n in range(5))
    report_tables(replace(audit("p", [], [], []), quarantined=held, unnamed=2_600), 2)
    whole(printed(), "s3://b/0.parquet", "s3://b/1.parquet", "quarantined: 2,603 more files")


def test_the_shard_map_and_the_heat(printed: Callable[[], str]) -> None:
    """Shards with parents and children, consumers with lag, keys, alternatives with notes."""
    clock = ManualClock()
    kinesis = memory_stream(4, clock)
    kinesis.split_shard(StreamName="s", ShardToSplit="shardId-000000000001", NewStartingHashKey=str(3 * 2**125))
    topology = read_topology(kinesis, "s")
    lag = {shard.shard_id: {"telemetry-of-the-plant": 210_000, "other": 4_000} for shard in topology.shards}
    show(map_picture(topology, lag, {}))
    heavy = (HeavyKey("pump-0000000000000000003", 12_000, 0.4),)
    samples = [
        Sample(shard.shard_id, 0, 60, 912_345.0, 812.5, 123_456.0, throttles_s=12.5, lag_ms=lags, heavy=heavy)
        for shard, lags in ((shard, lag[shard.shard_id]) for shard in topology.open)
    ]
    show(heat_picture(heat(topology, samples, 1), "s"))
    text = printed()
    whole(text, "telemetry-of-the-plant", "other", "pump-0000000000000000003", "0.912", "812.5", "123,456", "12.5")
    whole(text, *(str(int(shard.shard_id.removeprefix("shardId-"))) for shard in topology.shards))


def test_a_plan_and_a_simulation(printed: Callable[[], str], tmp_path: Path) -> None:
    """Alternatives with notes in words, scalers with their shards over time."""
    csv = tmp_path / "day.csv"
    rows = [f"{60 * i},{(1 + i % 9) * 1e6},{(1 + i % 9) * 10},1" for i in range(90)]
    csv.write_text("\n".join(["at,bytes_s,records_s,events_s", *rows]))
    trace, prices = read_trace(csv), load_prices(None)
    plan = make_plan("s", even_layout(4), peak_curve(trace), Usage(1e6, 10.0, 1, 0), Goal(), prices)
    show(plan_picture(plan))
    scalers = contestants(trace, Policy(), prices)
    outcomes = [simulate(trace, even_layout(count), one, World(), prices) for one, count in scalers]
    show(outcome_picture(outcomes))
    words = [word for other in plan.alternatives for word in f"{other.name} {other.note}".split()]
    whole(printed(), *words, *(f"{other.month:,.2f}" for other in plan.alternatives))
    whole(printed(), *(word for one in outcomes for word in one.to_json()["name"].split()))


def test_texts_of_a_group_are_lines_in_a_pipe() -> None:
    """A table in between changes nothing of them; a pipe gets each text as one line."""
    out = io.StringIO()
    table = Table("a", "b", title="t", box=None)
    table.add_row("x" * 200, Text("y" * 200))
    show(Group(Text("z" * 300), table), console=Console(file=out))
    assert [len(line.rstrip()) > 299 for line in out.getvalue().splitlines()].count(True) == 2


def test_no_command_prints_through_a_console_of_its_own() -> None:
    """Such a one cuts at 80 columns in a pipe. Progress on stderr and the demo's moving picture may."""
    found = {
        file.name
        for file in Path("commands").rglob("*.py")
        if re.search(r"Console\(", file.read_text()) and file.name not in ("tables.py", "output.py", "run.py")
    }
    assert not found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("12345678901234567890.12", "12345678901234567890.12"),
        ("1.50", "1.50"),
        ("0.00", "0.00"),
        ("1E-7", "0.0000001"),
        ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
    ],
)
def test_no_decimal_is_rounded(value: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON and in a table; whole ones are numbers in JSON, the others texts."""
    print_json({"x": Decimal(value)})
    found = json.loads(capsys.readouterr().out)["x"]
    assert (type(found), str(found)) == (str if "." in text else int, text)
    print_rows([{"x": Decimal(value)}], as_json=False, empty="")
    assert text in capsys.readouterr().out
