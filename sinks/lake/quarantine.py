"""Name the pending files that cannot be added to their table, so that no number of them stops another.

A quarantined file stays pending in the ledger: nothing removes it from S3, the audit goes on counting its rows as
waiting, and the publisher tries it again at intervals. The ledger's document says which files these are, and why; of
very many it names some, and counts the others. All that were refused are remembered here while they are pending, and
files that were never tried go first, so bad files cost time and never keep a good one out.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass

from headwater.errors import Fenced
from headwater.ledger import PendingFile
from headwater.stores import DocumentReader, DocumentStore

__all__ = ["DOCUMENT", "Quarantine", "QuarantinedFile", "quarantined_files", "unnamed_files"]

DOCUMENT = "quarantine"
_FIRST_RETRY_MS = 5_000
"""Pause before a quarantined file is tried once more. It may be well: an answer of S3 that is cut in its headers is one
of an object without bytes. Four times as long before each further try."""
_RETRY_MS = 600_000
"""Longest pause between two tries: each costs a read of S3 or two."""
_MAX_NAMED = 400
"""Most files that the document names, at about 500 bytes each: an item holds 400 KB."""
_MAX_FRESH = 1_000
"""Most files that a step tries for the first time: the rest waits for the next, so that every step ends."""
_MAX_AGAIN = _MAX_NAMED
"""Most files that a step tries again: all that are named, so that one which begins anew each time forgets none."""
_MAX_REASON = 300


@dataclass(frozen=True)
class QuarantinedFile:
    """Name a pending file that cannot be added: since when (epoch ms), and why."""

    uri: str
    table: str
    rows: int
    bytes: int
    reason: str
    since_ms: int


def quarantined_files(documents: DocumentReader) -> list[QuarantinedFile]:
    """Return the quarantined files of a pipeline, the oldest first."""
    found = [QuarantinedFile(**one) for one in documents.document(DOCUMENT)[0].get("files", ())]
    return sorted(found, key=lambda one: (one.since_ms, one.uri))


def unnamed_files(documents: DocumentReader) -> int:
    """Return how many files are quarantined beside those that `quarantined_files` names."""
    return int(documents.document(DOCUMENT)[0].get("unnamed", 0))


class Quarantine:
    """Keep the quarantined files of one pipeline. The ledger is written only when something changes."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._files: dict[str, QuarantinedFile] | None = None
        self._unnamed = 0
        self._tried: dict[str, tuple[int, int]] = {}
        """When each refused file was tried last, named or not, and the pause from then on; no more than are pending."""

    def __contains__(self, uri: str) -> bool:
        """Return whether the file is quarantined."""
        return uri in self._tried or uri in self._known()

    def due(self, uris: Sequence[str], now_ms: int, start: int) -> tuple[list[str], int]:
        """Return the files to try now, and the place to start from the next time.

        Files that were never tried go first, from place `start` on and around: who remembers nothing of former tries,
        because it begins anew for each step, comes to every file all the same.
        """
        known, count = self._known(), max(1, len(uris))
        places = [(start + at) % count for at in range(len(uris))]
        fresh = [at for at in places if uris[at] not in self._tried and uris[at] not in known]
        again = [uris[at] for at in places if uris[at] in self]
        again = [uri for uri in again if now_ms >= sum(self._tried.get(uri, (0, 0)))]
        again.sort(key=lambda uri: self._tried.get(uri, (0, 0)))
        now, later = fresh[:_MAX_FRESH], fresh[_MAX_FRESH:]
        return [*(uris[at] for at in now), *again[:_MAX_AGAIN]], later[0] if later else 0

    def since(self, uri: str) -> int | None:
        """Return since when the file is quarantined, epoch ms; None when it is not."""
        found = self._known().get(uri)
        return None if found is None else found.since_ms

    def update(self, refused: Mapping[str, str], files: Sequence[PendingFile], gone: Set[str], now_ms: int) -> None:
        """Quarantine refused files, each with its reason, and release those that are `gone`.

        `files` are the pending files of all tables. What is neither pending nor refused is released as well.
        """
        known = self._known()
        pending = {file.uri: file for file in files}
        self._tried = {uri: tried for uri, tried in self._tried.items() if uri in pending and uri not in gone}
        kept = {uri: one for uri, one in known.items() if uri in pending and uri not in gone}
        for uri, reason in refused.items():
            pause = 4 * self._tried[uri][1] if uri in self._tried else _FIRST_RETRY_MS
            self._tried[uri] = now_ms, min(pause, _RETRY_MS)
            if uri not in kept and len(kept) < _MAX_NAMED:
                file = pending[uri]
                kept[uri] = QuarantinedFile(
                    uri, file.table, file.rows, file.bytes, _shortened(reason), self.since(uri) or now_ms
                )
        unnamed = len(self._tried.keys() - kept.keys())
        if kept.keys() != known.keys() or unnamed != self._unnamed:
            self._write(kept, unnamed)

    def _known(self) -> dict[str, QuarantinedFile]:
        if self._files is None:
            self._files = {one.uri: one for one in quarantined_files(self._documents)}
        return self._files

    def _write(self, files: dict[str, QuarantinedFile], unnamed: int) -> None:
        _, revision = self._documents.document(DOCUMENT)
        document = {"files": [asdict(one) for one in files.values()], "unnamed": unnamed}
        try:
            self._documents.put_document(DOCUMENT, document, revision)
            self._files, self._unnamed = files, unnamed
        except Fenced:
            self._files = None  # another publisher has written it: what it says is read at the next step


def _shortened(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"
