"""Take a key's rows out of the lake's table, a few files a commit, and make sure that no object has any of them.

Each step counts its rows as excluded, and then replaces their files: killed at any moment, the same call goes on with
the files that are left. Which have the key is read from the files, not from their statistics.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import FileScanTask, Table

from headwater.clock import HOUR_MS
from headwater.contract.keyvalues import KeyValue
from headwater.errors import Retryable
from headwater.processors.erasure.excluded import ExcludedRows
from headwater.processors.erasure.ports import ErasurePorts, is_origin
from headwater.processors.jobs import Progress
from headwater.sinks.lake.compaction import StoredObject, find_orphans, shard_of
from headwater.sinks.lake.maintenance import live_objects
from headwater.sinks.lake.reading import TableReader, plan
from headwater.sinks.lake.rewrite import Rewriter, RewriteResult, SortOrder, replace_files, unchanged

__all__ = ["STEP_BYTES", "LakeErasure"]

STEP_BYTES = 256 << 20
"""Files of one commit, about."""
_ATTEMPTS = 5
_EVER = 1 << 62
"""Later than any snapshot, whatever clock it was made by."""


@dataclass
class LakeErasure:
    """Take one key out of the table; `rows` and `files` count what has gone."""

    ports: ErasurePorts
    key: KeyValue
    excluded: ExcludedRows
    progress: Progress
    step_bytes: int = STEP_BYTES
    rows: int = 0
    files: int = 0
    _clean: set[str] = field(default_factory=set)
    _made: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Rewrite the files that have the key, step by step, and delete those that had it.

        Raise Retryable when others keep changing the table.
        """
        failed = 0
        while failed < _ATTEMPTS:
            table = self.ports.open_table()
            tasks = self._next(table)
            if not tasks:
                self._purge()
                return
            failed = 0 if self._step(table, tasks) else failed + 1
        raise Retryable(f"table {self.ports.stores.pipeline.lake_to.table}: others keep changing it")

    def left(self) -> list[str]:
        """Return where the key still is in the lake, by decoding every object that the table has or that lies there."""
        table, left = self.ports.open_table(), list[str]()
        live = {task.file.file_path for one in table.snapshots() for task in plan(table, one.snapshot_id)}
        there = {one.uri for one in self._unneeded()}
        for uri in sorted(live | there):
            try:
                rows = self._having(table, uri)
            except (OSError, pa.ArrowInvalid) as error:
                left.append(f"{uri} cannot be read: {' '.join(str(error).split())[:200]}")
                continue
            state = "the table has" if uri in live else "no snapshot has"
            left += [f"{rows} rows in {uri}, which {state}"] if rows else []
        return left

    def _next(self, table: Table) -> list[FileScanTask]:
        """Return files that have the key, of a step's size. Each file is looked at once."""
        found, size = list[FileScanTask](), 0
        tasks = sorted(plan(table), key=lambda task: task.file.file_path)  # pyiceberg has them in no order
        self.progress.phase("files that may have it", len(tasks))
        for at, task in enumerate(tasks):
            path = task.file.file_path
            if path not in self._clean:
                if not self._having(table, path):
                    self._clean.add(path)
                    continue
                found.append(task)
                size += task.file.file_size_in_bytes
                if size >= self.step_bytes:
                    break
            self.progress(self.rows, at)
        return found

    def _having(self, table: Table, uri: str) -> int:
        """Return how many rows of a data file have the key, those that delete files name too."""
        if not uri.endswith(".parquet"):
            return 0
        column = self.key.column
        raw = FileScanTask(DataFile.from_args(file_path=uri, file_format=FileFormat.PARQUET))
        found = 0
        for batch in TableReader(table).batches(raw, [column], coded=[column]):
            found += pc.sum(self.key.among(batch.column(column))).as_py() or 0
        return found

    def _step(self, table: Table, tasks: Sequence[FileScanTask]) -> bool:
        """Write the files anew without the key and replace them; tell whether the table has taken that."""
        stores = self.ports.stores
        contract = stores.pipeline.contract
        rewriter = Rewriter(table, stores.objects, SortOrder(contract.key, contract.time))
        self.progress.phase("writing files without it", sum(2 * task.file.record_count for task in tasks))
        written, done = list[RewriteResult](), 0
        for task in tasks:
            one = rewriter.rewrite([task], self._name(), self.key.among, partial(self._tell, done))
            done += 2 * task.file.record_count
            written.append(one)
            self._made |= {file.file_path for file in one.files}
        gone = pa.concat_tables([one.left_out for one in written])
        counted = gone.filter(pc.not_equal(gone["_origin"], self.key.text)) if is_origin(stores) else gone
        if counted.num_rows:  # what the key itself is the origin of has gone from the state: it was never there
            self.excluded.add(counted)
        if not self._replace(table, tasks, written, gone.num_rows):
            return False
        self.rows += gone.num_rows
        self.files += len(tasks)
        self._made |= {task.file.file_path for task in tasks}
        return True

    def _tell(self, before: int, rows: int) -> None:
        self.progress(self.rows, before + rows)

    def _name(self) -> str:
        return f"lake/{self.ports.stores.pipeline.lake_to.table}/data/compacted/{uuid.uuid4().hex}"

    def _replace(
        self, table: Table, tasks: Sequence[FileScanTask], written: Sequence[RewriteResult], rows: int
    ) -> bool:
        old, new = [task.file for task in tasks], [file for one in written for file in one.files]
        for _ in range(_ATTEMPTS):
            try:
                replace_files(table, old, new, {"headwater.forget": str(rows)})
            except Retryable:
                table = self.ports.open_table()
                now = plan(table)
                if not all(unchanged(task, now) for task in tasks):
                    return False
                continue
            # a catalog may acknowledge a commit and lose it
            there = {task.file.file_path for task in plan(self.ports.open_table())}
            return there.isdisjoint(file.file_path for file in old)
        return False

    def _purge(self) -> None:
        """Expire all snapshots but the current one; delete what it does not have of these files and of the orphans.

        An orphan of a compaction too, when the key is in it: what it was made from is no longer in the table, so its
        commit cannot succeed any more.
        """
        ports = self.ports
        ports.maintenance().expire(1, _EVER)
        table = ports.open_table()
        gone = self._made | {
            one.uri for one in self._unneeded() if shard_of(one.uri) is not None or self._has(table, one.uri)
        }
        objects = ports.stores.objects
        for path in sorted(gone - live_objects(ports.open_table())):
            objects.delete(path.removeprefix(f"s3://{objects.bucket}/"))

    def _has(self, table: Table, uri: str) -> bool:
        try:
            return self._having(table, uri) > 0
        except (FileNotFoundError, pa.ArrowInvalid):
            return False  # the last look names what cannot be read

    def _unneeded(self) -> Iterator[StoredObject]:
        """Yield the data files that nothing needs, however young.

        The ledger says so of a shard's files; another may be on its way to the table.
        """
        stores = self.ports.stores
        name, objects = stores.pipeline.lake_to.table, stores.objects
        found = [StoredObject(objects.uri(key), size, at) for key, size, at in objects.dated(f"lake/{name}/data/")]
        entries = stores.ledger.shards()  # a table is one pipeline's: the shards of others have no say
        live = live_objects(self.ports.open_table())
        yield from find_orphans(found, entries, live, stores.clock.now_ms() + HOUR_MS)
