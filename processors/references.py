"""Reference tables: their versions, where they lie, and how a new one takes effect.

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
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from headwater.errors import Fenced, HeadwaterError, Retryable, UsageError
from processors.operators.enrich import ReferenceTable
from processors.pipeline import Pipeline, Reference

__all__ = ["DOCUMENT", "ReferenceLoader", "ensure_initial", "publish", "read_source"]

DOCUMENT = "references"
"""The ledger document: per name {"initial": {"version", "uri"}, "latest": {"version", "uri"}}."""

log = logging.getLogger("headwater.references")


class _Ledger(Protocol):
    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: dict[str, Any], expected_rev: int) -> int: ...


class _Objects(Protocol):
    def put(self, key: str, body: bytes) -> str: ...

    def get(self, key: str) -> bytes: ...


ClientFactory = Callable[[str], Any]
"""A boto3 client by service name."""


class ReferenceLoader:
    """Versions by name and URI, each read once. Safe to share between threads."""

    def __init__(self, pipeline: Pipeline, objects: _Objects) -> None:
        self._references = {reference.name: reference for reference in pipeline.references}
        self._objects = objects
        self._loaded: dict[str, ReferenceTable] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, uri: str) -> ReferenceTable:
        with self._lock:
            if uri not in self._loaded:
                key = uri.removeprefix("s3://").partition("/")[2]
                table = pq.read_table(io.BytesIO(self._objects.get(key)))
                self._loaded[uri] = ReferenceTable.of(self._references[name], table)
            return self._loaded[uri]


def ensure_initial(pipeline: Pipeline, ledger: _Ledger, objects: _Objects, client: ClientFactory) -> None:
    """Fix the first version of each reference table of the pipeline, unless it is fixed already."""
    for _ in range(5):
        document, revision = ledger.document(DOCUMENT)
        missing = [reference for reference in pipeline.references if reference.name not in document]
        if not missing:
            return
        for reference in missing:
            version = {"version": 1, "uri": _copy(pipeline, reference, reference.source, objects, client)}
            document[reference.name] = {"initial": version, "latest": version}
        try:
            ledger.put_document(DOCUMENT, document, revision)
            return
        except Fenced:
            continue  # another worker starts as well: take what it has fixed
    raise Retryable(f"pipeline {pipeline.name}: others keep changing its reference versions; try again")


def publish(
    pipeline: Pipeline,
    name: str,
    source: str | None,
    ledger: _Ledger,
    objects: _Objects,
    client: ClientFactory,
    announce: Callable[[str, dict[str, Any]], object],
) -> dict[str, Any] | None:
    """Make the table's content a new version and announce it on every shard; None when it has not changed.

    `announce(kind, body)` puts a control record on every open shard. The ledger is written first: a crash in between
    is mended by publishing again, which announces the same version once more.
    """
    reference = next((reference for reference in pipeline.references if reference.name == name), None)
    if reference is None:
        known = [reference.name for reference in pipeline.references]
        raise UsageError(f"pipeline {pipeline.name} has no reference table {name!r}; it has {known}")
    ensure_initial(pipeline, ledger, objects, client)
    uri = _copy(pipeline, reference, source or reference.source, objects, client)
    document, revision = ledger.document(DOCUMENT)
    latest = document[name]["latest"]
    if latest["uri"] != uri:
        latest = {"version": int(latest["version"]) + 1, "uri": uri}
        document[name]["latest"] = latest | {"announced": False}
        revision = ledger.put_document(DOCUMENT, document, revision)
    elif latest.get("announced", True):
        return None
    body = {"name": name, "version": latest["version"], "uri": uri}
    announce("reference", body)
    document[name]["latest"] = {"version": latest["version"], "uri": uri}
    ledger.put_document(DOCUMENT, document, revision)
    log.info("reference table published", extra=body)
    return body


def _copy(pipeline: Pipeline, reference: Reference, source: str, objects: _Objects, client: ClientFactory) -> str:
    """The source as a checked Parquet file in the bucket; equal content has an equal name."""
    table = read_source(source, reference.name, client)
    checked = ReferenceTable.of(reference, table)
    try:
        columns = {reference.key: checked.keys, **checked.columns}
    except pa.ArrowInvalid as error:
        raise UsageError(f"reference table {reference.name} ({source}): {error}") from error
    plain = {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in columns.items()
    }
    body = io.BytesIO()
    pq.write_table(pa.table(plain), body)
    digest = hashlib.sha256(body.getvalue()).hexdigest()[:16]
    return objects.put(f"reference/{pipeline.name}/{reference.name}/{digest}.parquet", body.getvalue())


def read_source(source: str, name: str, client: ClientFactory) -> pa.Table:
    """A CSV or Parquet file (a path or `s3://`), or a whole DynamoDB table (`dynamodb://TABLE`)."""
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
    number = float(value)  # type: ignore[arg-type]
    return int(number) if number.is_integer() else number
