"""Values of a contract's types by every way in: what each way makes of a value, or the reason why it refuses it."""

import json

import pyarrow as pa

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.contract import Contract, Field, conform, parse_contract, validate_row
from headwater.contract.keyvalues import KeyValue
from headwater.errors import InvalidEvent
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.web.problems import Problem

FLAT = (
    "decimal(5, 2)",
    "decimal(38, 10)",
    "decimal(38, 18)",
    "decimal(20, 20)",
    "binary",
    "uuid",
    "time",
    "timestamp_us",
)
"""Types that are not made of others, but for those that JSON has itself."""
TS = "2026-03-01T12:00:00Z"


def of(kind: str, more: str = "") -> Contract:
    fields = f"{{name: k, type: string}}, {{name: ts, type: timestamp}}, {{name: x, type: '{kind}'{more}}}"
    return parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}]}}", kind)


def rows_of(value: object, count: int) -> list[dict[str, object]]:
    return [{"k": f"k{n}", "ts": TS, "x": value} for n in range(count)]


def one(found: Decoded | None, contract: Contract) -> object:
    """The value of the only event, as Arrow's Python has it; the reason when it is refused."""
    assert found is not None
    if found.invalid:
        return found.invalid[0].reason
    (x,) = set(found.table["x"].to_pylist())
    assert found.table.schema.field("x").type == contract.arrow_schema.field("x").type
    return x


def body(data: bytes, kind: str, contract: Contract) -> object:
    try:
        found = parse_body(data, kind, contract, BodyLimits())
    except Problem as problem:
        return problem.detail
    return found.invalid[0].reason if found.invalid else next(iter(set(found.table["x"].to_pylist())))


def arrow(column: pa.Array) -> bytes:
    return ipc(pa.table({"k": ["k"] * len(column), "ts": [TS] * len(column), "x": column}))


def ipc(table: pa.Table) -> bytes:
    """The table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def put(contract: Contract, value: object) -> object:
    """The value of `put`, through the batch that it is sealed in."""
    try:
        row = validate_row(contract, rows_of(value, 1)[0])
    except InvalidEvent as error:
        return str(error)
    sent = decode_record(encode_batch(pa.Table.from_pylist([row], schema=contract.arrow_schema), contract), contract)
    assert isinstance(sent, Decoded)
    return one(sent, contract)


def batch(contract: Contract, column: pa.Array) -> object:
    """The value of `put_batch`, through the batch that it is sealed in."""
    found = conform(contract, pa.table({"k": ["k"] * len(column), "ts": [TS] * len(column), "x": column}))
    if found.invalid:
        return found.invalid[0].reason
    sent = decode_record(encode_batch(found.table, contract), contract)
    assert isinstance(sent, Decoded)
    return one(sent, contract)


def decoded(data: bytes, contract: Contract) -> object:
    found = decode_record(data, contract)
    assert isinstance(found, Decoded)
    return one(found, contract)


def lines(value: object, count: int) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows_of(value, count)]


def a_key(column: str, text: str, kind: str = "string") -> KeyValue:
    """A value of a contract's key."""
    return KeyValue(Field(column, kind), text)
