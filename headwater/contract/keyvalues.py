"""Tell whether a value, or which values of a column, are one key, however it is written or stored. Pure."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import whole
from headwater.contract.definition import Field
from headwater.contract.scalars import Refused
from headwater.contract.text import text_value
from headwater.contract.values import read_value
from headwater.contract.written import as_json
from headwater.errors import HeadwaterError

__all__ = ["KeyValue"]


class KeyValue:
    """Hold one value of a contract's key, given as text. Raise HeadwaterError for a text that no such key can have.

    `column` is its name, `text` its one way of writing. Bounds of the contract's field (minimum, values) do not
    matter: older events may lie outside.

    >>> key = KeyValue(Field("price", "decimal(5, 2)"), "1.5")
    >>> key.text, key.matches("1.500"), key.matches(1.5), key.matches("1.51")
    ('1.50', True, True, False)
    >>> key.among(pa.array(["1.5", None, "2"])).to_pylist()
    [True, False, False]
    """

    def __init__(self, field: Field, given: str) -> None:
        self.column = field.name
        self._field = Field(field.name, field.type)
        value = text_value(self._field, given)
        try:
            self._value = read_value(self._field, given if value is None else value)
        except Refused as refused:
            raise HeadwaterError(f"key: {refused}") from None
        if isinstance(self._value, float):
            self._value += 0.0  # one zero, which has no sign, lest it have two texts
        self.text: str = as_json(pa.chunked_array([self._array(field.arrow_type)])).cast(pa.string())[0].as_py()

    @property
    def is_text(self) -> bool:
        """Tell whether the key's field is of type string."""
        return self._field.type == "string"

    def matches(self, value: object) -> bool:
        """Tell whether a value, as text or as Python has its type, is this key."""
        if value is None or self.is_text:
            return value == self._value
        if isinstance(value, str):
            value = text_value(self._field, value)
        try:
            return value is not None and read_value(self._field, value) == self._value
        except Refused:
            return False

    def among(
        self, column: pa.Array | pa.ChunkedArray, is_key: Callable[[object], bool] | None = None
    ) -> pa.BooleanArray:
        """Return for each value of a column whether it is this key: of the field's type, or of another that has it.

        `is_key` tells it of each value of another type; `matches` does by default. Raise ArrowException, ValueError or
        OverflowError for a column whose values Python cannot have.
        """
        column = whole(column)
        if isinstance(column.type, pa.BaseExtensionType):
            column = column.cast(column.type.storage_type)
        if pa.types.is_dictionary(column.type):
            found = self.among(column.dictionary, is_key)
            return pc.fill_null(found.take(column.indices), False)
        if self._is_own(column.type):
            return pc.fill_null(pc.equal(column, self._array(column.type)[0]), False)
        coded = column.dictionary_encode()
        found = pa.array([(is_key or self.matches)(one) for one in coded.dictionary.to_pylist()], pa.bool_())
        return pc.fill_null(found.take(coded.indices), False)

    def _is_own(self, kind: pa.DataType) -> bool:
        """Tell whether values of a column are compared as they lie there."""
        own = self._field.arrow_type
        both = pa.types.is_timestamp(own) and pa.types.is_timestamp(kind)
        return bool(kind == own or (both and kind.unit == "us"))

    def _array(self, kind: pa.DataType) -> pa.Array:
        value = self._value
        if isinstance(value, UUID):
            value = value.bytes
        if isinstance(value, datetime) and kind.tz is None:
            value = value.replace(tzinfo=None)
        return pa.array([value], kind)
