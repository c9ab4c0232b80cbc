"""Look at columns of lists, maps and structs part by part, as columns, without reading their values. Pure."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints
from headwater.contract.nested import PART_BYTES
from headwater.contract.types import MOST_DIGITS, Kind, Member

__all__ = ["has_odd_decimal", "is_alike", "is_sound", "nested_sizes", "parts", "unviewed_type"]

IsSoundLeaf = Callable[[Kind, pa.Array], bool]
_INTEGERS = ("int", "long")


def has_odd_decimal(arrow: pa.DataType) -> bool:
    """Tell whether the type is a decimal of more digits behind the point than digits, or of fewer than none, or has one
    within. Arrow neither casts nor reads such safely: it looks up ten to the power of the scale in a table, unbounded.

    >>> has_odd_decimal(pa.list_(pa.decimal128(38, 39))), has_odd_decimal(pa.decimal128(38, 38))
    (True, False)
    """
    if pa.types.is_decimal(arrow):
        return not 0 <= arrow.scale <= arrow.precision
    if pa.types.is_dictionary(arrow):
        return has_odd_decimal(arrow.value_type)
    if isinstance(arrow, pa.BaseExtensionType):
        return has_odd_decimal(arrow.storage_type)
    return any(has_odd_decimal(arrow.field(at).type) for at in range(arrow.num_fields))


def is_alike(kind: Kind, arrow: pa.DataType) -> bool:
    """Tell whether Arrow casts a column of that type to ours without reading a value as another.

    Arrow itself would write numbers as texts, and drop fields of a struct that ours does not have.
    """
    types = pa.types
    if kind.name == "list":
        lists = types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow)
        return bool(lists) and is_alike(kind.members[0].kind, arrow.value_type)
    if kind.name == "map":
        plain = types.is_map(arrow) and types.is_string(arrow.key_type)
        return bool(plain) and is_alike(kind.members[0].kind, arrow.item_type)
    if kind.name == "struct":
        if not types.is_struct(arrow):
            return False
        there = {arrow.field(at).name: arrow.field(at).type for at in range(arrow.num_fields)}
        ours = {one.name: one for one in kind.members}
        lacking = any(one.required for name, one in ours.items() if name not in there)
        same = len(there) == arrow.num_fields and there.keys() <= ours.keys() and not lacking
        return same and all(is_alike(ours[name].kind, type_) for name, type_ in there.items())
    return _is_leaf_alike(kind, arrow)


def _is_leaf_alike(kind: Kind, arrow: pa.DataType) -> bool:
    types = pa.types
    if kind.name == "json":
        return False
    if arrow == kind.arrow:
        return True
    if kind.name == "string":
        return _is_text(arrow)
    if kind.name == "binary":
        return bool(types.is_large_binary(arrow) or types.is_binary_view(arrow))
    if kind.name == "uuid":
        return isinstance(arrow, pa.UuidType)
    if kind.name == "decimal":
        # what is scaled up beyond 128 bits wraps, and Arrow does not notice
        decimal = types.is_decimal(arrow) and not has_odd_decimal(arrow)
        return bool(decimal) and arrow.precision + max(0, kind.scale - arrow.scale) <= MOST_DIGITS
    # a finer time is cut off value by value: Arrow would refuse it
    return bool(
        (kind.name in _INTEGERS and types.is_integer(arrow)) or (kind.name == "double" and types.is_float32(arrow))
    )


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))


def unviewed_type(arrow: pa.DataType) -> pa.DataType:
    """Return the type with plain texts and bytes in place of views.

    >>> unviewed_type(pa.list_(pa.string_view())).value_type
    DataType(string)
    """
    types = pa.types
    if types.is_string_view(arrow):
        return pa.string()
    if types.is_binary_view(arrow):
        return pa.binary()
    if types.is_list(arrow):
        return pa.list_(_unviewed_field(arrow.value_field))
    if types.is_large_list(arrow):
        return pa.large_list(_unviewed_field(arrow.value_field))
    if types.is_fixed_size_list(arrow):
        return pa.list_(_unviewed_field(arrow.value_field), arrow.list_size)
    if types.is_map(arrow):
        return pa.map_(_unviewed_field(arrow.key_field), _unviewed_field(arrow.item_field))
    if types.is_struct(arrow):
        return pa.struct([_unviewed_field(arrow.field(at)) for at in range(arrow.num_fields)])
    return arrow


def _unviewed_field(field: pa.Field) -> pa.Field:
    return field.with_type(unviewed_type(field.type))


def is_sound(kind: Kind, column: pa.Array, leaf: IsSoundLeaf) -> bool:
    """Tell whether a column of the type has only what the type takes; `leaf` says so of texts, numbers and so on."""
    if kind.name == "list":
        return _is_sound_part(kind.members[0], column.flatten(), leaf)
    if kind.name == "map":
        lengths, keys, items = parts(column)
        rows = np.repeat(np.arange(len(column)), lengths)
        coded = keys.dictionary_encode()
        pairs = rows * max(1, len(coded.dictionary)) + coded.indices.fill_null(0).to_numpy()
        once = len(np.unique(pairs)) == len(pairs)
        return once and keys.null_count == 0 and _is_sound_part(kind.members[0], items, leaf)
    if kind.name == "struct":
        there = column.drop_null()
        children = zip(kind.members, there.flatten(), strict=True)
        return all(_is_sound_part(one, child, leaf) for one, child in children)
    return leaf(kind, column)


def _is_sound_part(member: Member, column: pa.Array, leaf: IsSoundLeaf) -> bool:
    return not (member.required and column.null_count) and is_sound(member.kind, column, leaf)


def parts(column: pa.Array) -> tuple[Ints, pa.Array, pa.Array]:
    """Return of a list or map column how many parts each row has, 0 where it is null, and the keys and values of all.

    Of a list the keys are the values.
    """
    if pa.types.is_map(column.type):
        entries = pa.struct([pa.field("key", column.type.key_type), pa.field("value", column.type.item_type)])
        column = column.cast(pa.list_(entries))
        lengths, _, found = parts(column)
        keys, values = found.flatten()
        return lengths, keys, values
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    found = column.flatten()
    return lengths, found, found


def nested_sizes(column: pa.Array) -> Ints:
    """Return what each row's value takes, as `nested_size` has it of one that was read; 0 for null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        taken: Ints = pc.fill_null(pc.take(pa.array(nested_sizes(column.dictionary)), column.indices), 0).to_numpy()
        return taken
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        lengths, keys, values = parts(column)
        inner = nested_sizes(values) + PART_BYTES
        if pa.types.is_map(kind):
            inner = inner + nested_sizes(keys)
        ends = np.cumsum(lengths)
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(inner)])
        sizes: Ints = total[ends] - total[ends - lengths]
        return sizes
    valid: Ints = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_struct(kind):
        children = [nested_sizes(one) + PART_BYTES for one in column.flatten()]
        return sum(children, np.zeros(len(column), np.int64)) * valid
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        valid = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    else:
        valid = valid * PART_BYTES
    return valid
