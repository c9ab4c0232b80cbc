"""Keep events on disk until Kinesis has them: what `put` returned for is there after a kill -9.

One SQLite file in WAL mode, held by one process at a time. In it are events not yet sealed, sealed batches byte for
byte, and the sessions that numbered them. Sealing moves events into a batch in one transaction that also advances the
numbering, so an event has one identity or none yet, never two; a batch leaves only once it is delivered.

Numbers are never taken up again: each opening begins a session of its own, so a file that was restored, rolled back or
copied cannot give one identity to two events. Batches sealed before keep the identity that they have.

Each commit is on the disk before `put` returns (`synchronous=FULL`), so that a machine that loses power loses nothing
either; where the disk keeps its promises. `survives="process"` leaves it to the operating system when the log reaches
the disk: the death of the process loses nothing, that of the machine the events of the last seconds.

Here belongs what has to survive the process. Sending, retrying and futures are the sender's.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import pyarrow as pa

from headwater.codec import Decoded, decode_record, encode_batch
from headwater.contract import Contract, validate_row
from headwater.contract.values import jsonable
from headwater.contract.written import EXACT
from headwater.errors import HeadwaterError, UsageError
from headwater.producers.sealing import Numbering, SealedBatch

__all__ = ["Backlog", "Outbox", "StoredEvents"]

_SCHEMA = """
create table if not exists state (name text primary key, value text not null) without rowid;
create table if not exists events (id integer primary key, body blob not null);
create table if not exists sessions (
  origin text primary key, next_seq integer not null, announced integer not null) without rowid;
create table if not exists batches (
  id integer primary key, payload blob not null, partition_key text not null, hash_key text not null,
  origin text, first_seq integer not null, count integer not null, lane integer);
create table if not exists untold (
  id integer primary key, origin text not null, first_seq integer not null, count integer not null);
