"""What the console shows."""

from dataclasses import replace
from typing import Any

from headwater.ledger import PendingFile, ShardEntry
from headwater.processors.audit.report import AuditReport, ForeignAudit, OriginAudit
from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.readings import heat_document, read_samples
from headwater.processors.scaling.topology import Topology
from headwater.serving.console.alerts import alert_cells, alerts_summary
from headwater.serving.console.audit import audit_badge, audit_rows
from headwater.serving.console.charts import heat_text, rate_options, shard_options, view_options
from headwater.serving.console.flow import hop_texts
from headwater.serving.console.formatting import age, figure, letter_text, ranges, short
from headwater.serving.console.letter_reader import Letters
from headwater.serving.console.letters import letters_summary
from headwater.serving.console.overview import (
    Hop,
    Observations,
    TableFigures,
    Totals,
    hops,
    rates,
    shard_rows,
    sum_totals,
    waiting_since,
)
from headwater.serving.console.shards import shard_cells
from headwater.serving.console.theme import COLD, HOT, UNKNOWN, WARM
from headwater.serving.console.views import cell_text
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.shards import Shard

HALF = 1 << 127
TOPOLOGY = Topology(
    "s",
    (
        Shard("shardId-000000000000", 0, 2 * HALF - 1, closed=True),
        Shard("shardId-000000000001", 0, HALF - 1, parents=("shardId-000000000000",)),
        Shard("shardId-000000000002", HALF, 2 * HALF - 1, parents=("shardId-000000000000",)),
    ),
)


def entry(shard_id: str, events: int, **more: Any) -> ShardEntry:
    return ShardEntry("p", shard_id, 1, "owner", counts={"events": events, "lake": events - 1}, **more)


def test_rates_are_per_second_over_the_last_minute() -> None:
    history = [Totals(at * 1000, events=at * 10, lake=at * 5) for at in range(0, 301, 2)]
    assert rates(history) == {"events": 10.0, "duplicates": 0.0, "dead": 0.0, "lake": 5.0, "published": 0.0}
    assert set(rates(history[:1]).values()) == {0.0}
    seen = [Totals(0), Totals(2_000, published=1_000_000), Totals(4_000, published=1_000_008)]
    assert [rates(seen[:2])["published"], rates(seen)["published"]] == [0.0, 4.0]
    restarted = [*history, Totals(302_000)]
    assert rates(restarted)["events"] == 0.0


FILE = PendingFile("t", "s3://b/k", 5, 100)
ENTRIES = [
    entry("shardId-000000000000", 100, closed=True, updated_ms=1_000),
    entry("shardId-000000000001", 11, updated_ms=50_000, pending=(FILE,)),
    entry("shardId-000000000002", 21, updated_ms=58_000),
]
SAMPLE = Sample("shardId-000000000001", 60_000, 60, 500_000, 10, 300, lag_ms={"p": 1_500})
FOUND = Observations(
    at_ms=60_000,
    entries=ENTRIES,
    topology=TOPOLOGY,
    samples={SAMPLE.shard_id: SAMPLE},
    table=TableFigures(rows=128, files=3, snapshot_ms=55_000),
    since={FILE.uri: 48_000},
    letters=0,
    views=2,
)


def hops_of(found: Observations) -> dict[str, Hop]:
    return {hop.name: hop for hop in hops(found, [sum_totals(found.entries, found.table.rows, found.at_ms)])}


def test_hops_and_shards() -> None:
    """Totals over all shards, lags of the slowest, the hash space in its order."""
    found = hops_of(FOUND)
    stream = found["stream"]
    assert (stream.total, stream.per_second, stream.lag_ms, stream.note) == (None, 300, 1_500, "2 open shards")
    assert (found["processor"].total, found["views"].lag_ms) == (132, 1_500)
    assert found["views"].note == "2 views, nothing final: a shard had no events"
    final = hops_of(replace(FOUND, watermark_ms=60_000))
    assert final["views"].note == "2 views, final up to 1970-01-01 00:01:00"
    assert (found["lake files"].lag_ms, found["lake files"].note) == (12_000, "1 files wait")
    assert (found["table"].total, found["table"].lag_ms) == (128, None)
    rows = shard_rows(FOUND)
    assert [(row.shard_id[-1], row.open, row.width, row.hottest) for row in rows] == [
        ("1", True, 0.5, 0.5),
        ("0", False, 1.0, None),
        ("2", True, 0.5, None),
    ]
    shown = shard_options(rows)["series"]
    assert [one["data"] for one in shown] == [[0.5], [0.5]]
    assert [one["label"]["formatter"] for one in shown] == ["1\n50%", "2\n–"]


