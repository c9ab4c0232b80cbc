"""Iceberg through Glue with real pyiceberg on moto: tables that grow, publishing beside a foreign writer, queries."""

import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ReadTimeoutError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from headwater import sequence
from headwater.aws import Objects, client
from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.contract import Contract, parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.ledger import Commit, Ledger, PendingFile
from headwater.local.embedded import EmbeddedAws
from headwater.testing.dynamodb import MemoryDynamoDB
from sinks.catalog import IcebergTable, ensure_table, open_catalog, open_table
from sinks.lake import LakeBuffer
from sinks.partitioning import Partitioning
from sinks.publisher import Publisher
from sinks.query import lake_identities, lake_query

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
FOREIGN = 1_000_000


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
) -> list[PendingFile]:
    """A commit's data files; `status` counts on from `first`, as `_seq` does."""
    of = of or contract()
    own = [pa.field(one.name, one.arrow_type, nullable=not one.required) for one in of.fields]
    schema = pa.schema([*own, *IDENTITY])
    known: dict[str, Callable[[int], Any]] = {
        "device": lambda n: f"d{n % devices}",
        "ts": lambda n: NOON + n,
        "status": lambda n: n,
        "note": lambda n: f"note {n}",
        "note_no": lambda n: n,
        "_origin": lambda _: "session",
        "_seq": lambda n: n,
        "_arrived_at": lambda _: NOON + 500,
    }
    columns = [pa.array([known[one.name](n) for n in range(first, first + rows)], one.type) for one in schema]
    buffer = LakeBuffer(schema, partitioning)
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
    return Counter(
        seq for batch in lake_identities(open_table(settings, "metric")) for seq in batch["_seq"].to_pylist()
    )


