"""Read contracts from YAML. Every fault is one line: the file, the line and the reason."""

import re
from collections.abc import Callable, Hashable
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from headwater.arguments import check_arguments, duration_ms
from headwater.contract.definition import Contract, Field, OwnId
from headwater.errors import InvalidContract, UsageError

__all__ = ["load_contract", "parse_contract", "shipped"]

_SHIPPED = Path(__file__).with_name("shipped")
_CONTRACT_KEYS = {"name", "version", "description", "key", "time", "id", "fields", "unknown"}
_FIELD_KEYS = {"name", "type", "required", "doc", "unit", "minimum", "maximum", "values", "was"}
_FIELD_KEYS |= {"from", "epoch", "format", "earliest", "ahead", "max_bytes"}
_ID_KEYS = {"origin", "seq", "partitions"}

Made = TypeVar("Made")


def shipped() -> list[str]:
    """Return the names of the contracts that come with the package."""
    return sorted(file.stem for file in _SHIPPED.glob("*.yaml"))


def load_contract(path: str | Path) -> Contract:
    """Load the contract in a file, or the shipped one of that name.

    Shipped are `telemetry`, `flights`, `otel_logs`, `otel_metrics` and `otel_spans`.

    Raise InvalidContract, which is a UsageError, in one line that names the file and the place in it.

    >>> load_contract("telemetry").name
    'telemetry'
    """
    check_arguments(load_contract, locals(), path="the path of a contract file or the name of a shipped contract")
    file = _SHIPPED / f"{path}.yaml" if path in shipped() else Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        names = ", ".join(shipped())
        raise InvalidContract(f"{path}: no such contract file (shipped contracts: {names})") from None
    except UnicodeDecodeError:
        raise InvalidContract(f"{path}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise InvalidContract(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return parse_contract(text, str(path))


def parse_contract(text: str, where: str) -> Contract:
    """Read the contract in YAML text; `where` names it in errors."""
    try:
        document = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidContract(f"{where}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidContract(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, _Mapping):
        raise InvalidContract(f"{where}: a contract is a mapping with name, version, key, time and fields")
    return _contract(document, where)


class _Mapping(dict[str, Any]):
    """Hold a YAML mapping with the lines of its keys, and its own."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class _Loader(yaml.SafeLoader):
    """Read safe YAML in which a key given twice is an error, not silently the last one."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> _Mapping:
    loader.flatten_mapping(node)
    made = _Mapping(node.start_mark.line + 1)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable) or not isinstance(key, str):
            raise yaml.MarkedYAMLError(None, None, f"the key {key!r} is not text", key_node.start_mark)
        if key in made:
            raise yaml.MarkedYAMLError(None, None, f"{key} is given twice", key_node.start_mark)
        made[key] = loader.construct_object(value_node, deep=True)
        made.lines[key] = key_node.start_mark.line + 1
    return made


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _contract(document: _Mapping, where: str) -> Contract:
    _check_keys(document, "the contract", where, _CONTRACT_KEYS, ("name", "version", "key", "time", "fields"))
    listed = document["fields"]
    if not isinstance(listed, list):
        raise InvalidContract(f"{where}:{document.lines['fields']}: fields is not a list")
    fields = []
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, _Mapping):
            line = document.lines["fields"]
            raise InvalidContract(f"{where}:{line}: field {number} is not a mapping such as {{name: a, type: string}}")
        fields.append(_field(entry, number, where))
    names = _texts(document, where, "name", "key", "time", "description", "unknown")
    own = _own_id(document, where)

    def place(reason: str) -> int:
        head = reason.split(":")[0].split(" ")
        if head[0] == "field" and len(head) > 1:
            return next((e.lines["name"] for e in listed if e["name"] == head[1]), document.line)
        return document.lines.get(head[0], document.line)

    version = document["version"]
    return _placed(where, place, lambda: Contract(version=version, fields=tuple(fields), id=own, **names))


