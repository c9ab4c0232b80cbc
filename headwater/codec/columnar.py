"""The columnar batch: one Arrow IPC stream, strings as dictionaries, the whole of it one zstd frame.

Its schema metadata names the contract, its version and, for a sealed batch, the identity of the first event and a
digest of the rows (`headwater.digest`), by which a reader can tell copies of a batch from other events that claim the
same identity. What the digest is over is said at `rows_digest`; batches of older producers have none.
"""

from dataclasses import dataclass

import pyarrow as pa
import zstandard

from headwater.arrays import whole
from headwater.codec.bounds import MAX_INVALID
from headwater.codec.decoded import Decoded, kept_rows
from headwater.codec.digest import in_order_of_appearance, rows_digest
from headwater.codec.ipcguard import check_columns, check_messages, check_schema
from headwater.codec.jsonbodies import event_bodies
from headwater.contract import Contract, InvalidRow, conform
from headwater.errors import InvalidRecord

__all__ = ["OtherContract", "decode_batch", "encode_batch", "is_arrow", "is_sealed", "read_columns"]

_CONTRACT = b"headwater.contract"
_VERSION = b"headwater.version"
_ORIGIN = b"headwater.origin"
_FIRST_SEQ = b"headwater.first_seq"
_DIGEST = b"headwater.digest"
_TRACEPARENT = b"traceparent"
_LEVEL = 3
_SCHEMA_BYTES = 256 << 10
"""Within which the schema of a contract lies: about 100 bytes a field."""
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class OtherContract:
    """Name the contract and count the events of a batch that is of another contract, which this reader passes over."""

    name: str
    version: int
    events: int


@dataclass(frozen=True)
class _Head:
    contract: str
    version: int
    origin: str | None
    first_seq: int
    traceparent: str | None
    digest: str | None


def encode_batch(
    table: pa.Table,
    contract: Contract,
    *,
    origin: str | None = None,
    first_seq: int | None = None,
    traceparent: str | None = None,
) -> bytes:
    """Encode a batch. The same table gives the same bytes, with one version of Arrow and zstd.

    `table` has columns of the contract, in any order and as the contract's types or such that cast to them without
    loss; optional columns may be missing. `origin` and `first_seq` go together.
    """
    if (origin is None) != (first_seq is None):
        raise ValueError("origin and first_seq go together")
    metadata = {_CONTRACT: contract.name.encode(), _VERSION: str(contract.version).encode()}
    fields = [field for field in contract.arrow_schema if field.name in table.column_names]
    names = [field.name for field in fields]
    columns = [_wire_column(table.column(field.name), field.type) for field in fields]
    if origin is not None:
        digest = rows_digest(names, columns).encode()
        metadata |= {_ORIGIN: origin.encode(), _FIRST_SEQ: str(first_seq).encode(), _DIGEST: digest}
    if traceparent is not None:
        metadata[_TRACEPARENT] = traceparent.encode()
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.with_metadata(metadata)) as writer:
        writer.write_batch(batch)
    compressed: bytes = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(sink.getvalue())
    return compressed


def _wire_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_string(kind):
        return whole(column.cast(kind))
    if not pa.types.is_dictionary(column.type):
        return _narrow(whole(column.cast(kind)).dictionary_encode())
    # with codes of eight bits as they may come, the dictionaries of several chunks need not fit into one
    return _narrow(in_order_of_appearance(whole(column.cast(pa.dictionary(pa.int32(), kind)).unify_dictionaries())))


def _narrow(coded: pa.DictionaryArray) -> pa.DictionaryArray:
    values = len(coded.dictionary)
    index = pa.int8() if values <= 1 << 7 else pa.int16() if values <= 1 << 15 else pa.int32()
    return pa.DictionaryArray.from_arrays(coded.indices.cast(index), coded.dictionary)


def is_arrow(data: bytes) -> bool:
    """Tell whether the bytes begin as an Arrow IPC stream does."""
    return data.startswith(b"\xff\xff\xff\xff")


def is_sealed(data: bytes) -> bool:
    """Tell whether an Arrow stream is a batch of headwater's own: its schema, which comes first, names a contract."""
    return _CONTRACT in data[:_SCHEMA_BYTES]


def decode_batch(data: bytes, contract: Contract, *, foreign: bool = False) -> Decoded | OtherContract:
    """Read the Arrow stream of a batch (decompressed). One without our metadata is taken for rows of `contract`.

    `foreign` as `event_bodies` has it.
    """
    buffer = pa.py_buffer(data)
    total = check_messages(buffer)
    with pa.ipc.open_stream(buffer) as reader:
        head = _head(reader.schema.metadata or {}, contract)
        if head.contract != contract.name:
            return OtherContract(head.contract, head.version, total)
        _check_head(head, contract, total)
        check_schema(reader.schema)
        table = check_columns(reader.read_all().replace_schema_metadata(None))
    conformed = conform(contract, table, MAX_INVALID)
    return Decoded(
        contract=head.contract,
        version=head.version,
        table=conformed.table,
        rows=kept_rows(total, conformed.invalid),
        invalid=_with_events(conformed.invalid, table, contract, foreign=foreign),
        total=total,
        origin=head.origin,
        first_seq=head.first_seq,
        traceparent=head.traceparent,
        digest=head.digest,
    )


def read_columns(data: bytes) -> pa.Table:
    """Return the columns of an Arrow stream (decompressed) as they are, whatever contract and version it is of."""
    buffer = pa.py_buffer(data)
    check_messages(buffer)
    with pa.ipc.open_stream(buffer) as reader:
        check_schema(reader.schema)
        return check_columns(reader.read_all().replace_schema_metadata(None))


def _with_events(
    invalid: tuple[InvalidRow, ...], table: pa.Table, contract: Contract, *, foreign: bool
) -> tuple[InvalidRow, ...]:
    if not invalid:
        return ()
    events = event_bodies(table.take(pa.array([row.index for row in invalid])), contract, foreign=foreign)
    return tuple(InvalidRow(row.index, row.reason, event) for row, event in zip(invalid, events, strict=True))


def _head(metadata: dict[bytes, bytes], contract: Contract) -> _Head:
    try:
        return _Head(
            contract=metadata.get(_CONTRACT, contract.name.encode()).decode(),
            version=int(metadata.get(_VERSION, str(contract.version).encode())),
            origin=metadata[_ORIGIN].decode() if _ORIGIN in metadata else None,
            first_seq=int(metadata.get(_FIRST_SEQ, b"0")),
            traceparent=metadata[_TRACEPARENT].decode() if _TRACEPARENT in metadata else None,
            digest=metadata[_DIGEST].decode() if _DIGEST in metadata else None,
        )
    except ValueError as error:
        raise InvalidRecord("a batch whose metadata cannot be read") from error


def _check_head(head: _Head, contract: Contract, total: int) -> None:
    if head.version > contract.version:
        raise InvalidRecord(
            f"a batch of contract {contract.name} version {head.version}, and this processor knows only version "
            f"{contract.version}: upgrade the processor, then redrive"
        )
    if not 0 <= head.first_seq <= _MAX_INT64 - total:
        raise InvalidRecord(f"first_seq {head.first_seq} is out of range")
