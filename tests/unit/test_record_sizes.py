"""What a record holds: an accepted event fits one in any format, and a batch is cut only where it must be."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec.bounds import plain_bytes
from headwater.contract import Contract, parse_contract
from headwater.errors import InvalidEvent
from headwater.producers import sealing
from headwater.producers.lanes import lane_of
from headwater.producers.producer import Producer
from headwater.producers.sealing import Numbering, SealedBatch, Sealer
from headwater.producers.settings import ProducerSettings
from headwater.stream.hashkeys import HASH_SPACE
from tests.producer_stream import FakeStream

WIDE = parse_contract(
    """
name: wide
version: 1
key: device
time: ts
fields:
  - {name: tags, type: list<string>, required: false}
  - {name: device, type: string}
  - {name: ts, type: timestamp}
  - {name: blob, type: binary, required: false}
  - {name: more, type: string, required: false}
""",
    "test",
)
OWN = replace(
    WIDE,
    id=parse_contract(
        "{name: o, version: 1, key: device, time: ts, id: {origin: device, partitions: 12}, fields: ["
        "{name: device, type: string}, {name: ts, type: timestamp}]}",
        "test",
    ).id,
)
ORIGIN = "0123456789abcdef"
FORMATS = ["columnar", "json", "kpl"]
NOISE = random.Random(1)
FARTHEST = HASH_SPACE - 1


def sealer(contract: Contract = WIDE, place: Callable[[int], int] = lambda _: FARTHEST, **settings: Any) -> Sealer:
    limits = {"max_record_bytes": 2_000, "max_buffer_bytes": 1 << 30} | settings
    return Sealer(contract, ProducerSettings(**limits), Numbering(ORIGIN), place)


def noise(size: int) -> str:
    return "".join(NOISE.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


def event(**values: object) -> dict[str, object]:
    return {"tags": None, "device": "d", "ts": 1_762_160_400_000, "blob": None, "more": None} | values


def table(*events: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(events), schema=WIDE.arrow_schema)


def sealed(subject: Sealer, rows: pa.Table) -> list[SealedBatch]:
    for group in subject.cut_table(rows, rows.nbytes, lambda _: None):
        subject.append(group, 0)
    return [batch for buffer in subject.take(0, everything=True) for batch, _ in subject.seal(buffer)]


@pytest.mark.parametrize(("ordered", "lanes"), [(False, 10), (True, 10), (True, 11)])
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_accepted_fits_a_record_to_the_last_byte(form: Any, ordered: bool, lanes: int) -> None:
    """Under the longest partition key and hash key that it may get; one byte less of a record, and it is named."""
    device = next(f"d{at}" for at in range(999) if lane_of(f"d{at}", lanes) == lanes - 1)
    rows = table(event(), event(device=device, more=noise(1_500)), event(more=noise(1_600)))
    shape = {"format": form, "ordered": ordered, "partitions": lanes}
    found = sealer(max_record_bytes=100, **shape).too_large(rows)
    assert found is not None
    assert found[0] == 1
    size = int(found[1].removeprefix("the event takes ").partition(" bytes in a record, which holds 100")[0])
    assert sealer(max_record_bytes=size, **shape).too_large(rows.slice(0, 2)) is None
    assert sealer(max_record_bytes=size - 1, **shape).too_large(rows) == (
        1,
        f"the event takes {size} bytes in a record, which holds {size - 1}",
    )
    batches = sealed(sealer(max_record_bytes=size, **shape), rows.slice(1, 1))
    (size_sealed,) = [one.size for one in batches]
    assert size - 24 <= size_sealed <= size  # a session's numbers take up to 20 bytes more later on
    if form != "columnar":
        assert size_sealed == size


@settings(max_examples=40)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([WIDE, OWN]),
    st.sampled_from(["\x01", "a\\", "é", "\U0001f600", "x"]),
    st.integers(1, 4_200),
)
def test_an_event_that_is_taken_is_in_one_record_whatever_its_text(
    form: Any, contract: Contract, letter: str, size: int
) -> None:
    """Letters that JSON writes as six bytes, or that take four each in UTF-8."""
    stream = FakeStream()
    limits = ProducerSettings(
        format=form, max_record_bytes=4_000, max_request_bytes=4_000, linger_ms=0, receipts=False, delivery_seconds=0
    )
    text = letter * min(size, 5) + noise(3) + letter * max(size - 5, 0)
    with Producer("s", contract, client=stream, settings=limits) as producer:
        try:
            producer.put({"device": "d", "ts": 1, "more": text})
        except InvalidEvent:
            return
    (one,) = stream.records
    assert len(one["Data"]) + len(one["PartitionKey"]) <= 4_000


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("column", ["tags", "device", "blob", "more"])
def test_long_values_of_any_column_are_looked_at(column: str, coded: bool) -> None:
    """Alone or with those of others; of null and short ones nothing is encoded."""
    long: dict[str, object] = {
        "tags": [noise(60) for _ in range(40)],
        "device": noise(2_400),
        "blob": NOISE.randbytes(2_400),
        "more": noise(2_400),
    }
    rows = table(event(), event(**{column: long[column]}), event(tags=[], blob=b"", more=""))
    if coded and column in ("device", "more"):
        at = rows.column_names.index(column)
        rows = pa.concat_tables([rows.set_column(at, column, rows.column(at).dictionary_encode())] * 2)
    found = sealer().too_large(rows)
    assert found is not None
    assert found[0] == 1
    assert sealer().too_large(rows.slice(0, 0)) is None
    assert sealer().too_large(rows.slice(2, 1)) is None


def test_values_that_are_long_together_are_looked_at() -> None:
    """Each of them is below what is surely small."""
    part = {
        "tags": [noise(20) for _ in range(7)],
        "device": noise(230),
        "blob": NOISE.randbytes(230),
        "more": noise(230),
    }
    found = sealer(max_record_bytes=900).too_large(table(event(), event(**part)))
    assert found is not None
    assert found[0] == 1


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("ordered", [False, True])
def test_a_batch_is_halved_until_it_fits_and_no_further(form: Any, ordered: bool) -> None:
    """A batch of just a record's size is one record; a byte less, and it is two halves, each with a place."""
    rows = table(*(event(more=noise(300)) for _ in range(8)))
    (whole,) = sealed(sealer(max_record_bytes=1 << 20, format=form, ordered=ordered), rows)
    for limit, wanted in ((whole.size, [8]), (whole.size - 1, [4, 4]), (500, [1] * 8)):
        sizes: list[int] = []

        def place(size: int, sizes: list[int] = sizes) -> int:
            sizes.append(size)
            return FARTHEST - len(sizes)  # as long as any

        subject = sealer(place=place, max_record_bytes=limit, format=form, ordered=ordered)
        batches = sealed(subject, rows)
        assert [one.count for one in batches] == wanted
        assert [one.batch_id for one in batches] == list(range(len(wanted)))
        assert subject.numbering == Numbering(ORIGIN, 8, len(wanted))
        if ordered:
            assert not sizes, "a lane has its place"
        else:
            assert [one.explicit_hash_key for one in batches] == [
                str(FARTHEST - at) for at in range(1, len(wanted) + 1)
            ]
            assert len(sizes) == len(wanted), "no place is taken for what was not sealed"
        if form != "kpl" and not ordered:
            assert sizes == [one.size for one in batches]


def test_a_batch_of_texts_that_compress_well_is_bounded_by_what_a_reader_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By `plain_bytes`: just so many are one batch, one more are two."""
    rows = table(*(event(more="x" * 100) for _ in range(8)))
    size = plain_bytes(rows)
    for bound, wanted in ((size, [8]), (size - 1, [4, 4]), (1, [1] * 8)):
        monkeypatch.setattr(sealing, "MAX_BATCH_BYTES", bound)
        assert [one.count for one in sealed(sealer(), rows)] == wanted


def test_a_buffer_is_full_at_four_times_a_records_bytes() -> None:
    """To the byte: less waits for more."""
    subject = sealer(max_record_bytes=100)
    for at, raw in enumerate((100, 299, 1, 400, 399)):
        subject.append(subject.cut_row(event(), raw, None), at)
    assert [(one.count, one.raw_bytes, one.since_ms) for one in subject.take(4)] == [(3, 400, 0), (1, 400, 3)]
    assert subject.due_ms() == 4 + 1_000