def _field(entry: _Mapping, number: int, where: str) -> Field:
    _check_keys(entry, f"field {entry.get('name', number)}", where, _FIELD_KEYS, ("name", "type"))
    texts = _texts(entry, where, "name", "type", "doc", "unit", "epoch", "format")
    required = entry.get("required", True)
    if not isinstance(required, bool):
        raise InvalidContract(f"{where}:{entry.lines['required']}: field {texts['name']}: required is true or false")
    lists: dict[str, Any] = {}
    for key in ("values", "was"):
        listed = entry.get(key, [])
        listed = [listed] if key == "was" and isinstance(listed, str) else listed
        if not isinstance(listed, list) or any(isinstance(value, list | dict) for value in listed):
            raise InvalidContract(f"{where}:{entry.lines[key]}: field {texts['name']}: {key} is not a list of values")
        lists[key] = tuple(listed)

    def place(reason: str) -> int:
        words = reason.split(": ", 1)[-1].split(" ")
        return next((entry.lines[key] for key in entry if words[0] in (key, key.rstrip("s"))), entry.line)

    more: dict[str, Any] = {key: entry.get(key) for key in ("minimum", "maximum")}
    if "from" in entry:
        path = entry["from"]
        # a list, or quotes, take names that have a point in them
        more["path"] = _path(path) if isinstance(path, str) else tuple(path) if isinstance(path, list) else path
    if "max_bytes" in entry:
        more["max_bytes"] = entry["max_bytes"]
    if "earliest" in entry:
        more["earliest_ms"] = _earliest_ms(entry, where)
    if "ahead" in entry:
        more["ahead_ms"] = _ahead_ms(entry, where)
    return _placed(where, place, lambda: Field(required=required, **texts, **more, **lists))


def _path(text: str) -> tuple[str, ...]:
    """Return the names of a path with points, in which a name may stand in quotes."""
    found = re.findall(r'(?:^|\.)(?:"([^"]*)"|([^."][^.]*))(?=\.|$)', text)
    names = tuple(quoted or plain for quoted, plain in found)
    # what is not taken apart whole is left for the field to refuse
    return names if sum(map(len, names)) + text.count('"') + len(names) - 1 == len(text) else (text, "")


def _earliest_ms(entry: _Mapping, where: str) -> int:
    """Return the first moment of a date, epoch ms."""
    day = entry["earliest"]
    if not isinstance(day, date) or isinstance(day, datetime):
        line = entry.lines["earliest"]
        raise InvalidContract(f"{where}:{line}: field {entry['name']}: earliest is no date such as 1970-01-01")
    return (day - date(1970, 1, 1)).days * 86_400_000


def _ahead_ms(entry: _Mapping, where: str) -> int:
    try:
        return duration_ms(entry["ahead"])
    except UsageError as error:
        line = entry.lines["ahead"]
        raise InvalidContract(f"{where}:{line}: field {entry['name']}: ahead: {error}") from None


def _own_id(document: _Mapping, where: str) -> OwnId | None:
    own = document.get("id")
    if own is None:
        return None
    line = document.lines["id"]
    if isinstance(own, str):
        return OwnId(own)
    if not isinstance(own, _Mapping):
        raise InvalidContract(f"{where}:{line}: id is neither a field nor a mapping such as {{origin: device, seq: n}}")
    _check_keys(own, "id", where, _ID_KEYS, ("origin",))
    texts = _texts(own, where, "origin", "seq")
    return _placed(where, lambda _: line, lambda: OwnId(partitions=own.get("partitions", 16), **texts))


def _check_keys(found: _Mapping, what: str, where: str, known: set[str], needed: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            keys = ", ".join(sorted(known))
            raise InvalidContract(f"{where}:{found.lines[key]}: {what}: unknown key {key!r:.60} (known: {keys})")
    missing = [key for key in needed if key not in found]
    if missing:
        raise InvalidContract(f"{where}:{found.line}: {what} has no {', no '.join(missing)}")


def _texts(found: _Mapping, where: str, *keys: str) -> dict[str, Any]:
    """Return those of the keys that are there; each has to be text."""
    for key in keys:
        if key in found and not isinstance(found[key], str):
            raise InvalidContract(f"{where}:{found.lines[key]}: {key} is not text: {found[key]!r:.60}")
    return {key: found[key].strip() if key in ("doc", "description") else found[key] for key in keys if key in found}


def _placed(where: str, place: Callable[[str], int], make: Callable[[], Made]) -> Made:
    try:
        return make()
    except InvalidContract as error:
        raise InvalidContract(f"{where}:{place(str(error))}: {error}") from None
