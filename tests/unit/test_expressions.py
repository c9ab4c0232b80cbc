"""Expressions in SQL: the same answers as DuckDB's, total over whatever rows hold, and errors that name their place."""

from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import Pipeline
from headwater.arrays import whole
from headwater.errors import UsageError
from headwater.expressions.compiling import Expression, condition, projections
from headwater.testing import run_pipeline

SCHEMA = pa.schema(
    {
        "n": pa.int64(),
        "i": pa.int32(),
        "v": pa.float64(),
        "f": pa.float32(),
        "s": pa.string(),
        "r": pa.string(),
        "b": pa.bool_(),
        "c": pa.bool_(),
        "ts": pa.timestamp("ms", "UTC"),
        "d": pa.date32(),
    }
)
LONGS = st.one_of(st.integers(-5, 5), st.sampled_from([2**62, -(2**62), 2**63 - 1, -(2**63), 2**53 + 1]))
DOUBLES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.5, 2.5, -2.5, 1e308, -1e308, 5e-324, 0.49999999999999994]),
    st.floats(allow_nan=False, allow_infinity=False),
)
SIGNS = ("=", "<>", "<", "<=", ">", ">=", "!=")
PARTS = ("year", "month", "day", "hour", "minute", "second", "isodow")
TEXTS = st.text(st.sampled_from("abAB%_\\ 'Äßé"), max_size=4)
TIMES = st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)).map(
    lambda one: one.replace(microsecond=one.microsecond // 1000 * 1000, tzinfo=UTC)
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | LONGS,
            "i": st.none() | st.integers(-100, 100),  # DuckDB counts these in 32 bits
            "v": st.none() | DOUBLES,
            "f": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            "s": st.none() | TEXTS,
            "r": st.none() | TEXTS,
            "b": st.none() | st.booleans(),
            "c": st.none() | st.booleans(),
            "ts": st.none() | TIMES,
            "d": st.none() | st.dates(date(1960, 1, 1), date(2100, 1, 1)),
        }
    ),
    min_size=1,
    max_size=12,
)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


Pair = tuple[str, str]
"""An expression, and what says the same to DuckDB: there, what has no answer is an error or infinite."""


def made(kind: str, depth: int) -> st.SearchStrategy[Pair]:
    """Return expressions of a kind, with their terms in brackets where their order is not to be read from the text."""
    leaf = {
        "long": st.sampled_from(["n", "i"]) | st.integers(0, 9).map(str),
        "double": st.sampled_from(["v", "f", "1.5e0", "2e0", "0e0"]),
        "string": st.sampled_from(["s", "r"]) | TEXTS.map(quoted),
        "boolean": st.sampled_from(["b", "c", "true", "false", "null"]),
        "time": st.sampled_from(["ts", "timestamp '2026-03-01 12:00:00'"]),
    }[kind].map(lambda text: (text, text.replace("timestamp '", "timestamptz '")))
    return leaf if depth == 0 else st.one_of(leaf, *_forms(kind, depth))


