"""Days, weeks and months of time zones: against zoneinfo moment by moment, late, kept, counted again, refused."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import Pipeline, above, calendar, count, mean, tumbling
from headwater.arrays import times
from headwater.errors import UsageError
from headwater.processors.audit.places import places_of
from headwater.processors.definition.calendars import Unit
from headwater.processors.definition.parts import View
from headwater.processors.operators.aggregate import ViewState
from headwater.processors.operators.windowing import ends, newest
from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.testing import run_pipeline

HOUR, MINUTE = 3_600_000, 60_000
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Asia/Kathmandu",  # UTC+05:45
    "America/St_Johns",  # until 2011 clocks changed at 00:01
    "Asia/Beirut",  # clocks go from 00:00 to 01:00
    "America/Sao_Paulo",  # once, too
    "Pacific/Apia",  # had no 30 December 2011
    "America/Havana",
    "UTC",
)
UNITS: tuple[Unit, ...] = ("day", "week", "month")


def ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def local(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def first_of(day: datetime, unit: Unit) -> datetime:
    """Return the midnight at which the day, week or month of a local time begins."""
    midnight = day.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1) if unit == "month" else midnight


def begins(at_ms: int, unit: Unit, zone: str) -> int:
    """Return the start of the window: the first minute whose local time is not before the last midnight reached."""
    reached = max(first_of(local(at_ms - MINUTE * back, zone), unit) for back in range(180))
    about = ms(reached.replace(tzinfo=UTC))
    return next(one for one in range(about - 27 * HOUR, about + 27 * HOUR, MINUTE) if local(one, zone) >= reached)


MOMENTS = st.integers(ms(datetime(2005, 1, 1, tzinfo=UTC)), ms(datetime(2035, 1, 1, tzinfo=UTC)))
NEAR_CHANGES = st.tuples(
    st.sampled_from(
        [
            datetime(2026, 3, 29, 1, tzinfo=UTC),
            datetime(2026, 10, 25, 1, tzinfo=UTC),
            datetime(2010, 11, 7, 2, 31, tzinfo=UTC),  # St. John's: 00:01 to 23:01
            datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe
            datetime(2026, 3, 28, 22, tzinfo=UTC),  # Beirut
            datetime(2018, 11, 4, 3, tzinfo=UTC),  # São Paulo: no midnight
            datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia
        ]
    ),
    st.integers(-26 * HOUR, 26 * HOUR),
).map(lambda one: ms(one[0]) + one[1])


class TestWindows:
    @settings(max_examples=120)
    @given(at=MOMENTS | NEAR_CHANGES, unit=st.sampled_from(UNITS), zone=st.sampled_from(ZONES))
    def test_a_window_begins_where_local_time_says(self, at: int, unit: Unit, zone: str) -> None:
        window = calendar(unit, zone=zone)
        start = int(newest(window, np.array([at]))[0])
        assert start == begins(at, unit, zone)
        assert start <= at < window.end(start)
        assert newest(window, np.array([window.end(start)]))[0] == window.end(start)
        assert newest(window, np.array([window.end(start) - 1]))[0] == start

    @pytest.mark.parametrize(
        ("zone", "day", "hours"),
        [
            ("Europe/Berlin", "2026-03-29T12:00:00+02:00", 23),
            ("Europe/Berlin", "2026-10-25T12:00:00+01:00", 25),
            ("Europe/Berlin", "2026-07-01T12:00:00+02:00", 24),
            ("Australia/Lord_Howe", "2026-04-05T12:00:00+10:30", 24.5),
            ("Australia/Lord_Howe", "2026-10-04T12:00:00+11:00", 23.5),
            ("America/Sao_Paulo", "2018-11-04T12:00:00-02:00", 23),
            ("Asia/Beirut", "2026-03-29T12:00:00+03:00", 23),
            ("Pacific/Apia", "2011-12-31T12:00:00+14:00", 24),
        ],
    )
    def test_days_are_as_long_as_they_are(self, zone: str, day: str, hours: float) -> None:
        window = calendar("day", zone=zone)
        start = int(newest(window, np.array([ms(datetime.fromisoformat(day))]))[0])
        assert (window.end(start) - start) / HOUR == hours

    @pytest.mark.parametrize("unit", UNITS)
    @pytest.mark.parametrize("zone", ZONES)
    @pytest.mark.parametrize("at", [-62_135_596_800_000, 253_402_300_799_999, 0])
    def test_the_ends_of_the_calendar_are_windows_too(self, unit: Unit, zone: str, at: int) -> None:
        window = calendar(unit, zone=zone)
        start = newest(window, np.array([at]))
        assert start[0] <= at < ends(window, start)[0]

    @pytest.mark.parametrize(
        ("unit", "zone", "why"),
        [
            ("year", "UTC", "'day' or 'week' or 'month', not the text 'year'"),
            ("day", "Europe/Berlim", "no time zone 'Europe/Berlim': did you mean 'Europe/Berlin'"),
            ("day", "Europe", "no time zone"),
            ("day", "../../etc/passwd", "no time zone"),
            ("day", "", "no time zone"),
            ("day", "a\x00b", "no time zone"),
        ],
    )
    def test_what_there_is_not_is_refused(self, unit: Unit, zone: str, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            calendar(unit, zone=zone)


def plant(unit: Unit = "day", zone: str = "Europe/Berlin", **options: Any) -> Pipeline:
    window = calendar(unit, zone=zone)
    made = Pipeline("plant", contract="telemetry", allowed_lateness="1h")
    return made.view("v", by=["device"], window=window, n=count(), mean=mean("value"), **options).lake("plant")


def event(ts: Any, device: str = "a", value: float = 1.0) -> dict[str, Any]:
    return {"device": device, "metric": "x", "ts": ts, "value": value}


class TestViews:
    @settings(max_examples=20)
    @given(
        moments=st.lists(MOMENTS | NEAR_CHANGES, min_size=1, max_size=20),
        unit=st.sampled_from(UNITS),
        zone=st.sampled_from(ZONES),
    )
    def test_rows_late_ones_included_are_those_of_a_batch_and_of_the_audit(
        self, moments: list[int], unit: Unit, zone: str
    ) -> None:
        pipeline = plant(unit, zone)
        events = [event(at, "ab"[number % 2], float(number)) for number, at in enumerate(moments)]
        run = run_pipeline(pipeline, events)
        view, lake = pipeline.views[0], run.lake.select(pipeline.schema.names)
        assert differences(view, batch_view(pipeline, view, enriched(pipeline, lake, {})), run.views["v"]) == []
        places = places_of(view, lake, times(lake, "ts"))
        of_audit = {places.place(number) for number in range(len(places.at))}
        assert of_audit == {(row["device"], ms(datetime.fromisoformat(row["window_start"]))) for row in run.views["v"]}
        for row in run.views["v"]:
            start, end = (ms(datetime.fromisoformat(row[name])) for name in ("window_start", "window_end"))
            assert row["n"] == sum(start <= one["ts"] < end and one["device"] == row["device"] for one in events)

    def test_a_window_is_open_until_its_own_end_and_late_after_it(self) -> None:
        """The day of 25 hours is open in its 25th."""
        view = plant().views[0]
        start = ms(datetime.fromisoformat("2026-10-25T00:00:00+02:00"))
        state = ViewState(view, lateness_ms=0)

        def fold(at: int, watermark: int) -> int:
            table = pa.table({"device": ["a"], "value": [1.0], "ts": [at]})
            return state.fold(table, np.array([at]), np.array([watermark]), np.array([b"1"], "S56"), np.array([0]))

        assert fold(start, start + 24 * HOUR + HOUR // 2) == 0
        state.clean()
        assert state.evict(start + 25 * HOUR - 1) == 0
        assert [one.window_end_ms for one in state.dirty()] == []
        assert fold(start + HOUR, start + 25 * HOUR) == 1
        assert {one.window_end_ms for one in state.dirty()} == {start + 25 * HOUR}
        assert state.evict(start + 25 * HOUR) == 1

    def test_a_snapshot_knows_its_calendar(self) -> None:
        berlin, paris = (ViewState(plant(zone=zone).views[0], 0) for zone in ("Europe/Berlin", "Europe/Paris"))
        slots, aggregates = berlin.to_tables()
        with pytest.raises(UsageError, match=r"changed in place.*Europe/Berlin.*Europe/Paris"):
            paris.load_tables(slots, aggregates)

    def test_rows_are_kept_from_the_end_of_their_day_on(self) -> None:
        view: View = plant(keep="30d").views[0]
        assert view.window is not None
        start = ms(datetime.fromisoformat("2026-03-29T00:00:00+01:00"))
        assert view.spec.expires(view.window.end(start)) == (start + 23 * HOUR) // 1000 + 30 * 86_400

    def test_no_table_in_the_lake_follows_a_calendar(self) -> None:
        with pytest.raises(UsageError, match="calendar windows: table='days' takes tumbling or hopping"):
            plant(table="days")

    def test_no_alert_judges_a_calendar(self) -> None:
        with pytest.raises(UsageError, match="calendar windows, which no alert judges"):
            plant().alert("hot", on="v", when=above("mean", 3))
        assert (
            plant()
            .view("w", by=[], window=tumbling("1m"), top=mean("value"))
            .alert("hot", on="w", when=above("top", 3))
        )
