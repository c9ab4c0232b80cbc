"""Keep the versions of reference tables: where they lie, and how a new one takes effect.

A version is a Parquet file in the lake bucket, named by its content and never changed. The first one is fixed once per
pipeline in the ledger, so that every shard, whenever it is met, starts with the same. A later one enters by a control
record on every shard: which version an event is joined with is decided by the stream, and a replay joins as the first
pass did.
"""

import hashlib
import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.ports import ClientFactory
from headwater.stores import DocumentStore, ObjectStore

__all__ = [
    "DOCUMENT",
    "Announce",
    "ReferenceLoader",
    "check_sources",
    "ensure_initial",
    "publish",
    "publish_all",
    "read_source",
    "read_table",
]

DOCUMENT = "references"
"""Name of the ledger document, which has by table {"initial": {"version", "uri"}, "latest": {"version", "uri"}}."""

log = logging.getLogger("headwater.references")


Announce = Callable[[str, dict[str, Any]], object]
"""Puts a control record, given by kind and body, on every open shard of the stream."""


_NOT_THERE = frozenset({"NoSuchKey", "NoSuchBucket", "404", "AccessDenied", "403"})


class ReferenceLoader:
    """Load versions by name and URI, each once. Safe to share between threads.

    Calling it raises UsageError for a version that is not there or that is no such table.
    """

    def __init__(self, pipeline: Pipeline, objects: ObjectStore) -> None:
        self._references = {reference.name: reference for reference in pipeline.references}
        self._objects = objects
        self._loaded: dict[str, ReferenceTable] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, uri: str) -> ReferenceTable:
        """Return one version of a reference table, from memory where it was read before."""
        with self._lock:
            if uri not in self._loaded:
                self._loaded[uri] = self._read(name, uri)
            return self._loaded[uri]

    def _read(self, name: str, uri: str) -> ReferenceTable:
        """Read a version. Its URI comes from a control record, which anybody who may write to the stream may write."""
        key = uri.removeprefix("s3://").partition("/")[2]
        try:
            return ReferenceTable.of(self._references[name], pq.read_table(io.BytesIO(self._objects.get(key))))
        except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
            reason = f"{type(error).__name__}: {error}"
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NOT_THERE:
                raise
            reason = str(error)
        raise UsageError(f"reference table {name}: there is no version at {uri[:200]} that can be read: {reason[:200]}")


def ensure_initial(pipeline: Pipeline, ledger: DocumentStore, objects: ObjectStore, client: ClientFactory) -> None:
    """Fix the first version of each reference table of the pipeline, unless it is fixed already."""

    def fixed(document: dict[str, Any]) -> dict[str, Any] | None:
        missing = [reference for reference in pipeline.references if reference.name not in document]
        for reference in missing:
            copy = _copied(pipeline, reference, reference.source, client)
            version = {"version": 1, "uri": copy.put(1, objects)}
            document[reference.name] = {"initial": version, "latest": version}
        return document if missing else None

    ledger.change(DOCUMENT, fixed)


def check_sources(pipeline: Pipeline) -> None:
    """Raise UsageError for a pipeline without a lake table, and for a reference table whose file cannot be one.

    What lies in S3 and DynamoDB is left to the start of the pipeline.
    """
    _ = pipeline.lake_to
    for reference in pipeline.references:
        if "://" not in reference.source:
            read_table(reference, reference.source, _no_client)


def _no_client(service: str) -> Never:
    raise AssertionError(f"a file needs no {service}")


def read_table(reference: Reference, source: str, client: ClientFactory) -> ReferenceTable:
    """Read a source as the reference table; UsageError when it cannot be one."""
    found = ReferenceTable.of(reference, read_source(source, reference.name, client))
    try:
        _ = found.keys, found.columns
    except pa.ArrowException as error:
        raise UsageError(f"reference table {reference.name} ({source}): {error}") from error
    return found