def _forms(kind: str, depth: int) -> list[st.SearchStrategy[Pair]]:
    of = {one: made(one, depth - 1) for one in ("long", "double", "string", "boolean", "time")}

    def form(text: str, *kinds: str, theirs: str = "") -> st.SearchStrategy[Pair]:
        return st.tuples(*(of[one] for one in kinds)).map(
            lambda parts: (text.format(*(a for a, _ in parts)), (theirs or text).format(*(b for _, b in parts)))
        )

    def tried(text: str, *kinds: str) -> st.SearchStrategy[Pair]:
        return form(text, *kinds, theirs=f"try({text})")

    def finite(text: str, *kinds: str) -> st.SearchStrategy[Pair]:
        return form(text, *kinds, theirs=f"finite({text})")

    number = st.sampled_from(["long", "double"])
    compared = st.tuples(st.sampled_from(["long", "double", "string", "time"]), st.sampled_from(SIGNS))
    looking = ("({0}) like {1}", "contains({0}, {1})", "starts_with({0}, {1})", "ends_with({0}, {1})")
    return {
        "long": [
            *(tried(f"({{}}) {sign} ({{}})", "long", "long") for sign in "+-*%"),
            *(tried(text, "long") for text in ("-({})", "abs({})", "cast({} as int)")),
            *(form(text, "long") for text in ("round({})", "({})")),
            form("length({})", "string"),
            form("cast({} as bigint)", "boolean"),
            tried("cast({} as bigint)", "double"),
            *(form(f"{part}({{}})", "time") for part in PARTS),
            form("case when {} then {} else {} end", "boolean", "long", "long"),
            form("coalesce({}, {})", "long", "long"),
            form("nullif({}, {})", "long", "long"),
            form("greatest({}, {}, {})", "long", "long", "long"),
        ],
        "double": [
            *(finite(f"({{}}) {sign} ({{}})", "double", "double") for sign in "+-*/%"),
            finite("({}) / ({})", "long", "long"),
            finite("({}) * ({})", "long", "double"),
            *(form(f"{name}({{}})", "double") for name in ("abs", "round", "floor", "ceil", "-")),
            form("sqrt(abs({}))", "double"),
            form("cast({} as double)", "long"),
            form("case when {} then {} when {} then {} end", "boolean", "double", "boolean", "long"),
            form("least({}, {})", "double", "double"),
        ],
        "string": [
            form("({}) || ({})", "string", "string"),
            *(form(f"{name}({{}})", "string") for name in ("lower", "upper", "trim")),
            form("substr({}, 2, 2)", "string"),
            form("cast({} as varchar)", "long"),
            form("cast({} as varchar)", "boolean"),
            form("case {} when {} then {} else {} end", "long", "long", "string", "string"),
        ],
        "boolean": [
            *(form(f"({{}}) {sign} ({{}})", "boolean", "boolean") for sign in ("and", "or", "=", "<>")),
            *(form(f"b {sign} c {other} not ({{}})", "boolean") for sign, other in (("or", "and"), ("and", "or"))),
            form("i + 1 * 2 > i - 3 - 1 and not s = r or b"),
            form("not i > 3 is null or - i % 3 < 2"),
            form("s || r > 'b' and i not in (1, 2) or i * 2 between 1 and 3 and b"),
            compared.flatmap(lambda one: form(f"({{}}) {one[1]} ({{}})", one[0], one[0])),
            form("({}) < ({})", "long", "double"),
            number.flatmap(lambda one: form("({}) between ({}) and ({})", one, one, one)),
            form("({}) not between 1 and 3", "long"),
            form("({}) in (1, 2, 3, -4)", "long"),
            form("({}) not in ('a', 'B', '')", "string"),
            st.tuples(of["string"], st.sampled_from(looking), TEXTS).map(
                lambda one: (one[1].format(one[0][0], quoted(one[2])), one[1].format(one[0][1], quoted(one[2])))
            ),
            form("({}) is not null", "double"),
            form("({}) is null", "string"),
            form("({}) is distinct from ({})", "long", "long"),
            form("({}) is not distinct from ({})", "string", "string"),
            form("ts >= d"),
        ],
        "time": [form("coalesce({}, {})", "time", "time")],
    }[kind]


KINDS = st.sampled_from(["long", "double", "string", "boolean", "time"])


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    connection.execute("create macro finite(x) as case when isfinite(x) then x end")
    return connection


class TestAgainstDuckDB:
    @settings(max_examples=100)
    @given(rows=ROWS, data=st.data())
    def test_answers_are_duckdbs(
        self, database: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]], data: st.DataObject
    ) -> None:
        text, theirs = data.draw(KINDS.flatmap(lambda kind: made(kind, 2)))
        events = pa.Table.from_pylist(rows, SCHEMA)
        if text == "null":  # which alone has no type
            return
        expression = projections(f"{text} as x", SCHEMA)["x"]
        found = database.sql(f"select {theirs} as x from events").to_arrow_table()["x"]
        assert expression.evaluate(events).to_pylist() == found.cast(expression.evaluate(events).type).to_pylist()

    @settings(max_examples=40)
    @given(rows=ROWS, data=st.data(), cut=st.integers(0, 12))
    def test_a_row_has_its_answer_however_rows_are_cut(
        self, rows: list[dict[str, Any]], data: st.DataObject, cut: int
    ) -> None:
        text, _ = data.draw(made("boolean", 2))
        table = pa.Table.from_pylist(rows, SCHEMA)
        expression = condition(text, SCHEMA)
        whole = expression.evaluate(table).to_pylist()
        parts = [table.slice(0, cut), table.slice(cut)]
        assert [one for part in parts for one in expression.evaluate(part).to_pylist()] == whole


def answers(text: str, **columns: Any) -> list[Any]:
    table = pa.table(columns)
    found: list[Any] = projections(f"{text} as x", table.schema)["x"].evaluate(table).to_pylist()
    return found


