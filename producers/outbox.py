"""Events on disk until Kinesis has them: what `put` returned for is there after a kill -9.

One SQLite file in WAL mode, held by one process at a time. In it are the session's origin and numbering, events not
yet sealed, and sealed batches, byte for byte. Sealing moves events into a batch in one transaction that also advances
the numbering, so an event has one identity or none yet, never two; a batch leaves only once it is delivered.
`synchronous=NORMAL`: safe against the death of the process, not against that of the machine.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.contract import Contract, validate_row
from headwater.errors import HeadwaterError, UsageError
from producers.sealing import Numbers, SealedBatch

__all__ = ["Outbox", "Stored"]

_SCHEMA = """
create table if not exists state (name text primary key, value text not null) without rowid;
create table if not exists events (id integer primary key, body blob not null);
create table if not exists batches (
  id integer primary key, payload blob not null, partition_key text not null, hash_key text not null,
  origin text, first_seq integer not null, count integer not null, lane integer);
"""
_FORMAT = "1"


@dataclass(frozen=True)
class Stored:
    """Unsealed events of an earlier run: one of `put` or a table of `put_batch`."""

    event_id: int
    rows: pa.Table | dict[str, object]


class Outbox:
    """Thread-safe. Opening raises UsageError when another process has the file, or it belongs to something else."""

    def __init__(self, path: Path, stream: str, contract: Contract, new_origin: str) -> None:
        self._path = path
        self._contract = contract
        self._lock = Lock()
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise UsageError(f"outbox {path}: {error}") from error
        try:
            self._open()
            self.numbers = self._begin(stream, new_origin)
        except sqlite3.OperationalError as error:
            self._db.close()
            reason = "another process has it open" if "locked" in str(error) else error
            raise UsageError(f"outbox {path}: {reason}") from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UsageError(f"outbox {path}: {error}") from error
        except UsageError:
            self._db.close()
            raise

    def _open(self) -> None:
        self._db.execute("pragma locking_mode=exclusive")
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        self._db.execute("begin immediate")
        self._db.execute("commit")
        self._db.executescript(_SCHEMA)

    def _begin(self, stream: str, new_origin: str) -> Numbers:
        known = dict(self._db.execute("select name, value from state"))
        mine = {"format": _FORMAT, "stream": stream, "contract": self._contract.name}
        for name, value in mine.items():
            if name in known and known[name] != value:
                raise UsageError(f"outbox {self._path}: its {name} is {known[name]}, not {value}")
        begun = {"origin": new_origin, "next_seq": "0", "next_batch": "0", "announced": "0"} | mine
        self._db.execute("begin immediate")
        self._db.executemany("insert or ignore into state values (?, ?)", begun.items())
        self._db.execute("commit")
        state = begun | known
        self.announced = int(state["announced"])
        """Up to which number of the session receipts are on the stream."""
        return Numbers(state["origin"], int(state["next_seq"]), int(state["next_batch"]))

    def add(self, pieces: Sequence[pa.Table | dict[str, object]], instead_of: Sequence[int] = ()) -> list[int]:
        """Keep events; they are durable on return. The ids are for `seal`, which takes a piece as a whole."""
        bodies = [self._body(rows) for rows in pieces]
        with self._lock, self._transaction():
            self._db.executemany("delete from events where id = ?", ((one,) for one in instead_of))
            return [
                int(self._db.execute("insert into events (body) values (?)", (body,)).lastrowid or 0) for body in bodies
            ]

    def seal(self, batches: Iterable[SealedBatch], event_ids: Iterable[int], numbers: Numbers) -> None:
        """Events become batches."""
        rows = [
            (
                one.batch_id,
                one.payload,
                one.partition_key,
                one.explicit_hash_key,
                one.origin,
                one.first_seq,
                one.count,
                one.lane,
            )
            for one in batches
        ]
        with self._lock, self._transaction():
            self._db.executemany("insert into batches values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("delete from events where id = ?", ((one,) for one in event_ids))
            self._set("next_seq", numbers.next_seq)
            self._set("next_batch", numbers.next_batch)

    def delivered(self, batch_ids: Iterable[int]) -> None:
        """Kinesis has these batches."""
        with self._lock, self._transaction():
            self._db.executemany("delete from batches where id = ?", ((one,) for one in batch_ids))

    def announce(self, next_seq: int) -> None:
        """The session's receipts up to this number are on the stream."""
        with self._lock, self._transaction():
            self._set("announced", next_seq)

    def batches(self, after: int, most_bytes: int) -> list[SealedBatch]:
        """The sealed batches behind that id in their order, about `most_bytes` of them and at least one."""
        found, size = [], 0
        columns = "id, payload, partition_key, hash_key, origin, first_seq, count, lane"
        with self._lock:
            for row in self._db.execute(f"select {columns} from batches where id > ? order by id", (after,)):
                found.append(SealedBatch(*row))
                size += found[-1].size
                if size >= most_bytes:
                    break
        return found

    def last_batch(self) -> int:
        """The newest sealed batch's id, -1 when there is none."""
        with self._lock:
            (last,) = self._db.execute("select coalesce(max(id), -1) from batches").fetchone()
        return int(last)

    def events(self) -> Iterator[Stored]:
        """Unsealed events of an earlier run, in order; call before anything is added."""
        with self._lock:
            rows = self._db.execute("select id, body from events order by id").fetchall()
        for event_id, body in rows:
            yield Stored(int(event_id), self._rows(bytes(body)))

    def left(self) -> int:
        """How many events are still here."""
        with self._lock:
            (sealed,) = self._db.execute("select coalesce(sum(count), 0) from batches").fetchone()
            (unsealed,) = self._db.execute("select count(*) from events").fetchone()
        return int(sealed) + int(unsealed)

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._db.close()

    def _body(self, rows: pa.Table | dict[str, object]) -> bytes:
        if isinstance(rows, dict):
            return json.dumps(rows, default=_plain).encode()
        return encode_batch(rows, self._contract)

    def _rows(self, body: bytes) -> pa.Table | dict[str, object]:
        if body.startswith(b"{"):
            return validate_row(self._contract, json.loads(body))
        found = decode_record(body, self._contract)
        if not isinstance(found, Decoded) or found.invalid:
            raise UsageError(
                f"outbox {self._path}: holds events that break contract {self._contract.name} v{self._contract.version}"
            )
        return found.table

    def _set(self, name: str, value: int) -> None:
        self._db.execute("update state set value = ? where name = ?", (str(value), name))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db, self._path)


class _Transaction:
    """All or nothing; a full disk and the like become one line."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def __enter__(self) -> None:
        try:
            self._db.execute("begin immediate")
        except sqlite3.Error as error:
            raise HeadwaterError(f"outbox {self._path}: {error}") from error

    def __exit__(self, kind: Any, error: Any, _trace: Any) -> None:
        try:
            self._db.execute("rollback" if kind else "commit")
        except sqlite3.Error as failure:
            raise HeadwaterError(f"outbox {self._path}: {failure}") from failure
        if isinstance(error, sqlite3.Error):
            raise HeadwaterError(f"outbox {self._path}: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no value of an event")
