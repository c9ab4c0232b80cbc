"""Iceberg through Glue with real pyiceberg on moto: tables that grow, publishing beside a foreign writer."""

import gc
import io
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ReadTimeoutError
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.table import Table

from headwater.aws import Objects, client
from headwater.config import Settings
from headwater.contract import parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.sinks.lake.catalog import IcebergTable, ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.query import lake_query
from tests.lake import (
    CONTRACT,
    DAY,
    aws,
    commit,
    contract,
    ensured,
    new_ledger,
    publisher,
    seqs,
    settings,
    upload,
)

__all__ = ["aws", "settings"]
"""Fixtures."""

FOREIGN = 1_000_000


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


def test_a_table_that_is_loaded_again_and_again_opens_no_more_connections(settings: Settings) -> None:
    """Each load had connections of its own, which stayed open until Python happened to look for circles."""
    ensured(settings)
    catalog = open_catalog(settings)
    open_table(settings, "metric", catalog)
    gc.disable()
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(15):
            open_table(settings, "metric", catalog)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5
    finally:
        gc.enable()


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
            # the second where the catalog has lost what the writer began from
            with suppress(CommitFailedException, ValidationException):
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
    assert left.read().files == right.read().files == set()
    left.add([file.uri])
    with pytest.raises(Retryable, match="another writer was faster"):
        right.add([file.uri])
    assert right.read().files == {file.uri}


def test_what_others_put_on_top_is_added_to(settings: Settings) -> None:
    """Several commits of others, none with our file: nothing has to be looked at anew."""
    ensured(settings)
    catalog = open_catalog(settings)
    left, right = (IcebergTable(catalog, settings.database, "metric") for _ in range(2))
    right.read()
    uris = [upload(settings, name, 3 * at).uri for at, name in enumerate("abc")]
    for uri in uris[:2]:
        left.read()
        left.add([uri])
    assert right.add([uris[2]]) == {}
    assert left.read().files == set(uris)
    assert seqs(settings) == Counter(range(9))


@pytest.mark.parametrize("change", ["rollback", "recreated"])
def test_what_others_change_otherwise_is_looked_at_anew(settings: Settings, change: str) -> None:
    """Another line of snapshots, or another table: what was missing may be there, and what was there may not."""
    ensured(settings)
    catalog = open_catalog(settings)
    port = IcebergTable(catalog, settings.database, "metric")
    first, second, third = (upload(settings, name, 3 * at).uri for at, name in enumerate("abc"))
    for uri in (first, second):
        port.read()
        port.add([uri])
    port.read()
    table = open_table(settings, "metric", catalog)
    if change == "rollback":
        table.manage_snapshots().rollback_to_snapshot(table.snapshots()[0].snapshot_id).commit()
    else:
        catalog.drop_table((settings.database, "metric"))
        ensured(settings)
    with pytest.raises(Retryable, match="another writer was faster"):
        port.add([third])
    assert third not in port.read().files


def test_a_lost_answer_leaves_a_table_that_can_be_read(settings: Settings) -> None:
    """UpdateTable is sent once: Glue refuses a second try, and pyiceberg would delete what the first has committed."""
    ensured(settings)
    catalog, file, sent = open_catalog(settings), upload(settings, "a", 0), list[str]()
    port = IcebergTable(catalog, settings.database, "metric")
    port.read()
    for one in (catalog.glue._glue, catalog.glue._once):
        session = one._endpoint.http_session
        session.send = _losing(session.send, sent)
    with pytest.raises(ReadTimeoutError):
        port.add([file.uri])
    assert len(sent) == 1
    assert IcebergTable(open_catalog(settings), settings.database, "metric").read().files == {file.uri}
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
        port.read()
        uris.append(upload(settings, str(number), 3 * number).uri)
        port.add(uris[-1:])
    assert port.read().files == set(uris)
    known = dict(port._manifests)
    assert len(known) == 3
    for path in known:
        client("s3", settings).delete_object(Bucket=settings.bucket, Key=path.removeprefix(f"s3://{settings.bucket}/"))
    assert port.read().files == set(uris)


def test_files_that_do_not_fit_are_refused_and_the_rest_is_added(settings: Settings) -> None:
    """Each with its reason in one line, whether the object is gone or holds other columns."""
    ensured(settings)
    body = io.BytesIO()
    pq.write_table(pa.table({"other": [1]}), body)
    bad = Objects(client("s3", settings), settings.bucket).put("lake/metric/data/bad.parquet", body.getvalue())
    gone = f"s3://{settings.bucket}/lake/metric/data/nowhere.parquet"
    good = upload(settings, "a", 0).uri
    port = IcebergTable(open_catalog(settings), settings.database, "metric")
    port.read()
    refused = port.add([bad, gone, good])
    assert refused.keys() == {bad, gone}
    assert refused[gone] == "there is no such object"
    assert "a column that the table does not know" in refused[bad]
    assert all("\n" not in reason for reason in refused.values())
    assert port.read().files == {good}


def test_a_table_that_is_gone_is_tried_again(settings: Settings) -> None:
    """Somebody may be making it just now."""
    with pytest.raises(Retryable, match="is not in the catalog"):
        IcebergTable(open_catalog(settings), settings.database, "metric").read()