def test_several_make_the_same_table_at_once(settings: Settings) -> None:
    """Every process ensures it at its start; made again it stays as it is."""
    made: list[Table] = []
    threads = [Thread(target=lambda: made.append(ensured(settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({str(table.metadata.table_uuid) for table in made}) == 1
    again = ensured(settings)
    assert again.metadata_location == open_table(settings, "metric").metadata_location == made[0].metadata_location
    assert [str(field.transform) for field in again.spec().fields] == ["day"]
    assert again.location() == f"s3://{settings.bucket}/lake/metric"


def test_files_of_two_versions_of_a_contract_are_read_as_the_newer(settings: Settings) -> None:
    """A file written before the table grew may be published after: the type is widened, the new column null."""
    old, new = contract(), contract(2, "long", "  - {name: note, type: string, required: false}\n")
    ensured(settings, old)
    before, between = upload(settings, "before", 0), upload(settings, "between", 3)
    ledger = new_ledger()
    commit(ledger, "s", 1, [before])
    publisher(settings, ledger, lease_seconds=0).drain()
    table = ensured(settings, new)
    commit(ledger, "s", 2, [between, upload(settings, "after", 6, of=new)])
    publisher(settings, ledger).drain()
    assert str(table.schema().find_field("status").field_type) == "long"
    found = lake_query(settings, "SELECT status, note, _seq FROM metric ORDER BY _seq")
    assert found["status"].to_pylist() == list(range(9))
    assert found["note"].to_pylist() == [None] * 6 + ["note 6", "note 7", "note 8"]
    assert found.schema.field("status").type == pa.int64()
    assert open_table(settings, "metric").scan().to_arrow().num_rows == 9


def test_a_renamed_column_keeps_its_rows(settings: Settings) -> None:
    """Files with the old name, published before and after the table changed, and files with the new one."""
    old = contract()
    new = parse_contract(
        CONTRACT.format(version=2, status="long", more="").replace("name: status,", "name: note_no, was: status,"), "m"
    )
    ensured(settings, old)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "before", 0)])
    publisher(settings, ledger, lease_seconds=0).drain()
    was = {"note_no": ("status",)}
    table = ensure_table(open_catalog(settings), settings, "metric", iceberg_schema(new), DAY, was)
    assert "status" not in table.schema().column_names
    commit(ledger, "s", 2, [upload(settings, "between", 3), upload(settings, "after", 6, of=new)])
    publisher(settings, ledger).drain()
    assert lake_query(settings, "SELECT note_no FROM metric ORDER BY _seq")["note_no"].to_pylist() == list(range(9))
    again = ensure_table(open_catalog(settings), settings, "metric", iceberg_schema(new), DAY, was)
    assert again.metadata_location == open_table(settings, "metric").metadata_location
    assert "contract metric 2" in str(again.schema().find_field("note_no").doc)


def test_a_table_that_cannot_become_what_is_asked_is_refused(settings: Settings) -> None:
    """A column of another type would have every later file refused."""
    ensured(settings)
    with pytest.raises(UsageError, match="cannot take the contract's columns"):
        ensured(settings, contract(2, "string"))


def test_each_file_is_there_once_beside_a_foreign_writer_on_a_catalog_that_forgets(settings: Settings) -> None:
    """moto checks no version, so commits overtake each other and disappear: ours come back, and none twice."""
    ensured(settings)
    ledger, stop, errors = new_ledger(), Event(), list[Exception]()
    writer = Thread(target=_foreign_writer, args=(settings, stop, errors))
    writer.start()
    readded, files = 0, 0
    steps = publisher(settings, ledger)
    try:
        for position in range(1, 9):
            shard = f"shard-{position % 2}"
            new = [upload(settings, f"{position}-{n}", 6 * position + 3 * n) for n in range(2)]
            commit(ledger, shard, position, new)
            files += 2
            with suppress(Retryable):
                readded += steps.step().readded
    finally:
        stop.set()
        writer.join()
    steps.drain()
    assert errors == []
    ours = Counter({seq: count for seq, count in seqs(settings).items() if seq < FOREIGN})
    assert ours == Counter(range(6, 6 + 3 * files))
    paths = [task.file.file_path for task in open_table(settings, "metric").scan().plan_files()]
    assert len(paths) == len(set(paths))


def _foreign_writer(settings: Settings, stop: Event, errors: list[Exception]) -> None:
    """Adds files of its own as fast as it can; who is overtaken tries the next one."""
    table, number = open_table(settings, "metric"), FOREIGN
    try:
        while not stop.is_set():
            number += 1
            file = upload(settings, f"foreign-{number}", number, rows=1)
            with suppress(CommitFailedException):
                table.add_files([file.uri])
            table.refresh()
    except Exception as error:
        errors.append(error)


def test_two_publishers_at_once_double_nothing(settings: Settings) -> None:
    """Both with leases that have run out before they work."""
    ensured(settings)
    ledger = new_ledger()
    for position in range(1, 7):
        commit(ledger, "s", position, [upload(settings, str(position), 3 * position)])

    def job(owner: str) -> None:
        steps = publisher(settings, ledger, owner, lease_seconds=0)
        for _ in range(6):
            with suppress(HeadwaterError):
                steps.step()

    threads = [Thread(target=job, args=(owner,)) for owner in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher(settings, ledger, "last", lease_seconds=0).drain()
    assert seqs(settings) == Counter(range(3, 21))


def test_a_state_that_is_gone_refuses_the_commit(settings: Settings) -> None:
    """What was missing then may be there now."""
    ensured(settings)
    catalog, file = open_catalog(settings), upload(settings, "a", 0)
    left, right = (IcebergTable(catalog, settings.database, "metric") for _ in range(2))
    assert left.paths() == right.paths() == set()
    left.add([file.uri])
    with pytest.raises(Retryable, match="another writer was faster"):
        right.add([file.uri])
    assert right.paths() == {file.uri}


def test_a_lost_answer_leaves_a_table_that_can_be_read(settings: Settings) -> None:
    """UpdateTable is sent once: Glue refuses a second try, and pyiceberg would delete what the first has committed."""
    ensured(settings)
    catalog, file, sent = open_catalog(settings), upload(settings, "a", 0), list[str]()
    port = IcebergTable(catalog, settings.database, "metric")
    port.paths()
    for one in (catalog.glue._glue, catalog.glue._once):
        session = one._endpoint.http_session
        session.send = _losing(session.send, sent)
    with pytest.raises(ReadTimeoutError):
        port.add([file.uri])
    assert len(sent) == 1
    assert IcebergTable(open_catalog(settings), settings.database, "metric").paths() == {file.uri}
    assert seqs(settings) == Counter(range(3))


def _losing(send: Callable[[Any], Any], sent: list[str]) -> Callable[[Any], Any]:
    """Sends, and loses the answer of each UpdateTable."""

    def sending(request: Any) -> Any:
        answer = send(request)
        target = request.headers["X-Amz-Target"]
        if "UpdateTable" in (target.decode() if isinstance(target, bytes) else target):
            sent.append("UpdateTable")
            raise ReadTimeoutError(endpoint_url="glue")
        return answer

    return sending


def test_a_manifest_is_read_once(settings: Settings) -> None:
    """A table of many commits costs a step no more than the newest one's manifest."""
    ensured(settings)
    port = IcebergTable(open_catalog(settings), settings.database, "metric")
    uris = []
    for number in range(3):
        port.paths()
        uris.append(upload(settings, str(number), 3 * number).uri)
        port.add(uris[-1:])
    assert port.paths() == set(uris)
    known = dict(port._manifests)
    assert len(known) == 3
    for path in known:
        client("s3", settings).delete_object(Bucket=settings.bucket, Key=path.removeprefix(f"s3://{settings.bucket}/"))
    assert port.paths() == set(uris)


def test_a_file_that_does_not_fit_is_named(settings: Settings) -> None:
    """It stops the table's publishing, loudly; the loop goes on trying."""
    ensured(settings)
    body = io.BytesIO()
    pq.write_table(pa.table({"other": [1]}), body)
    uri = Objects(client("s3", settings), settings.bucket).put("lake/metric/data/bad.parquet", body.getvalue())
    port = IcebergTable(open_catalog(settings), settings.database, "metric")
    port.paths()
    with pytest.raises(HeadwaterError, match=r"metric refuses a file of .*bad\.parquet") as caught:
        port.add([uri])
    assert "\n" not in str(caught.value)


def test_a_table_that_is_gone_is_tried_again(settings: Settings) -> None:
    """Somebody may be making it just now."""
    with pytest.raises(Retryable, match="is not in the catalog"):
        IcebergTable(open_catalog(settings), settings.database, "metric").paths()


def test_queries_name_tables_with_and_without_the_database(settings: Settings) -> None:
    """Columns and times as in the table."""
    ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0, rows=5)])
    publisher(settings, ledger).drain()
    join = f"metric a JOIN {settings.database}.METRIC b USING (_seq)"
    sql = f"SELECT a.device, count(*) AS n FROM {join} GROUP BY 1 ORDER BY 1"
    assert lake_query(settings, sql).to_pylist() == [{"device": "d0", "n": 3}, {"device": "d1", "n": 2}]
    (row,) = lake_query(settings, "SELECT epoch_ms(min(ts)) AS first FROM metric WHERE ts >= '2026-01-01'").to_pylist()
    assert row == {"first": NOON}
    assert lake_query(settings, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM metrics", "metrics does not exist.*the lake has metric"),
        ("SELECT nothing FROM metric", 'column "nothing" not found'),
        ("", "give one statement"),
        ("SELECT 1; SELECT 2", "give one statement"),
    ],
)
def test_sql_that_cannot_be_answered_is_one_line(settings: Settings, sql: str, reason: str) -> None:
    """And says what is wrong with it."""
    ensured(settings)
    with pytest.raises(UsageError, match=reason) as caught:
        lake_query(settings, sql)
    assert "\n" not in str(caught.value)


