"""A table of the lake on the embedded AWS, its data files, and a ledger in memory that names them."""

import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles

from headwater.aws import Objects, client
from headwater.clock import SystemClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.contract import Contract, parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.ledger import Commit, Ledger, PendingFile
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import IcebergTable, ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.publisher import Publisher
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB

__all__ = [
    "CONTRACT",
    "DAY",
    "NOON",
    "aws",
    "commit",
    "contract",
    "delete_rows",
    "ensured",
    "new_ledger",
    "publisher",
    "seqs",
    "settings",
    "upload",
    "uploads",
]

CONTRACT = """
name: metric
version: {version}
key: device
time: ts
fields:
  - {{name: device, type: string}}
  - {{name: ts, type: timestamp}}
  - {{name: status, type: {status}}}
{more}"""
IDENTITY = [
    pa.field("_origin", pa.string(), nullable=False),
    pa.field("_seq", pa.int64(), nullable=False),
    pa.field("_arrived_at", pa.timestamp("ms", "UTC"), nullable=False),
]
NOON = 1_767_268_800_000


@pytest.fixture(scope="module")
def aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws() as started:
        yield started


@pytest.fixture
def settings(aws: EmbeddedAws, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Settings:
    """A bucket and a database of the test's own."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    own = f"test-{zlib.crc32(request.node.name.encode()):08x}"
    made = Settings(bucket=own, database=own.replace("-", "_"))
    client("s3", made).create_bucket(Bucket=made.bucket)
    return made


def contract(version: int = 1, status: str = "int", more: str = "") -> Contract:
    return parse_contract(CONTRACT.format(version=version, status=status, more=more), "metric.yaml")


DAY = Partitioning("ts", "device", "day")


def ensured(settings: Settings, of: Contract | None = None, partitioning: Partitioning = DAY) -> Table:
    schema = iceberg_schema(of or contract())
    return ensure_table(open_catalog(settings), settings, "metric", schema, partitioning)


def upload(settings: Settings, name: str, first: int, rows: int = 3, of: Contract | None = None) -> PendingFile:
    """A data file as a shard writes it, of one partition."""
    (file,) = uploads(settings, name, first, rows, of)
    return file


def uploads(
    settings: Settings,
    name: str,
    first: int,
    rows: int,
    of: Contract | None = None,
    partitioning: Partitioning = DAY,
    devices: int = 2,
    days: int = 1,
    max_files: int | None = None,
) -> list[PendingFile]:
    """A commit's data files; `status` counts on from `first`, as `_seq` does."""
    of = of or contract()
    own = [pa.field(one.name, one.arrow_type, nullable=not one.required) for one in of.fields]
    schema = pa.schema([*own, *IDENTITY])
    known: dict[str, Callable[[int], Any]] = {
        "device": lambda n: f"d{n % devices}",
        "ts": lambda n: NOON + n + n % days * 86_400_000,
        "status": lambda n: n,
        "note": lambda n: f"note {n}",
        "note_no": lambda n: n,
        "_origin": lambda _: "session",
        "_seq": lambda n: n,
        "_arrived_at": lambda _: NOON + 500,
    }
    columns = [pa.array([known[one.name](n) for n in range(first, first + rows)], one.type) for one in schema]
    buffer = LakeBuffer(schema, partitioning, max_files)
    buffer.append(pa.table(columns, schema=schema))
    objects, files = Objects(client("s3", settings), settings.bucket), buffer.seal()
    names = [f"lake/metric/data/{name}{f'-{n:04d}' if n else ''}.parquet" for n in range(len(files))]
    uris = [objects.put(key, file.body) for key, file in zip(names, files, strict=True)]
    return [PendingFile("metric", uri, file.rows, len(file.body)) for uri, file in zip(uris, files, strict=True)]


def new_ledger() -> Ledger:
    memory = MemoryDynamoDB()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    memory.create_table(TableName="ledger", KeySchema=keys)
    return Ledger(memory, "ledger", "p")


def commit(ledger: Ledger, shard: str, position: int, files: list[PendingFile]) -> None:
    entry = ledger.shard(shard) or ledger.claim(shard, "owner", b"", 0)
    ledger.commit(entry, Commit(sequence.pad(str(position)), b"", None, files, {}, None, False, 0))


def publisher(settings: Settings, ledger: Ledger, owner: str = "me", lease_seconds: float = 60.0) -> Publisher:
    catalog = open_catalog(settings)
    return Publisher(
        ledger, lambda name: IcebergTable(catalog, settings.database, name), SystemClock(), owner, lease_seconds
    )


def seqs(settings: Settings) -> Counter[int]:
    return Counter(open_table(settings, "metric").scan(selected_fields=("_seq",)).to_arrow()["_seq"].to_pylist())


class Between:
    """A publisher of table `metric`, for what another engine does between its two sightings of a file."""

    def __init__(self, settings: Settings, partitioning: Partitioning = DAY) -> None:
        ensured(settings, partitioning=partitioning)
        self._settings, self._partitioning, self._ledger = settings, partitioning, new_ledger()
        self._publisher = publisher(settings, self._ledger, lease_seconds=0)
        self.readded = 0
        """Files that it took for lost."""

    def publish(self, position: int) -> None:
        """Commit six rows, numbered from six times the position, and have them seen once."""
        files = uploads(self._settings, str(position), 6 * position, 6, partitioning=self._partitioning)
        commit(self._ledger, "s", position, files)
        self.readded += self._publisher.step().readded

    def settle(self) -> Counter[int]:
        """Step until no file waits; return how often each number is in the table."""
        for _ in range(3):
            self.readded += self._publisher.step().readded
            self._publisher._clock.sleep(1.1)
        assert [file for entry in self._ledger.shards() for file in entry.pending] == []
        return seqs(self._settings)


_FILE_PATH = 2_147_483_546
"""Iceberg's field id of a delete file's column `file_path`: engines read from its bounds that one file is meant."""
_POS = 2_147_483_545


class _DeleteManifest(ManifestWriterV2):  # type: ignore[misc]  # pyiceberg is not looked into
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def delete_rows(table: Table, path: str, places: Sequence[int]) -> None:
    """Delete rows of a data file as Spark and Trino do by merge-on-read: a delete file names their places in it."""
    uri = f"{table.location()}/data/deletes-{uuid.uuid4().hex}.parquet"
    columns = pa.schema(
        [
            pa.field("file_path", pa.string(), False, {"PARQUET:field_id": str(_FILE_PATH)}),
            pa.field("pos", pa.int64(), False, {"PARQUET:field_id": str(_POS)}),
        ]
    )
    rows = pa.table({"file_path": [path] * len(places), "pos": sorted(places)}, schema=columns)
    with table.io.new_output(uri).create() as sink:
        pq.write_table(rows, sink)
    (file,) = [task.file for task in table.scan().plan_files() if task.file.file_path == path]
    named = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=uri,
        file_format=FileFormat.PARQUET,
        partition=file.partition,
        record_count=rows.num_rows,
        file_size_in_bytes=len(table.io.new_input(uri)),
        lower_bounds={_FILE_PATH: path.encode()},
        upper_bounds={_FILE_PATH: path.encode()},
    )
    named.spec_id = file.spec_id

    class Deletes(_FastAppendFiles):  # type: ignore[misc]  # the same
        def _existing_manifests(self) -> list[ManifestFile]:
            metadata = self._transaction.table_metadata
            spec = metadata.specs()[file.spec_id]
            output = self.new_manifest_output()
            with _DeleteManifest(spec, metadata.schema(), output, self._snapshot_id, "deflate") as writer:
                writer.add(ManifestEntry.from_args(status=1, snapshot_id=self._snapshot_id, data_file=named))
            return [writer.to_manifest_file(), *super()._existing_manifests()]

    with table.transaction() as change:
        Deletes(Operation.OVERWRITE, change, table.io).commit()
    table.refresh()
