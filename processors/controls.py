"""Tell true control records from forged ones: by the stream's key, and by what the ledger says.

Whoever may write to the stream may write a record that says it is a receipt or a reference table's new version. What
producers accepted is known to them alone, so a receipt is true when it is signed. Which versions of a table there are
is known to the ledger, which is written before a version is announced, so its document decides. Both answer the same
whenever a record is read again.
"""

from typing import Any

from headwater.codec.control import Control, is_signed
from headwater.processors.engine.controls import ReferenceVersion, bound_version, read_reference
from headwater.processors.references import DOCUMENT
from headwater.stores import DocumentReader

__all__ = ["ControlCheck"]


class ControlCheck:
    """Say why a control record is forged, None where it is true. Safe to share between threads.

    `key` is that of the stream, `ledger` the pipeline's part of the ledger. Another pipeline's versions are not looked
    up: the engine leaves them alone.
    """

    def __init__(self, key: bytes, pipeline: str, ledger: DocumentReader) -> None:
        self._key, self._pipeline, self._ledger = key, pipeline, ledger
        self._known: dict[str, Any] = {}

    def __call__(self, control: Control) -> str | None:
        """Return the reason; ValueError where the record is signed and makes no sense."""
        if not is_signed(control, self._key):
            return "signed with another key" if control.mac else "not signed"
        if control.kind == "reference":
            version = read_reference(control.body)
            if version.owner in (None, self._pipeline) and not self._is_published(version):
                return f"the ledger has no version {version.version} of reference table {version.name} at its URI"
        return None

    def _is_published(self, found: ReferenceVersion) -> bool:
        known = self._latest(found.name)
        if known is None or int(known["version"]) < found.version:
            # published since: a version is in the ledger before it is announced
            self._known = self._ledger.document(DOCUMENT)[0]
            known = self._latest(found.name)
        if known is None or int(known["version"]) < found.version:
            return False
        if int(known["version"]) == found.version:
            return str(known["uri"]) == found.uri
        # an earlier one: the ledger says how many there were and where; the file's name which of them it is
        folder = str(known["uri"]).rpartition("/")[0]
        return bound_version(found.name, found.uri) == found.version and found.uri.rpartition("/")[0] == folder

    def _latest(self, name: str) -> dict[str, Any] | None:
        table = self._known.get(name)
        return table["latest"] if table else None
