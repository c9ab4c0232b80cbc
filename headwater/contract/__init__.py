"""The contract: one versioned definition of an event type, and everything that follows from it.

A contract is read from YAML (`load_contract`). Events are held to it row by row (`validate_row`) or a table at a time
(`conform`); the two accept the same events and give the same values.
"""

from headwater.contract.compatibility import check_compatible
from headwater.contract.conform import Conformed, InvalidRow, conform
from headwater.contract.definition import Contract, Field, OwnId
from headwater.contract.jsonschema import json_schema
from headwater.contract.parsing import load_contract, parse_contract
from headwater.contract.rows import validate_row

__all__ = [
    "Conformed",
    "Contract",
    "Field",
    "InvalidRow",
    "OwnId",
    "check_compatible",
    "conform",
    "json_schema",
    "load_contract",
    "parse_contract",
    "validate_row",
]