def test_where_nothing_waits_nothing_is_behind() -> None:
    """However long ago the last commit was."""
    calm = replace(SAMPLE, lag_ms={"p": 0})
    found = hops_of(replace(FOUND, at_ms=900_000, since={}, samples={calm.shard_id: calm}))
    assert [hop_texts(found[name])[1] for name in ("stream", "lake files", "views")] == ["up to date"] * 3
    assert {hop_texts(found[name])[1] for name in ("processor", "table", "dead letters")} == {""}


def test_dead_letters_are_amiss_while_they_wait() -> None:
    assert not hops_of(FOUND)["dead letters"].needs_attention
    some = hops_of(replace(FOUND, letters=3))["dead letters"]
    assert (some.needs_attention, some.note) == (True, "3 wait")


def test_a_file_waits_since_it_was_seen_first() -> None:
    """Other commits of its shard make it no younger; what is not pending any more is forgotten."""
    first = waiting_since({}, ENTRIES, 60_000)
    assert first == {FILE.uri: 50_000}
    later = [replace(ENTRIES[1], updated_ms=70_000, pending=(FILE, replace(FILE, uri="s3://b/l")))]
    assert waiting_since(first, later, 71_000) == {FILE.uri: 50_000, "s3://b/l": 70_000}
    assert waiting_since(first, [ENTRIES[2]], 71_000) == {}


class Documents(dict[str, tuple[dict[str, Any], int]]):
    def document(self, name: str) -> tuple[dict[str, Any], int]:
        return self.get(name, ({}, 0))

    def put_document(self, name: str, doc: Any, expected_rev: int) -> int:
        raise NotImplementedError


def test_shards_that_are_closed_and_still_read_are_behind() -> None:
    """After a split the parent's records are read first, which may take long; who is far behind is not idle."""
    parent = Sample("shardId-000000000000", 1_000, 60, 1e6, 10, 900, lag_ms={"p": 3_599_000})
    documents = Documents({heat_document(parent.shard_id): ({"sample": parent.to_json()}, 1)})
    assert read_samples(documents, TOPOLOGY, 3_600_000) == {}
    samples = read_samples(documents, TOPOLOGY, 3_600_000, {parent.shard_id})
    assert samples == {parent.shard_id: parent}
    found = replace(FOUND, samples={**samples, **FOUND.samples})
    stream = hops_of(found)["stream"]
    assert (stream.lag_ms, stream.note) == (3_599_000, "2 open shards, 1 closed and still read")
    assert stream.per_second == 300  # nothing arrives at a closed one
    (row,) = (row for row in shard_rows(found) if not row.open)
    assert (row.lag_ms, row.events_s) == (3_599_000, 900)
    (gone,) = read_samples(documents, TOPOLOGY, 4_300_000, {parent.shard_id}).values()
    assert gone.lag_ms == {}


def test_words() -> None:
    assert [age(ms) for ms in (None, 40, 1_500, 90_000, 7_200_000)] == ["–", "40 ms", "2 s", "90 s", "2 h"]
    assert ranges([(3, 4), (7, 12)]) == "3, 7–11"
    assert ranges([(n, n + 1) for n in range(0, 14, 2)]) == "0, 2, 4, 6, 8 and 2 more"
    assert [short("shardId-000000000012"), short("4" * 20), short("vm-1")] == ["12", "444444…44444", "vm-1"]
    assert [heat_text(None), heat_text(0.714)] == ["–", "71%"]


def test_figures_are_rounded_and_have_no_exponent() -> None:
    values = (329.03060327606875, 123456789.123, 4, 1e6, 0.5, 0.00012345, -12.5)
    assert [figure(value) for value in values] == [
        "329.03",
        "123,456,789",
        "4",
        "1,000,000",
        "0.5000",
        "0.0001234",
        "-12.500",
    ]
    assert [cell_text(value) for value in (329.03060327606875, None, "k", True, [1])] == [
        "329.03",
        "",
        "k",
        "true",
        "[1]",
    ]


def test_a_cut_payload_says_so() -> None:
    letter = DeadLetter("s", "1", None, "r", None, None, b"x" * 200, "c", 0)
    assert letter_text(letter) == "x" * 160 + " … (200 B in all)"
    assert letter_text(letter, 1_000) == "x" * 200