create index if not exists untold_origins on untold (origin);
"""
Survives = Literal["power", "process"]
Numbers = tuple[str, int, int]
"""Events of an origin: its name, the first number and how many."""
_FORMAT = "2"
_READABLE = ("1", "2")
"""Format 1 had one session for ever; opening it ends that session."""
_COLUMNS = "id, payload, partition_key, hash_key, origin, first_seq, count, lane"


@dataclass(frozen=True)
class StoredEvents:
    """Hold unsealed events of an earlier run: one of `put` or a table of `put_batch`."""

    event_id: int
    rows: pa.Table | dict[str, object]


class Outbox:
    """Store one producer's events in a file. Thread-safe; one process at a time.

    `new_origin` names the session of this opening. Opening raises UsageError when another process has the file, or when
    it belongs to another stream or contract.

    >>> from tempfile import TemporaryDirectory
    >>> from headwater.contract import load_contract
    >>> with TemporaryDirectory() as folder:
    ...     outbox = Outbox(Path(folder) / "events.db", "readings", load_contract("telemetry"), "a-new-origin")
    ...     ids = outbox.add([{"device": "d1", "metric": "volt", "ts": 1_762_160_400_000, "value": 3.3}])
    ...     print(outbox.left(), "event waits")
    ...     outbox.close()
    1 event waits
    """

    def __init__(
        self, path: Path, stream: str, contract: Contract, new_origin: str, survives: Survives = "power"
    ) -> None:
        self.path = path
        self._contract = contract
        self.lock = RLock()
        """Held over every use of the file."""
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise UsageError(f"outbox {path}: {error}") from error
        try:
            self._open(survives)
            self.numbering = self._begin(stream, new_origin)
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

    def _open(self, survives: Survives) -> None:
        self._db.execute("pragma locking_mode=exclusive")
        self._db.execute("pragma journal_mode=wal")
        self._db.execute(f"pragma synchronous={'full' if survives == 'power' else 'normal'}")
        self._db.execute("begin immediate")
        self._db.execute("commit")
        self._db.executescript(_SCHEMA)

    def _begin(self, stream: str, new_origin: str) -> Numbering:
        known = dict(self._db.execute("select name, value from state"))
        if known.get("format", _FORMAT) not in _READABLE:
            raise UsageError(f"outbox {self.path}: its format is {known['format']}, not {_FORMAT}")
        mine = {"stream": stream, "contract": self._contract.name}
        for name, value in mine.items():
            if name in known and known[name] != value:
                raise UsageError(f"outbox {self.path}: its {name} is {known[name]}, not {value}")
        begun = {"next_batch": "0", "sealed_events": known.get("next_seq", "0")} | mine
        self._db.execute("begin immediate")
        self._db.executemany("insert or ignore into state values (?, ?)", begun.items())
        self._db.execute("insert or replace into state values ('format', ?)", (_FORMAT,))
        if "origin" in known:
            # With ids of their own, or numbers given by clients, the session's numbers named nothing.
            if self._contract.id is None and known["next_seq"] != "0":
                old = (known["origin"], int(known["next_seq"]), int(known["announced"]))
                self._db.execute("insert or ignore into sessions values (?, ?, ?)", old)
            self._db.execute("delete from state where name in ('origin', 'next_seq', 'announced')")
        self._db.execute("commit")
        return Numbering(new_origin, 0, int((begun | known)["next_batch"]))

    def add(self, pieces: Sequence[pa.Table | dict[str, object]], instead_of: Sequence[int] = ()) -> list[int]:
        """Keep events; they are durable on return. The ids are for `seal`, which takes a piece as a whole."""
        bodies = [self._body(rows) for rows in pieces]
        with self.lock, self._transaction():
            self._db.executemany("delete from events where id = ?", ((one,) for one in instead_of))
            return [
                int(self._db.execute("insert into events (body) values (?)", (body,)).lastrowid or 0) for body in bodies
            ]

    def seal(self, batches: Sequence[SealedBatch], event_ids: Iterable[int], numbering: Numbering) -> None:
        """Turn events into batches, and advance the session's numbering with them."""
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
        with self.lock, self._transaction():
            self._db.executemany("insert into batches values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("delete from events where id = ?", ((one,) for one in event_ids))
            self._set("next_batch", numbering.next_batch)
            count = sum(one.count for one in batches)
            self._db.execute("update state set value = value + ? where name = 'sealed_events'", (count,))
            if any(one.origin == numbering.origin for one in batches):
                self._db.execute(
                    "insert into sessions values (?, ?, 0) on conflict do update set next_seq = excluded.next_seq",
                    (numbering.origin, numbering.next_seq),
                )

    def delivered(self, batch_ids: Iterable[int], identities: Iterable[Numbers] = ()) -> None:
        """Forget batches that Kinesis has; keep the identities of their events until `announce`.

        Those of the sessions need not be kept, as their numbers are known.
        """
        with self.lock, self._transaction():
            self._db.executemany("delete from batches where id = ?", ((one,) for one in batch_ids))
            for origin, first, count in identities:
                if self._db.execute("select 1 from sessions where origin = ?", (origin,)).fetchone():
                    continue
                longer = self._db.execute(
                    "update untold set count = count + ? where origin = ? and first_seq + count = ?",
                    (count, origin, first),
                )
                if not longer.rowcount:
                    self._db.execute(
                        "insert into untold (origin, first_seq, count) values (?, ?, ?)", (origin, first, count)
                    )

    def delivered_up_to(self) -> dict[str, int]:
        """Return for each session the number below which all of its sealed events are delivered."""
        with self.lock:
            return dict(
                self._db.execute(
                    "select s.origin, coalesce(min(b.first_seq), s.next_seq) from sessions s"
                    " left join batches b on b.origin = s.origin group by s.origin"
                )
            )

    def untold(self) -> list[tuple[int, int]]:
        """Return id and count of each row of identities that no receipt is known to name: for `announce`."""
        with self.lock:
            return [(int(one), int(count)) for one, count in self._db.execute("select id, count from untold")]

    def announce(self, delivered: Mapping[str, int], told: Iterable[tuple[int, int]] = ()) -> None:
        """Note up to which number of each session receipts are on the stream; forget sessions that are complete.

        `told` are the rows of `untold` that receipts name now; one that has grown since is kept, and named again.
        """
        rows = [(seq, origin) for origin, seq in delivered.items()]
        with self.lock, self._transaction():
            self._db.executemany("delete from untold where id = ? and count = ?", told)
            self._db.executemany("update sessions set announced = ? where origin = ?", rows)
            self._db.execute(
                "delete from sessions where announced >= next_seq and origin != ?", (self.numbering.origin,)
            )

    def unannounced(self) -> list[Numbers]:
        """Return what earlier runs delivered and perhaps told nobody: (origin, first number, count)."""
        with self.lock:
            found = [
                (str(origin), int(first), int(count))
                for origin, first, count in self._db.execute("select origin, first_seq, count from untold")
            ]
            for origin, next_seq, at in self._db.execute("select origin, next_seq, announced from sessions").fetchall():
                waiting = self._db.execute(
                    "select first_seq, count from batches where origin = ? and first_seq >= ? order by first_seq",
                    (origin, at),
                )
                for first, count in [*waiting, (next_seq, 0)]:
                    if first > at:
                        found.append((str(origin), int(at), int(first - at)))
                    at = first + count
        return found

    def batches(self, after: int, most_bytes: int) -> list[SealedBatch]:
        """Return the sealed batches behind that id in their order, about `most_bytes` of them and at least one."""
        found, size = [], 0
        with self.lock:
            for row in self._db.execute(f"select {_COLUMNS} from batches where id > ? order by id", (after,)):
                found.append(SealedBatch(*row))
                size += found[-1].size
                if size >= most_bytes:
                    break
        return found

    def last_batch(self) -> int:
        """Return the newest sealed batch's id, -1 when there is none."""
        with self.lock:
            (last,) = self._db.execute("select coalesce(max(id), -1) from batches").fetchone()
        return int(last)

    def events(self) -> Iterator[StoredEvents]:
        """Yield unsealed events of an earlier run, in order; call before anything is added."""
        with self.lock:
            rows = self._db.execute("select id, body from events order by id").fetchall()
        for event_id, body in rows:
            yield StoredEvents(int(event_id), self._rows(bytes(body)))

    def left(self) -> int:
        """Return how many events are still here."""
        with self.lock:
            (sealed,) = self._db.execute("select coalesce(sum(count), 0) from batches").fetchone()
            unsealed = [bytes(body) for (body,) in self._db.execute("select body from events")]
        return int(sealed) + sum(_count(self._rows(body)) for body in unsealed)

    def accepted(self) -> int:
        """Return how many events the file has ever taken: those sealed since it was made, and those not sealed yet."""
        with self.lock:
            (sealed,) = self._db.execute("select value from state where name = 'sealed_events'").fetchone()
            unsealed = [bytes(body) for (body,) in self._db.execute("select body from events")]
        return int(sealed) + sum(_count(self._rows(body)) for body in unsealed)

    def close(self) -> None:
        """Let the file go."""
        with self.lock:
            self._db.close()

    def _body(self, rows: pa.Table | dict[str, object]) -> bytes:
        if isinstance(rows, dict):
            return json.dumps(rows, default=jsonable).encode()
        return encode_batch(rows, self._contract)

    def _rows(self, body: bytes) -> pa.Table | dict[str, object]:
        if body.startswith(b"{"):
            return validate_row(self._contract, EXACT.decode(body.decode()))
        found = decode_record(body, self._contract)
        if not isinstance(found, Decoded) or found.invalid:
            raise UsageError(
                f"outbox {self.path}: holds events that break contract {self._contract.name} v{self._contract.version}"
            )
        return found.table

    def _set(self, name: str, value: int) -> None:
        self._db.execute("update state set value = ? where name = ?", (str(value), name))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db, self.path)


