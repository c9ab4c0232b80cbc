"""Decode and encode what a Kinesis record carries: columnar batches, JSON, KPL aggregates, control records.

Pure: bytes in, Arrow tables out, and back. Whatever the bytes are, `decode_contents` returns a result or raises
`InvalidRecord`; no I/O belongs here.
"""

from headwater.codec.columnar import OtherContract, encode_batch
from headwater.codec.control import Control, encode_control
from headwater.codec.decoded import Decoded
from headwater.codec.jsonbodies import event_bodies, event_json
from headwater.codec.jsonrows import decode_payloads, json_row
from headwater.codec.kpl import UserRecord, encode_kpl, is_kpl, user_records
from headwater.codec.records import (
    Content,
    Contents,
    Decoder,
    Unit,
    decode_contents,
    decode_record,
    decode_units,
    decoder_units,
    is_plain,
    is_plain_object,
    json_payloads,
    row_units,
)
from headwater.contract import InvalidRow

__all__ = [
    "Content",
    "Contents",
    "Control",
    "Decoded",
    "Decoder",
    "InvalidRow",
    "OtherContract",
    "Unit",
    "UserRecord",
    "decode_contents",
    "decode_payloads",
    "decode_record",
    "decode_units",
    "decoder_units",
    "encode_batch",
    "encode_control",
    "encode_kpl",
    "event_bodies",
    "event_json",
    "is_kpl",
    "is_plain",
    "is_plain_object",
    "json_payloads",
    "json_row",
    "row_units",
    "user_records",
]