def test_letters_beyond_those_shown_are_counted() -> None:
    one = DeadLetter("s", "1", None, "r", None, None, b"", "c", 0)
    assert letters_summary(Letters((one,) * 200, 300), None) == "300 wait, the first 200 are shown"
    assert letters_summary(Letters((one,) * 200, 1_000, more=True), None).startswith("1,000 or more wait")
    assert letters_summary(None, (3, 300)) == "sending: 3 of 300 …"


def alert(number: int) -> dict[str, object]:
    state = "firing" if number < 2 else "cleared"
    more = {"key": str(number), "since": "", "cleared": None, "value": 123456789.123, "condition": "", "summary": ""}
    return {"alert": "a", "state": state, "unpublished": 0, **more}


def test_alerts_beyond_those_shown_are_counted() -> None:
    assert alerts_summary([alert(number) for number in range(300)]) == "2 firing; the first 200 of 300 are shown"
    assert alert_cells(alert(0))[4] == "123,456,789"


EXACT = OriginAudit("b" * 32, None, 9, 1, 6, 2, (), (), (), (), 0)
GAPS = replace(EXACT, origin="a" * 32, accepted=10, waiting=0, not_processed=((3, 4),), not_in_lake=((7, 9),))


def report(*origins: OriginAudit) -> AuditReport:
    return AuditReport(
        "p", origins, ForeignAudit(processed=5, excluded=0, in_lake=4, waiting=0, duplicates=0), {}, 0, 0
    )


def test_the_audits_lines_add_up() -> None:
    """Gaps come second, the origin's whole name and all of its gaps with the cell; foreign events have a line."""
    found = report(EXACT, GAPS)
    lines = list(audit_rows(found))
    assert lines[0] == ("others, without an identity", "1", "–", "5", "0", "0", "4", "0")
    assert lines[1][:2] == (("aaaaaa…aaaaa", "a" * 32, "#audit/" + "a" * 32), ("3: 3, 7–8", "3: 3, 7–8"))
    assert lines[2][1:3] == (("0", ""), "–")
    assert sum(int(str(line[3])) for line in lines) == found.processed
    assert sum(int(str(line[6])) for line in lines) == found.in_lake
    many = report(*(replace(GAPS, origin=f"{number:032x}") for number in range(600)))
    lines = list(audit_rows(many))
    assert lines[-1][0] == "100 further origins"
    assert sum(int(str(line[3])) for line in lines) == many.processed


def test_an_old_audit_is_no_green_badge() -> None:
    good = replace(report(), foreign=replace(report().foreign, in_lake=5))
    assert audit_badge(None, None) == ("not audited yet", "grey-8")
    assert audit_badge(good, 119_000) == ("exact", "positive")
    assert audit_badge(good, 121_000) == ("exact 2 min ago", "grey-8")
    assert audit_badge(report(), 1_000) == ("1 missing", "negative")


def test_charts_are_in_utc_and_send_few_digits() -> None:
    rates = rate_options([(1, {"events": 1.23456, "lake": 1, "published": 0}), (2, {})])
    assert rates["useUTC"]
    assert rates["xAxis"]["name"] == "UTC"
    assert rates["series"][0]["data"] == [[1, 1.2], [2, None]]
    styles = [one["lineStyle"] for one in rates["series"]]
    assert len({(style["width"], style.get("type")) for style in styles}) == 3
    shown = view_options([{"k": "a", "window_start": "t", "v": 329.03060327606875}], ["k"], "v")
    assert shown["series"][0]["data"] == [("t", 329.03)]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_white_text_can_be_read_on_every_colour_of_heat() -> None:
    assert all(1.05 / (luminance(colour) + 0.05) >= 4.5 for colour in (COLD, WARM, HOT, UNKNOWN))


def test_a_shards_line_is_short_and_has_the_whole_with_it() -> None:
    heavy = tuple((f"a-rather-long-key-{number}", 0.1) for number in range(3))
    (row, *_) = shard_rows(FOUND)
    cells = shard_cells(replace(row, heavy=heavy, position="4" * 56))
    assert cells[-1] == ("444444…44444", "4" * 56)
    assert isinstance(cells[6], tuple)
    assert len(cells[6][0]) == 31
    assert cells[6][1].endswith("a-rather-long-key-2 10%")