class Backlog:
    """Hand out the sealed batches that only the outbox holds, oldest first.

    While it is active, new batches go to the file alone and are handed out in their turn, so that a lane keeps its
    order and memory stays bounded however long the stream is out of reach.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._after = -1
        self._failed = set[int]()
        self.resume_ms = 0
        """Nothing is handed out before."""
        self.active = outbox.last_batch() >= 0

    def page(self, most_bytes: int) -> list[SealedBatch]:
        """Return the next batches, about so many bytes of them. Call `end` when there are none."""
        while found := self._outbox.batches(self._after, most_bytes):
            self._after = found[-1].batch_id
            wanted = [one for one in found if one.batch_id not in self._failed]
            if wanted:
                return wanted
        return []

    def end(self) -> None:
        """Become inactive, unless a batch was sealed since the last page. Call under the lock that sealing takes."""
        self.active = self._outbox.last_batch() > self._after

    def rewind(self, batches: Sequence[SealedBatch], resume_ms: int) -> None:
        """Take batches back that were handed out, to hand them out again from `resume_ms` on."""
        self._after = min([self._after, *(one.batch_id - 1 for one in batches)])
        self.resume_ms = resume_ms
        self.active = True

    def failed(self, batch_ids: Iterable[int]) -> None:
        """Leave batches in the file for the next run: the stream has refused them for good."""
        self._failed.update(batch_ids)


class _Transaction:
    """Commit all or nothing; a full disk and the like become one line."""

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


def _count(rows: pa.Table | dict[str, object]) -> int:
    return 1 if isinstance(rows, dict) else int(rows.num_rows)