def test_an_empty_lake_says_so(settings: Settings) -> None:
    """No database yet, no table yet, no row yet."""
    with pytest.raises(UsageError, match="the lake has no tables"):
        lake_query(settings, "SELECT * FROM metric")
    with pytest.raises(UsageError, match="no lake table 'metric'"):
        list(lake_identities(open_table(settings, "metric")))
    ensured(settings)
    assert lake_query(settings, "SELECT count(*) AS n FROM metric").to_pylist() == [{"n": 0}]
    assert seqs(settings) == Counter()


def test_a_renamed_column_is_read_by_its_id(settings: Settings) -> None:
    """Its name in older files means nothing any more: Iceberg's own reader does it."""
    table = ensured(settings)
    ledger = new_ledger()
    commit(ledger, "s", 1, [upload(settings, "a", 0)])
    publisher(settings, ledger).drain()
    table.refresh()
    with table.update_schema() as update:
        update.rename_column("status", "state")
    assert lake_query(settings, "SELECT state FROM metric ORDER BY 1")["state"].to_pylist() == [0, 1, 2]


def test_a_file_that_is_gone_is_the_store_s_own_error(settings: Settings) -> None:
    """The publisher's loop logs it and tries again."""
    ensured(settings)
    port = IcebergTable(open_catalog(settings), settings.database, "metric")
    port.paths()
    with pytest.raises(OSError, match="nowhere"):
        port.add([f"s3://{settings.bucket}/lake/metric/data/nowhere.parquet"])