class TestRules:
    """What is said in docs/programming.md, where DuckDB says otherwise or nothing."""

    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            ("null = null", None),
            ("null < null", None),
            ("null between null and null", None),
            ("null is distinct from null", False),
            ("nullif(null, null) = 1", None),
            ("greatest(null, null) = 1", None),
            ("coalesce(null, null) is null", True),
            ("case when null then null else null end is null", True),
            ("null in (1)", None),
        ],
    )
    def test_nulls_alone_are_compared_as_any(self, text: str, answer: bool | None) -> None:
        assert answers(text, n=[1, None]) == [answer, answer]
        assert answers(text, n=pa.array([], pa.int64())) == []

    @pytest.mark.parametrize(
        ("text", "right"),
        [
            ("v > 1", [None, True, False, None]),  # NaN is null, infinities compare
            ("v + 1", [None, None, None, None]),
            ("v is null", [True, False, False, True]),
            ("1 / 0", [None] * 4),
            ("5 % 0", [None] * 4),
            ("9223372036854775807 + 1", [None] * 4),
            ("-9223372036854775807 - 2", [None] * 4),
            ("1e308 * 10", [None] * 4),
            ("cast(v as long)", [None, None, None, None]),
            ("v in (1.5, 2)", [None, False, False, None]),
        ],
    )
    def test_what_is_no_number_is_null(self, text: str, right: list[Any]) -> None:
        assert answers(text, v=[float("nan"), float("inf"), float("-inf"), None]) == right

    def test_one_overflow_takes_no_other_rows_answer(self) -> None:
        n = [1, 2**62, None, -3]
        assert answers("n * 4", n=n) == [4, None, None, -12]
        assert answers("n * n + 1", n=n) == [2, None, None, 10]
        assert answers("abs(n) - 1", n=[-(2**63), 5]) == [None, 4]
        assert answers("n % -1", n=[-(2**63), 5]) == [0, 0]

    def test_halves_are_rounded_away_from_zero_and_nothing_else_is(self) -> None:
        below = 0.49999999999999994
        given = [below, 0.5, 1.5, 2.5, -below, -0.5, -1.5, -2.5, None]
        assert answers("round(v)", v=given) == [0, 1, 2, 3, 0, -1, -2, -3, None]

    def test_text_that_is_no_number_is_null(self) -> None:
        texts = ["12", "+7", "-0", " 1", "1e3", "9223372036854775808", "1.5", "0x1", "nan", "inf", "", None, "1e999"]
        longs = [12, 7, 0, *[None] * 10]
        assert answers("cast(s as long)", s=texts) == longs
        doubles = [12.0, 7.0, 0.0, None, 1000.0, 9223372036854775808.0, 1.5, *[None] * 6]
        assert answers("cast(s as double)", s=texts) == doubles

    def test_decimals_are_read_as_the_nearest_double(self) -> None:
        prices = pa.array([Decimal("12.30"), Decimal("1e22") / 3], pa.decimal128(38, 10))
        assert answers("p", p=prices) == [12.3, float(Decimal("3333333333333333333333.3333333333"))]

    def test_what_is_more_than_an_array_holds_is_computed_in_parts(self) -> None:
        def run(table: pa.Table) -> pa.Array:
            if pc.sum(table["n"]).as_py() > 5:
                raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")
            return whole(table["n"])

        found = Expression("n", "long", ("n",), run).evaluate(pa.table({"n": [1, 2, 3, 9, 4, 1]}))
        assert found.to_pylist() == [1, 2, 3, None, 4, 1]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("valu > 30", "at character 1, .*no column valu; did you mean value"),
            ("value > 30 and metrik = 'x'", "at character 16, .*no column metrik; did you mean metric"),
            ("value >", "at its end: a value was expected"),
            ("value > 30 metric", "at character 12, 'metric'"),
            ("metric > 30", "at character 10, '30': a string and a long"),
            ("value", "a condition is true or false, and this is double"),
            ("sum(value) > 3", "at character 1, .*no function sum"),
            ("uper(metric) = 'X'", "no function uper.*did you mean upper"),
            ("(select 1) = 1", r"at character 9, '1\) = 1'"),
            ("read_text('/etc/passwd') = ''", "no function read_text"),
            ("value > 1; drop table x", "neither comments nor several statements"),
            ("value > 1 -- all", "neither comments nor several statements"),
            ("ts > '2026-03-01'", "written timestamp"),
            ("timestamp '2026-02-30' < ts", "is no timestamp"),
            ("value in (ts)", "constants"),
            ("1 < value < 3", "comparisons do not follow"),
            ("cast(value as blob) = 1", "no type blob"),
            ("cast(metric as date) = ts", "no date is made of a string"),
            ("value > 99999999999999999999", "64 bits"),
            ("value > 1e999", "no double is so large"),
            ("not metric", "takes true or false"),
            ("not value", "takes true or false"),
            ("not length(metric)", "takes true or false, and this is long"),
            ("length(metric) and length(metric)", "takes true or false, and this is long"),
            ("length(metric) || length(metric) = '11'", "takes texts"),
            ("value + metric > 1", "do not go together"),
            ("-metric = 'x'", "takes numbers, and this is string"),
            ("(" * 50 + "value" + ")" * 50 + " > 1", "more than 40 brackets"),
            ("not " * 500 + "true", "more than 40 brackets"),
            (" or ".join(["value = 1"] * 200), "more than 100 parts"),
            ("x" * 10_001, "at most 10,000 characters"),
            ("", "a value was expected"),
            ("'open", "cannot be read"),
            ("\x00", "cannot be read"),
        ],
    )
    def test_an_error_names_its_place(self, text: str, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            Pipeline("plant", contract="telemetry").where(text)

    @settings(max_examples=300)
    @given(
        text=st.text(
            st.sampled_from(
                "value metric 1.5 'x' ()+-*/%<>=,|;\"\n and or not in like is null case when then end cast as"
            )
        )
    )
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        schema = Pipeline("plant", contract="telemetry").schema
        with suppress(UsageError):
            assert len(condition(text, schema).mask(schema.empty_table())) == 0


EVENT = {"device": "a", "metric": "x", "ts": "2026-03-01T12:00:05Z", "value": 100.0}


class TestSteps:
    def test_where_and_map_in_sql(self) -> None:
        pipeline = (
            Pipeline("plant", contract="telemetry")
            .where("value > 30 and metric = 'x'")
            .map("value * 1.8 + 32 as value_f, upper(metric) as shout, hour(ts) as h, value > 50 as high")
            .where("value_f < 300")
            .lake("plant")
        )
        assert {name: str(pipeline.schema.field(name).type) for name in ("value_f", "shout", "h", "high")} == {
            "value_f": "double",
            "shout": "string",
            "h": "int64",
            "high": "bool",
        }
        events = [EVENT, EVENT | {"value": 20.0}, EVENT | {"metric": "y"}, EVENT | {"value": 999.0}]
        run = run_pipeline(pipeline, events)
        assert run.lake.select(["value_f", "shout", "h", "high"]).to_pylist() == [
            {"value_f": 212.0, "shout": "X", "h": 12, "high": True}
        ]
        assert (run.counts["filtered"], run.dead_letters) == (3, [])

    @pytest.mark.parametrize("as_table", [True, False])
    def test_a_function_adds_texts_too(self, as_table: bool) -> None:
        def shouting(events: pa.Table) -> Any:
            found = {"shout": pc.utf8_upper(events["metric"])}
            return pa.table(found) if as_table else found

        plant = Pipeline("plant", contract="telemetry").map(shouting, adds={"shout": "string"}).where("shout = 'X'")
        run = run_pipeline(plant.lake("plant"), [EVENT, EVENT | {"metric": "y"}])
        assert (run.lake["shout"].to_pylist(), run.dead_letters) == (["X"], [])

    def test_a_function_with_attributes_of_its_own_gets_all_columns(self) -> None:
        class Scaled:
            columns = ("value",)

            def __call__(self, events: pa.Table) -> Any:
                return {"shout": pc.utf8_upper(events["metric"])}

        run = run_pipeline(
            Pipeline("plant", contract="telemetry").map(Scaled(), adds={"shout": "string"}).lake("plant"), [EVENT]
        )
        assert (run.lake["shout"].to_pylist(), run.dead_letters) == (["X"], [])

    def test_an_overflow_is_null_and_no_dead_letter(self) -> None:
        pipeline = Pipeline("plant", contract="telemetry").map("cast(value as long) * 2 as twice").lake("plant")
        run = run_pipeline(pipeline, [EVENT, EVENT | {"value": 9e18}, EVENT | {"value": 1e300}])
        assert (run.lake["twice"].to_pylist(), run.dead_letters) == ([200, None, None], [])

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda plant: plant.map("value * 2"), "each expression has a name"),
            (lambda plant: plant.map("value * 2 as value"), "there already"),
            (lambda plant: plant.map("value * 2 as x, value as x"), "two columns are named x"),
            (lambda plant: plant.map("null as x"), "cast"),
            (lambda plant: plant.map("value * 2 as x", adds={"x": "double"}), "given alone"),
            (lambda plant: plant.map(lambda events: events), "say what the function adds"),
            (lambda plant: plant.where("value > 2 as x"), "a condition has no name"),
        ],
    )
    def test_what_is_wrong_is_refused_at_once(self, change: Any, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            change(Pipeline("plant", contract="telemetry"))
