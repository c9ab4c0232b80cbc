"""The same bytes give the same events wherever they are: as a record, as a user record, under any compression."""

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec import (
    Control,
    Decoded,
    Decoder,
    decode_contents,
    decode_record,
    encode_batch,
    encode_control,
    encode_kpl,
)
from headwater.codec.records import Content
from headwater.contract import Contract
from headwater.errors import InvalidRecord
from headwater.formats import telegraf
from headwater.processors.operators.decode import Part, Poison
from headwater.processors.operators.decode import decode as decode_records
from headwater.stream.record import StreamRecord
from tests.codecs import CONTRACT, GOOD, lines, plain, rows, table

JOINTS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "lines": lines,
    "crlf lines": lambda events: lines(events).replace(b"\n", b"\r\n") + b"\r\n",
    "array": lambda events: json.dumps(events).encode(),
    "nothing between": lambda events: b"".join(json.dumps(event).encode() for event in events),
    "a space between": lambda events: b" ".join(json.dumps(event).encode() for event in events),
    "NUL between": lambda events: b"\0".join(json.dumps(event).encode() for event in events) + b"\0",
    "RFC 7464": lambda events: b"".join(b"\x1e" + json.dumps(event).encode() + b"\n" for event in events),
    "over lines": lambda events: b"".join(json.dumps(event, indent=1).encode() for event in events),
    "over lines, line between": lambda events: b"\n".join(json.dumps(event, indent=1).encode() for event in events),
    "mark": lambda events: b"\xef\xbb\xbf" + lines(events),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip, padded": lambda data: gzip.compress(data) + bytes(8),
    "gzip members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "zlib": zlib.compress,
    "zlib streams": lambda data: zlib.compress(data[:9], 1) + zlib.compress(data[9:], 9),
    "zstd": zstandard.compress,
    "zstd frames": lambda data: zstandard.compress(data[:9]) + zstandard.compress(data[9:]),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("joint", JOINTS)
def test_every_separation_under_every_compression(joint: str, packed: str) -> None:
    """All give the same events, as a record and as a user record between others."""
    data = PACKED[packed](JOINTS[joint](rows(5)))
    found = decode_record(data, CONTRACT)
    assert isinstance(found, Decoded)
    assert (plain(found.table), found.invalid) == (plain(table(5)), ())
    around = json.dumps(GOOD).encode()
    contents = decode_contents(encode_kpl([around, data, around], "k", None), CONTRACT)
    assert events_of(contents.contents) == [*events_of(record(around)), *events_of([found]), *events_of(record(around))]
    assert contents.users is not None
    assert contents.users.tolist() == [0, 1, 6]


def record(data: bytes) -> list[Content]:
    return decode_contents(data, CONTRACT).contents


def events_of(contents: list[Content]) -> list[object]:
    """The events, valid and not, in order; of a sealed batch with their identities."""
    out: list[object] = []
    for found in contents:
        if not isinstance(found, Decoded):
            out.append(found)
            continue
        at: dict[int, object] = dict(zip(found.rows.tolist(), plain(found.table), strict=True))
        at |= {row.index: {"invalid": row.event} for row in found.invalid}
        names = {place: (found.origin, found.first_seq + place) if found.origin else None for place in at}
        out += [(names[place], at[place]) for place in sorted(at)]
    return out


ONE = json.dumps(GOOD).encode()
BATCH = encode_batch(table(3), CONTRACT, origin="o", first_seq=7)
PIECES = st.sampled_from(
    [ONE, lines(rows(3)), ONE + ONE, b"[]", json.dumps(rows(2)).encode(), b"\xef\xbb\xbf" + ONE, b"", b"  ",
     b"nonsense",
     b'{"device":1}', ONE + b"{", BATCH, encode_batch(table(2), CONTRACT), encode_control("x", {"n": 1}), b"\x78\x9cxx",
     zlib.compress(b""), b"{}" * 3, json.dumps({**GOOD, "device": "}{"}).encode()]
)  # fmt: skip
PAYLOADS = st.tuples(PIECES | st.binary(max_size=12), st.sampled_from([*PACKED.values()])).map(
    lambda pair: pair[1](pair[0])
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PAYLOADS, max_size=6))
def test_a_user_record_is_read_as_a_record_with_its_bytes(payloads: list[bytes]) -> None:
    """Events, identities, control records and refusals are alike, in order, and each user record knows its first."""
    apart: list[object] = []
    starts = []
    for payload in payloads:
        starts.append(sum(not isinstance(one, Control) for one in apart))
        try:
            apart += events_of(record(payload))
        except InvalidRecord:
            apart.append((None, {"invalid": payload}))
    together = decode_contents(encode_kpl(payloads, "k", None), CONTRACT)
    assert events_of(together.contents) == apart
    users = [*range(len(payloads))] if together.users is None else together.users.tolist()
    assert users == starts


WAYS: dict[str, tuple[Contract, Decoder | None]] = {
    "JSON": (CONTRACT, None),
    "some fields of JSON": (replace(CONTRACT, unknown="ignore"), None),
    "a decoder": (CONTRACT, telegraf()),
    "some fields of a decoder": (replace(CONTRACT, unknown="ignore"), telegraf()),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(payloads=st.lists(PAYLOADS, max_size=5))
def test_the_engines_decoder_reads_the_same(way: str, payloads: list[bytes]) -> None:
    """What is read in one pass over neighbouring records is what each gives alone, and what `decode_contents` does."""
    contract, decoder = WAYS[way]

    def found_in(*datas: bytes) -> list[object]:
        records = [StreamRecord("shard-0", str(at + 1), 1_762_160_400_000, "k", data) for at, data in enumerate(datas)]
        out: list[object] = []
        for found in decode_records(records, contract, decoder):
            if isinstance(found, Part):
                out += events_of([one.decoded for one in found.by_record()])
            else:
                out.append(found.reason if isinstance(found, Poison) else found[1])
        return out

    def without_places(found: list[object]) -> list[object]:
        return [one[1] if isinstance(one, tuple) and one[0] is None else one for one in found]

    apart = [one for payload in payloads for one in found_in(payload)]
    assert without_places(found_in(*payloads)) == without_places(apart)
    for payload in payloads:
        for copies in (1, 2):
            try:
                alone = events_of(decode_contents(payload, contract, decoder).contents) * copies
            except InvalidRecord as refused:
                alone = [str(refused)] * copies
            assert without_places(found_in(*[payload] * copies)) == without_places(alone)


def test_decompression_is_bounded_over_a_whole_aggregate() -> None:
    """However many user records a bomb is cut into: what goes beyond is refused, the others count."""
    bomb = gzip.compress(b" " * (30 << 20), 9)
    (found,) = record(encode_kpl([ONE, bomb, bomb, bomb, ONE], "k", None))
    assert isinstance(found, Decoded)
    assert [row.index for row in found.invalid] == [1, 2, 3]
    assert "when decompressed" in found.invalid[2].reason
    assert found.rows.tolist() == [0, 4]


def test_an_aggregate_within_an_aggregate_is_refused() -> None:
    """The KCL takes aggregates apart once, so no runner does it twice."""
    (found,) = record(encode_kpl([ONE, encode_kpl([ONE], "k", None)], "k", None))
    assert isinstance(found, Decoded)
    assert [(row.index, row.reason) for row in found.invalid] == [(1, "an aggregate within an aggregate")]
