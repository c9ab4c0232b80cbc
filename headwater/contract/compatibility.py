"""Compare two versions of a contract: every event that conforms to the old one has to conform to the new one."""

from dataclasses import replace

from headwater.contract.definition import INTEGER_BOUNDS, Contract, Field, Number
from headwater.contract.types import NESTED, Kind

__all__ = ["check_compatible"]

_WIDENED = {("int", "long"), ("float", "double")}


def check_compatible(old: Contract, new: Contract) -> list[str]:
    """Return why `new` may not follow `old`, one line each; an empty list when it may.

    May change: texts, the order of fields, a new optional field, required to optional, int to long, float to double, a
    decimal's precision up at the same scale, the parts of lists, maps and structs by these same rules, wider bounds and
    values, a new name with the old one in `was`.

    >>> from dataclasses import replace
    >>> from headwater.contract import load_contract
    >>> old = load_contract("telemetry")
    >>> check_compatible(old, replace(old, version=old.version + 1))
    []
    """
    faults = _version_faults(old, new)
    if old.name != new.name:
        faults.append(f"the name changes from {old.name} to {new.name}")
    successors = {name: field for field in new.fields for name in (field.name, *field.was)}
    for field in old.fields:
        successor = successors.get(field.name)
        if successor is None:
            faults.append(f"field {field.name} is removed (renamed? then list it in `was` of the new name)")
        else:
            faults += _field_faults(field, successor)
    taken = {successors[field.name].name for field in old.fields if field.name in successors}
    for field in new.fields:
        if field.required and field.name not in taken:
            faults.append(f"field {field.name} is new and required: earlier events do not have it")
    return faults + _role_faults(old, new, successors)


def _version_faults(old: Contract, new: Contract) -> list[str]:
    if new.version < old.version:
        return [f"version {new.version} comes after version {old.version}"]
    if new.version == old.version and _content(new) != _content(old):
        return [f"the content changes and the version stays {old.version}"]
    return []


def _content(contract: Contract) -> Contract:
    """Return the contract without its texts."""
    return replace(
        contract,
        description="",
        fields=tuple(replace(field, doc="") for field in contract.fields),
    )


def _field_faults(old: Field, new: Field) -> list[str]:
    where = f"field {old.name}"
    faults = []
    changed = _kind_faults(where, old.kind, new.kind)
    if changed:
        return changed
    if new.required and not old.required:
        faults.append(f"{where} becomes required: earlier events may lack it")
    lost = [name for name in old.was if name not in (new.name, *new.was)]
    if lost:
        faults.append(f"{where} no longer lists its earlier name {', '.join(lost)}")
    if old.unit and new.unit and old.unit != new.unit:
        faults.append(f"{where} changes its unit from {old.unit} to {new.unit}: use a new field")
    if old.path != new.path:
        faults.append(f"{where} is read from another place: {_path(old)} becomes {_path(new)}")
    if (old.epoch, old.format) != (new.epoch, new.format):
        faults.append(f"{where} reads times otherwise: epoch and format stay")
    if new.max_bytes < old.max_bytes:
        faults.append(f"{where} takes fewer bytes: {old.max_bytes} becomes {new.max_bytes}")
    if new.earliest_ms > old.earliest_ms:
        faults.append(f"{where} has a later earliest time")
    if new.ahead_ms < old.ahead_ms:
        faults.append(f"{where} may be less far ahead")
    return faults + _range_faults(where, old, new)


def _kind_faults(where: str, old: Kind, new: Kind) -> list[str]:
    """Return why a type may not follow another; of lists, maps and structs part by part."""
    if old.name == new.name and old.name in NESTED:
        return _part_faults(where, old, new)
    if (old.name, new.name) == ("decimal", "decimal"):
        wider = old.scale == new.scale and old.precision <= new.precision
    else:
        wider = old == new or (old.name, new.name) in _WIDENED
    return [] if wider else [f"{where} changes from {old.text} to {new.text}"]


def _part_faults(where: str, old: Kind, new: Kind) -> list[str]:
    faults = []
    there, before = {one.name: one for one in new.members}, {one.name for one in old.members}
    for one in old.members:
        place = f"{where}.{one.name}"
        other = there.get(one.name)
        if other is None:
            faults.append(f"{place} is removed")
            continue
        faults += _kind_faults(place, one.kind, other.kind)
        if other.required and not one.required:
            faults.append(f"{place} becomes required: earlier events may lack it")
    added = [one.name for one in new.members if one.name not in before and one.required]
    return faults + [f"{where}.{name} is new and required: earlier events do not have it" for name in added]


def _path(field: Field) -> str:
    return ".".join(field.path) or field.name


def _range_faults(where: str, old: Field, new: Field) -> list[str]:
    faults = []
    (old_low, old_high), (new_low, new_high) = old.bounds, new.bounds
    # A whole number has the bounds of its type when it has no others.
    type_low, type_high = INTEGER_BOUNDS.get(old.type, (None, None))
    old_low = type_low if old_low is None else old_low
    old_high = type_high if old_high is None else old_high
    if old.values and old.type in INTEGER_BOUNDS:
        numbers = [value for value in old.values if isinstance(value, int)]
        old_low, old_high = min(numbers), max(numbers)
    if new_low is not None and (old_low is None or new_low > old_low):
        faults.append(f"{where} has a higher minimum: {_bound(old.minimum)} becomes {new.minimum}")
    if new_high is not None and (old_high is None or new_high < old_high):
        faults.append(f"{where} has a lower maximum: {_bound(old.maximum)} becomes {new.maximum}")
    if new.values:
        lost = [str(value) for value in old.values if value not in new.values]
        if not old.values or lost:
            faults.append(f"{where} allows fewer values: {', '.join(lost) or 'any'} no longer")
    return faults


def _bound(bound: Number | None) -> str:
    return "none" if bound is None else str(bound)


def _role_faults(old: Contract, new: Contract, successors: dict[str, Field]) -> list[str]:
    def renamed(name: str | None) -> str | None:
        return successors[name].name if name in successors else name

    faults = []
    for role, before, after in (("key", old.key, new.key), ("time", old.time, new.time)):
        if renamed(before) != after:
            faults.append(f"the {role} changes from {before} to {after}")
    own = None if old.id is None else replace(old.id, origin=str(renamed(old.id.origin)), seq=renamed(old.id.seq))
    if old.unknown != "refuse" and new.unknown == "refuse":
        faults.append("unknown fields are refused now: earlier events may have some")
    if old.unknown not in ("refuse", "ignore") and renamed(old.unknown) != new.unknown:
        faults.append(f"unknown fields are no longer kept in {old.unknown}")
    if own != new.id:
        faults.append("the id changes: events that were taken would not be recognised")
    return faults
