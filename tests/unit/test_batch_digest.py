"""A batch's digest is that of its rows: equal whoever sealed them, other for other rows."""

from typing import Any

import pyarrow as pa
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.contract import Contract, Field

EVERY = Contract(
    "every",
    1,
    (
        Field("k", "string"),
        Field("ts", "timestamp"),
        Field("text", "string", required=False),
        Field("whole", "long", required=False),
        Field("part", "double", required=False),
        Field("flag", "boolean", required=False),
        Field("day", "date", required=False),
    ),
    key="k",
    time="ts",
)
OPTIONAL = [field.name for field in EVERY.fields if not field.required]
rows = st.lists(
    st.fixed_dictionaries(
        {
            "k": st.sampled_from("abc"),
            "ts": st.integers(0, 3),
            "text": st.sampled_from([None, "", "a", "ab", "b"]),
            "whole": st.sampled_from([None, 0, 1]),
            "part": st.sampled_from([None, 0.0, 1.0]),
            "flag": st.sampled_from([None, False, True]),
            "day": st.sampled_from([None, 0, 1]),
        }
    ),
    min_size=1,
    max_size=12,
)


def table(events: list[dict[str, Any]]) -> pa.Table:
    columns = {one.name: [event[one.name] for event in events] for one in EVERY.fields}
    plain = {name: pa.array(values) for name, values in columns.items() if name not in ("ts", "day")}
    plain["ts"] = pa.array(columns["ts"], pa.int64()).cast(pa.timestamp("ms", "UTC"))
    plain["day"] = pa.array(columns["day"], pa.int32()).cast(pa.date32())
    schema = EVERY.arrow_schema
    return pa.table({name: plain[name].cast(schema.field(name).type) for name in schema.names})


def sealed(content: pa.Table, origin: str = "o", first: int = 0) -> Decoded:
    found = decode_record(encode_batch(content, EVERY, origin=origin, first_seq=first), EVERY)
    assert isinstance(found, Decoded)
    return found


def other_encoding(content: pa.Table, before: list[dict[str, Any]], cut: int) -> pa.Table:
    """The same rows as a slice of a larger table in two chunks, with codes in the order of another's values."""
    whole = pa.concat_tables([table(before), content.slice(0, cut), content.slice(cut)])
    for at, field in enumerate(whole.schema):
        if pa.types.is_string(field.type):
            whole = whole.set_column(at, field.name, whole.column(at).dictionary_encode())
    return whole.slice(len(before))


@given(rows, rows, st.integers(0, 12))
def test_rows_sealed_again_have_their_digest_however_they_are_encoded(
    events: list[dict[str, Any]], before: list[dict[str, Any]], cut: int
) -> None:
    content = table(events)
    again = sealed(other_encoding(content, before, min(cut, len(events))), "another", 7)
    assert again.digest == sealed(content).digest
    assert again.table.cast(EVERY.arrow_schema).equals(content)


@given(rows, rows)
def test_other_rows_have_another_digest(events: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    one, two = table(events), table(others)
    assert (sealed(one).digest == sealed(two).digest) == one.equals(two)


def test_a_batch_without_identity_or_of_an_older_producer_has_none() -> None:
    content = table([{"k": "a", "ts": 0, **dict.fromkeys(OPTIONAL)}])
    bare = decode_record(encode_batch(content, EVERY), EVERY)
    assert isinstance(bare, Decoded)
    assert bare.digest is None
    data = zstandard.ZstdDecompressor().decompress(encode_batch(content, EVERY, origin="o", first_seq=0))
    with pa.ipc.open_stream(data) as reader:
        metadata, rows_ = dict(reader.schema.metadata), reader.read_all()
    del metadata[b"headwater.digest"]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows_.schema.with_metadata(metadata)) as writer:
        writer.write_table(rows_)
    old = decode_record(sink.getvalue().to_pybytes(), EVERY)
    assert isinstance(old, Decoded)
    assert (old.origin, old.digest) == ("o", None)
