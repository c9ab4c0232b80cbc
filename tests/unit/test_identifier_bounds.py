"""A key or an own id has a bounded size: megabytes would blind a shard's heat and stay in its state for 30 days."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from headwater.contract import Contract, conform, parse_contract, validate_row
from headwater.contract.compatibility import check_compatible
from headwater.contract.definition import MAX_IDENTIFIER_BYTES, MAX_TEXT_BYTES
from headwater.errors import InvalidContract, InvalidEvent

OWN = parse_contract(
    "name: o\nversion: 1\nkey: k\ntime: t\nid: {origin: id}\nfields:\n"
    "  - {name: k, type: string}\n  - {name: t, type: timestamp}\n  - {name: id, type: string}\n"
    "  - {name: note, type: string, required: false}\n",
    "o",
)
LONGEST = "é" * (MAX_IDENTIFIER_BYTES // 2)


def event(**values: Any) -> dict[str, Any]:
    return {"k": "k", "t": 1_772_000_000_000, "id": "i", "note": "n"} | values


def tables(contract: Contract, rows: list[dict[str, Any]]) -> list[pa.Table]:
    """The rows as plain columns, with dictionaries, and in chunks."""
    plain = pa.Table.from_pylist(rows, schema=contract.arrow_schema)
    coded = pa.table([one.dictionary_encode() if one.type == pa.string() else one for one in plain], plain.schema.names)
    return [plain, coded, pa.concat_tables([plain.slice(0, 1), plain.slice(1)])]


@pytest.mark.parametrize("name", ["k", "id"])
def test_a_key_or_id_of_the_most_bytes_is_taken_and_one_more_refused(name: str) -> None:
    """By rows and by tables alike, with the field and the size in the reason."""
    rows = [event(), event(**{name: LONGEST}), event(**{name: LONGEST + "x"})]
    assert [validate_row(OWN, one)["note"] for one in rows[:2]] == ["n", "n"]
    with pytest.raises(InvalidEvent, match=f"field {name}: .* has 1,025 bytes"):
        validate_row(OWN, rows[2])
    for table in tables(OWN, rows):
        found = conform(OWN, table)
        assert found.table.num_rows == 2
        (fault,) = found.invalid
        assert fault.index == 2
        assert fault.reason.startswith(f"field {name}: ")
        assert len(fault.reason) < 300


def test_other_texts_are_as_long_as_the_contract_says() -> None:
    """Each of a quarter of a megabyte, where it says nothing; of JSON its text counts."""
    said = (
        "name: o\nversion: 1\nkey: k\ntime: t\nfields:\n  - {name: k, type: string, max_bytes: 3}\n"
        "  - {name: t, type: timestamp}\n  - {name: note, type: string, max_bytes: 300000}\n"
        "  - {name: more, type: json, required: false, max_bytes: 20}\n"
    )
    cases: list[tuple[Contract, list[dict[str, Any]], str]] = [
        (OWN, [event(note="x" * MAX_TEXT_BYTES), event(note="é" * (MAX_TEXT_BYTES // 2) + "x")], "note"),
        (parse_contract(said, "s"), [{"k": "k", "t": 0, "note": "x" * 300_000}, {"k": "long"}], "k"),
        (parse_contract(said, "s"), [{"k": "k"}, {"k": "k", "more": [["x" * 30]]}], "more"),
    ]
    for contract, rows, reason in cases:
        good, bad = ({"t": 1_772_000_000_000, "note": "n"} | row for row in rows)
        good["t"] = 1_772_000_000_000
        assert validate_row(contract, good)
        with pytest.raises(InvalidEvent, match=f"field {reason}: .* bytes, and [0-9,]* at most are taken"):
            validate_row(contract, bad)
        for one in (pa.Table.from_pylist([good]), pa.Table.from_pylist([bad])):
            found = conform(contract, one)
            assert len(found.invalid) == (one.to_pylist()[0] == bad)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("{name: k, type: string, max_bytes: 0}", "is not a whole number from 1"),
        ("{name: k, type: string, max_bytes: many}", "is not a whole number from 1"),
        ("{name: k, type: long, max_bytes: 5}", "only for string, json"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_its_line(field: str, reason: str) -> None:
    text = f"name: o\nversion: 1\nkey: k\ntime: t\nfields:\n  - {{name: t, type: timestamp}}\n  - {field}\n"
    with pytest.raises(InvalidContract, match=f"^o:7: .*max_bytes.*{reason}"):
        parse_contract(text, "o")


def test_a_later_version_takes_no_shorter_texts() -> None:
    """What was valid stays so."""
    longer = replace(OWN, version=2, fields=tuple(replace(one, max_bytes=MAX_TEXT_BYTES) for one in OWN.fields))
    note = replace(OWN.field("note"), max_bytes=10)
    shorter = replace(OWN, version=2, fields=(*OWN.fields[:3], note))
    assert check_compatible(OWN, longer) == []
    assert check_compatible(OWN, shorter) == ["field note takes fewer bytes: 262144 becomes 10"]
    assert check_compatible(shorter, replace(OWN, version=3)) == []


def test_a_key_that_is_a_number_has_no_length() -> None:
    """Nothing is looked at."""
    numbers = parse_contract(
        "name: n\nversion: 1\nkey: k\ntime: t\nfields:\n  - {name: k, type: long}\n  - {name: t, type: timestamp}\n",
        "n",
    )
    assert not numbers.identifying
    assert validate_row(numbers, {"k": 2**62, "t": 1_772_000_000_000})["k"] == 2**62
