"""What a Kinesis record carries, in bytes: columnar batches, JSON, KPL aggregates, control records.

Pure: bytes in, Arrow tables out and back. Whatever the bytes, `decode_record` answers or raises `InvalidRecord`.
"""

from headwater.codec.columnar import OtherContract, encode_batch
from headwater.codec.control import Control, encode_control
from headwater.codec.decoded import Decoded
from headwater.codec.jsonrows import decode_payloads, event_json
from headwater.codec.kpl import encode_kpl
from headwater.codec.records import decode_record, json_payloads
from headwater.contract import InvalidRow

__all__ = [
    "Control",
    "Decoded",
    "InvalidRow",
    "OtherContract",
    "decode_payloads",
    "decode_record",
    "encode_batch",
    "encode_control",
    "encode_kpl",
    "event_json",
    "json_payloads",
]
