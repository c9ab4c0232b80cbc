"""Read blocks of JSON lines in the way the processor would read them."""

import json
from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from headwater.codec.jsonrows import decode_payloads, read_object
from headwater.contract import Contract
from headwater.errors import HeadwaterError, UsageError

__all__ = ["JsonLinesReader"]

_LINES = 50_000


class JsonLinesReader:
    """Read blocks one after the other and count the lines. `report` gets each row that breaks the contract."""

    def __init__(
        self, name: str, contract: Contract, ignore_unknown: bool, report: Callable[[int, str, bytes], None]
    ) -> None:
        self._name = name
        self._contract = contract
        self._ignore_unknown = ignore_unknown
        self._report = report
        self._known = {one for field in contract.fields for one in field.path[:1] or (field.name, *field.was)}
        self._line = 0
        self._begun = False

    def read(self, block: bytes) -> Iterator[pa.Table]:
        """Yield the events of a block of whole lines; empty lines count as lines but not as events."""
        if not self._line:
            block = block.removeprefix(b"\xef\xbb\xbf")
        lines = block.removesuffix(b"\n").split(b"\n")
        for at in range(0, len(lines), _LINES):
            yield self._events(lines[at : at + _LINES])

    def _events(self, lines: list[bytes]) -> pa.Table:
        numbers, payloads = [], []
        for line in lines:
            self._line += 1
            line = line.strip()
            if line:
                numbers.append(self._line)
                payloads.append(line)
        if payloads and not self._begun:
            self._begun = True
            self._check_first(payloads[0])
        readable = [self._without_unknown(one) for one in payloads] if self._ignore_unknown else payloads
        found = decode_payloads(readable, self._contract)
        for row in found.invalid:
            self._report(numbers[row.index], row.reason, payloads[row.index])
        # every line is put or reported: were it not so, an import would lose events and end with 0
        if found.table.num_rows + len(found.invalid) != len(payloads):
            raise HeadwaterError(f"{self._name}: lines up to {self._line} cannot be accounted for")
        return found.table

    def _check_first(self, line: bytes) -> None:
        """Raise UsageError when the first event has a field that the contract does not know."""
        event = _parsed(line)
        if self._ignore_unknown or event is None or self._contract.unknown != "refuse":
            return
        for name in event:
            if name not in self._known:
                shown = json.dumps(name)[1:-1][:80]
                raise UsageError(
                    f"{self._name}: field {shown} is not in contract {self._contract.name} v{self._contract.version}"
                )

    def _without_unknown(self, line: bytes) -> bytes:
        event = _parsed(line)
        if event is None or event.keys() <= self._known:
            return line
        return json.dumps({name: value for name, value in event.items() if name in self._known}).encode()


def _parsed(line: bytes) -> Mapping[str, object] | None:
    """Return the object of a line; None for what is refused, with its reason, where it is decoded."""
    event = read_object(line.removeprefix(b"\xef\xbb\xbf"))
    return None if isinstance(event, str) else event
