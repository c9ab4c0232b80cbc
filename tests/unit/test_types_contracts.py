"""What a contract says of its types: how they are written, what may follow what, and their JSON schema."""

from decimal import Decimal

import pyarrow as pa
import pytest

from headwater.contract import (
    check_compatible,
    json_schema,
    parse_contract,
)
from headwater.errors import InvalidContract
from tests.typed import FLAT, batch, of, put


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("decimal", "as in decimal(10, 2)"),
        ("decimal(39, 2)", "1 to 38 digits"),
        ("decimal(2, 3)", "1 to 38 digits"),
        ("decimal(0, 0)", "1 to 38 digits"),
        ("decimal(a, b)", "as in decimal(10, 2)"),
        ("numeric(10, 2)", "is unknown"),
        ("uuid4", "is unknown"),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(kind: str, reason: str) -> None:
    with pytest.raises(InvalidContract, match=r"field x: type") as caught:
        of(kind)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roles_and_bounds() -> None:
    """A key has one text, and bounds are values of their type."""
    text = "{{name: c, version: 1, key: x, time: ts, fields: [{{name: x, type: '{}'}}, {{name: ts, type: {}}}]}}"
    for kind in ("decimal(5, 2)", "uuid", "time", "timestamp_us"):
        assert parse_contract(text.format(kind, "timestamp_us"), "c").key == "x"
    with pytest.raises(InvalidContract, match="key: field x is a binary"):
        parse_contract(text.format("binary", "timestamp"), "c")
    assert of("decimal( 5,2 )").field("x").type == "decimal(5, 2)"
    bounded = of("decimal(5, 2)", ", minimum: 0.01, maximum: 5")
    assert "below the minimum" in str(put(bounded, "0.00"))
    assert "above the maximum" in str(batch(bounded, pa.array([Decimal("5.01")])))
    assert batch(bounded, pa.array([Decimal("5.00"), None, Decimal("5.00")]).drop_null()) == Decimal("5.00")
    with pytest.raises(InvalidContract, match=r"minimum 0\.001 is no decimal"):
        of("decimal(5, 2)", ", minimum: 0.001")
    sized = of("binary", ", max_bytes: 2")
    assert "has 3 bytes" in str(put(sized, b"abc"))
    assert "has 3 bytes" in str(batch(sized, pa.array([b"abc"])))


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        ("decimal(5, 2)", "decimal(9, 2)", True),
        ("decimal(9, 2)", "decimal(5, 2)", False),
        ("decimal(5, 2)", "decimal(9, 3)", False),
        ("decimal(5, 2)", "double", False),
        ("long", "decimal(38, 0)", False),
        ("timestamp", "timestamp_us", False),
        ("uuid", "string", False),
        ("binary", "string", False),
    ],
)
def test_what_may_follow(old: str, new: str, may: bool) -> None:
    from dataclasses import replace

    faults = check_compatible(of(old), replace(of(new), version=2))
    assert faults == ([] if may else [f"field x changes from {old} to {new}"])


def test_json_schema_says_what_is_taken() -> None:
    said = {kind: json_schema(of(kind))["properties"]["x"] for kind in FLAT}
    assert said["decimal(5, 2)"]["type"] == ["string", "number"]
    assert said["binary"] == {"type": "string", "contentEncoding": "base64"}
    assert said["uuid"]["format"] == "uuid"
    assert said["time"]["maximum"] == 86_399_999_999
    assert said["timestamp_us"]["format"] == "date-time"