def publish(
    pipeline: Pipeline,
    name: str,
    source: str | None,
    ledger: DocumentStore,
    objects: ObjectStore,
    client: ClientFactory,
    announce: Announce,
) -> dict[str, Any] | None:
    """Make the source's content a new version and announce it on every shard; return None when it has not changed.

    `source` is the table's own where it is None. The ledger is written before the announcement: a crash in between is
    mended by publishing again, which announces the same version once more.
    """
    reference = next((reference for reference in pipeline.references if reference.name == name), None)
    if reference is None:
        known = [reference.name for reference in pipeline.references]
        raise UsageError(f"pipeline {pipeline.name} has no reference table {name!r}; it has {known}")
    ensure_initial(pipeline, ledger, objects, client)
    copy = _copied(pipeline, reference, source or reference.source, client)
    document, revision = ledger.document(DOCUMENT)
    latest = document[name]["latest"]
    # also a name without a version, of before, ends with the digest
    if not str(latest["uri"]).endswith(f"{copy.digest}.parquet"):
        version = int(latest["version"]) + 1
        latest = {"version": version, "uri": copy.put(version, objects)}
        document[name]["latest"] = latest | {"announced": False}
        revision = ledger.put_document(DOCUMENT, document, revision)
    elif latest.get("announced", True):
        return None
    body = {"name": name, "version": latest["version"], "uri": latest["uri"]}
    announce("reference", body)
    document[name]["latest"] = {"version": latest["version"], "uri": latest["uri"]}
    ledger.put_document(DOCUMENT, document, revision)
    # a log record has a name of its own
    log.info("reference table published", extra={"table": name, "version": body["version"], "uri": body["uri"]})
    return body


def publish_all(
    pipeline: Pipeline, ledger: DocumentStore, objects: ObjectStore, client: ClientFactory, announce: Announce
) -> None:
    """Publish a new version of each reference table whose source has changed."""
    for reference in pipeline.references:
        publish(pipeline, reference.name, None, ledger, objects, client, announce)


@dataclass(frozen=True)
class _Copy:
    """Hold a source as a checked Parquet file, to be put into the bucket."""

    head: str
    body: bytes

    @property
    def digest(self) -> str:
        """Return a digest of the content."""
        return hashlib.sha256(self.body).hexdigest()[:16]

    def put(self, version: int, objects: ObjectStore) -> str:
        """Write the file under a name that binds it to the version; return its URI.

        A reader takes a version only from a file whose name says so: see `ReferenceVersion.replaces`.
        """
        return objects.put(f"{self.head}/{version:010d}-{self.digest}.parquet", self.body)


def _copied(pipeline: Pipeline, reference: Reference, source: str, client: ClientFactory) -> _Copy:
    checked = read_table(reference, source, client)
    columns = {reference.key: checked.keys, **checked.columns}
    plain = {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in columns.items()
    }
    body = io.BytesIO()
    pq.write_table(pa.table(plain), body)
    return _Copy(f"reference/{pipeline.name}/{reference.name}", body.getvalue())


def read_source(source: str, name: str, client: ClientFactory) -> pa.Table:
    """Read a CSV or Parquet file (a path or `s3://`), or a whole DynamoDB table (`dynamodb://TABLE`)."""
    where = f"reference table {name}"
    try:
        if source.startswith("dynamodb://"):
            return _scan(client("dynamodb"), source.removeprefix("dynamodb://"))
        if source.startswith("s3://"):
            bucket, _, key = source.removeprefix("s3://").partition("/")
            body = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        else:
            body = Path(source).read_bytes()
        if source.endswith(".parquet"):
            return pq.read_table(io.BytesIO(body))
        if source.endswith(".csv"):
            return pacsv.read_csv(
                io.BytesIO(body), convert_options=pacsv.ConvertOptions(strings_can_be_null=True, null_values=["", "NA"])
            )
    except HeadwaterError:
        raise
    except OSError as error:
        raise UsageError(f"{where}: cannot read {source}: {error.strerror or error}") from error
    except ClientError as error:
        raise UsageError(f"{where}: cannot read {source}: {error.response['Error']['Message']}") from error
    except pa.ArrowInvalid as error:
        raise UsageError(f"{where}: {source} is not readable: {error}") from error
    raise UsageError(f"{where}: {source} is neither .csv nor .parquet nor dynamodb://TABLE")


def _scan(dynamodb: Any, table: str) -> pa.Table:
    deserialize = TypeDeserializer().deserialize
    rows = [
        {name: _plain(deserialize(value)) for name, value in item.items()}
        for page in dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        for item in page["Items"]
    ]
    names = sorted({name for row in rows for name in row})
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _plain(value: object) -> object:
    if type(value).__name__ != "Decimal":
        return value
    number = float(value)  # type: ignore[arg-type]  # what cannot be one raises, and is refused
    return int(number) if number.is_integer() else number
