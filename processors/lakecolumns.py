"""Tell processors the numbers of the lake table's columns: the publisher, who has the table, writes them down.

A processor needs no catalog for that, and no pyiceberg. What it knows may be older than the table: a file that has a
column's number from before a table was made anew is refused by the publisher, with its reason.
"""

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import HeadwaterError
from headwater.sinks.lake.fieldids import FieldIds
from headwater.stores import DocumentReader, DocumentStore

__all__ = ["SaidColumns", "say_columns"]

_DOCUMENT = "lake-columns"


def say_columns(documents: DocumentStore, columns: FieldIds) -> None:
    """Write the numbers of the table's columns down for `SaidColumns`."""
    new = {"columns": list(columns)}
    documents.change(_DOCUMENT, lambda old: None if old == new else new)


class SaidColumns:
    """Return the numbers that the publisher has written down last, each time anew; none before it has.

    Nothing depends on them: when the ledger does not answer, the last ones serve.
    """

    def __init__(self, documents: DocumentReader) -> None:
        self._documents = documents
        self._known: FieldIds = ()

    def __call__(self) -> FieldIds:
        try:
            document, _ = self._documents.document(_DOCUMENT)
            self._known = document.get("columns", ())
        except (HeadwaterError, BotoCoreError, ClientError):
            pass
        return self._known
