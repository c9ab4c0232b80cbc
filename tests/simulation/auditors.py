"""What has to hold when a run is over, each by an auditor that knows only the truth and the end state."""

import io
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.codec import Control, Decoded, decode_record
from headwater.errors import InvalidRecord
from headwater.lineage.foreign import is_foreign
from headwater.processors.audit.audit import audit
from headwater.processors.audit.report import AuditReport
from headwater.processors.generations import Serving
from headwater.processors.shard.snapshots import StateStore
from headwater.sinks.deadletter import DeadLetter, DeadLetters
from headwater.sinks.views.store import ViewStore
from tests.simulation.alerted import alerts
from tests.simulation.bucket import MEMORY
from tests.simulation.erased import ErasedViews, taken_away
from tests.simulation.foreigners import ODD, inside
from tests.simulation.ledgerguard import VIEWS
from tests.simulation.passed import passed_on
from tests.simulation.strangers import STRANGE, with_times
from tests.simulation.system import System
from tests.simulation.workload import WINDOW_MS, Event

__all__ = ["AUDITORS", "findings"]

Found = list[str]
Identity = tuple[str, int]
_CONTENT = ("device", "ts", "value", "n", "id")


def findings(system: System, finished: bool) -> Found:
    """What every auditor has to say, with its name before; nothing when all is right."""
    found: Found = []
    if not finished:
        found.append("liveness: not finished in time after the faults stopped")
    for name, auditor in AUDITORS.items():
        if not finished and name not in ALWAYS:
            continue
        try:
            found += [f"{name}: {line}" for line in auditor(system)]
        except Exception as error:  # an end state that cannot even be read is a finding
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


@lru_cache(maxsize=1)
def _lake(system: System) -> pa.Table:
    names = [*_CONTENT, "_origin", "_seq", "_arrived_at", "weight", "zone"]
    tables = [system.after.lake_schema.empty_table().select(names)]
    for uri in system.table.files:
        table = pq.ParquetFile(io.BytesIO(system.objects.get(uri.removeprefix(MEMORY)))).read(names)
        tables.append(table.cast(tables[0].schema))
    found = pa.concat_tables(tables)
    return found.filter(pc.not_equal(found["_origin"], STRANGE))


@lru_cache(maxsize=1)
def _rows(system: System) -> list[dict[str, Any]]:
    """The lake's rows, event time in epoch ms."""
    return with_times(_lake(system)).to_pylist()  # type: ignore[no-any-return]  # Arrow has no types


class Stream:
    """What is in the stream, decoded: each shard's identities in order, and how often each event of others."""

    def __init__(self, system: System) -> None:
        contract = system.after.contract
        self.shards: list[tuple[str, list[tuple[int, list[Identity]]]]] = []
        """By shard, parents first: for each record the reference version that it announces, or 0, and its events."""
        self.foreign = Counter[int]()
        """How often each event of others is there, on a shard that it belongs to."""
        self.places: dict[int, list[tuple[str, int]]] = {}
        """Places of each event's copies."""
        self.buried: set[tuple[str, int]] = set()
        """Where records lie of which each is one dead letter."""
        for shard in sorted(system.shards(), key=lambda one: one.shard_id):
            records = []
            for record in system.records(shard):
                mine = None if record.data in ODD else inside(record.data, shard)
                if record.data in ODD or (mine is not None and not all(mine)):
                    self.buried.add((shard.shard_id, record.number))
                if record.data in ODD:
                    continue
                try:
                    found = decode_record(record.data, contract)
                except InvalidRecord:
                    continue
                if isinstance(found, Control):
                    version = int(str(found.body["version"])) if found.kind == "reference" else 0
                    records.append((version, list[Identity]()))
                elif isinstance(found, Decoded):
                    table = found.table if mine is None else found.table.filter(pa.array(mine))
                    records.append((0, self._identities(found, table, contract.id is not None)))
                    for n in table["n"].to_pylist():
                        self.places.setdefault(n, []).append((shard.shard_id, record.number))
                    if table.num_rows and table["device"][0].as_py() == "foreign":
                        self.foreign.update(table["n"].to_pylist())
            self.shards.append((shard.shard_id, records))

    @staticmethod
    def _identities(found: Decoded, table: pa.Table, own: bool) -> list[Identity]:
        if own:
            return list(zip(table["device"].to_pylist(), table["id"].to_pylist(), strict=True))
        return [(found.origin, found.first_seq + at) for at in range(found.total)] if found.origin else []

    def by_origin(self) -> dict[str, set[int]]:
        """The identities that are there, of whatever shard."""
        found: dict[str, set[int]] = {}
        for _, records in self.shards:
            for _, events in records:
                for origin, seq in events:
                    found.setdefault(origin, set()).add(seq)
        return found


@lru_cache(maxsize=1)
def _stream(system: System) -> Stream:
    return Stream(system)


def _lake_is_truth(system: System) -> Found:
    """Each event there once, as it was meant, under an identity of its own, and no other."""
    truth, stream, rows = system.truth, _stream(system), _rows(system)
    got, gone = Counter[int](row["n"] for row in rows), taken_away(system, stream.places)
    deleted = Counter[int](row["n"] for row in system.strangers.deleted)
    found = [f"unknown event {n}" for n in got.keys() - truth.events.keys()]
    for row in rows:
        event = truth.events.get(row["n"])
        if event is not None and any(row[name] != value for name, value in event.row.items()):
            found.append(f"{row} is not as it was put: {event}")
    for n, event in truth.events.items():
        fewest, most = _times(system, stream, event)
        if n in gone:
            fewest, most = max(0, fewest - gone[n][1] - deleted[n]), max(0, most - gone[n][0])
        times = got[n] + deleted[n] * (n not in gone)
        if not fewest <= times <= most:
            found.append(f"{event}: {times} times in the lake or deleted, not {fewest} to {most}, {gone.get(n)} taken")
    taken = Counter((row["_origin"], row["_seq"]) for row in rows)
    return found + [f"identity {at} has {times} rows" for at, times in taken.items() if times > 1]


def _times(system: System, stream: Stream, event: Event) -> tuple[int, int]:
    """How often an event may be in the lake: once, but for filters, strangers, and outboxes that were put back."""
    truth, n = system.truth, event.n
    if n in system.foreign:
        times = stream.foreign[n]
        if system.flavour.own:
            return (min(times, 1),) * 2
        # of an aggregate that is there twice the reader drops what it awaits
        return min(times, 1) if n in system.foreigners.aggregated else times, times
    if n in system.meter.clashed:
        return 0, 0
    if not event.kept:
        return 0, 0
    fewest = int(n in truth.accepted and n not in truth.lost)
    return fewest, 2 if n in truth.doubled and not system.flavour.own else 1


def _passed_on(system: System) -> Found:
    """What goes on goes once; of a key that was forgotten by its origin copies that came again are new."""
    stream, eraser = _stream(system), system.eraser
    times = {}
    for n, event in system.truth.events.items():
        fewest, most = _times(system, stream, event)
        again = system.flavour.own and eraser is not None and event.device == eraser.key and most
        times[n] = (fewest, max(most, len(stream.places.get(n, ()))) if again else most)
    return passed_on(system, times)


def _files(system: System) -> Found:
    """Each referenced file is there, and named once."""
    found = [f"{uri} named {times} times" for uri, times in Counter(system.table.files).items() if times > 1]
    return found + [
        f"{uri} is no object" for uri in system.table.files if uri.removeprefix(MEMORY) not in system.objects.bodies
    ]


def _views(system: System) -> Found:
    """Every view over the lake's rows, which are the truth's by another auditor, computed here in plain Python."""
    erased = ErasedViews(system, _stream(system).places)
    windows: dict[tuple[str, int], tuple[int, int]] = {}
    ever: dict[str, tuple[int, int, int]] = {}
    zones = Counter[tuple[int | None, str]]()
    for row in [*_rows(system), *system.strangers.deleted]:
        at, value = (row["device"], row["ts"] // WINDOW_MS * WINDOW_MS), row["value"]
        old = windows.get(at, (0, 0))
        windows[at] = old[0] + 1, old[1] + row["weight"]
        times, highest, lowest = ever.get(row["device"], (0, value, value))
        ever[row["device"]] = times + 1, max(highest, value), min(lowest, value)
        zones[row["zone"], row["device"]] += 1
        erased.add(row)
    by_zone = Counter[int | None]()
    for (zone, _), times in zones.items():
        by_zone[zone] += times
    store, serving = ViewStore(system.dynamodb, VIEWS), Serving(system.ledger, system.after, system.clock).views()
    rows = {name: list(store.rows(view.spec)) for name, view in serving.items()}
    window = {(row["device"], _ms(str(row["window_start"]))): (row["events"], row["total"]) for row in rows["by_time"]}
    found = erased.judged("by_time", windows, window) + _differ("by_time", windows, window)
    if serving["ever"].version == 1:
        want, got = {at: one[:2] for at, one in ever.items()}, _columns(rows["ever"], "events", "highest")
    else:
        want, got = {at: one[::2] for at, one in ever.items()}, _columns(rows["ever"], "events", "lowest")
    found += erased.judged("ever", want, got) + _differ("ever", want, got)
    if serving["by_zone"].version == 1:
        stored = {row["zone"]: row["events"] for row in rows["by_zone"]}
        return found + (erased.kept(by_zone, stored) if erased.key else _differ("by_zone", dict(by_zone), stored))
    stored = {(row["zone"], row["device"]): row["events"] for row in rows["by_zone"]}
    found += erased.judged("by_zone, rebuilt", zones, stored)
    return found + _differ("by_zone, rebuilt", dict(zones), stored)


def _columns(rows: list[dict[str, Any]], *names: str) -> dict[str, tuple[Any, ...]]:
    return {row["device"]: tuple(row[name] for name in names) for row in rows}


def _differ(name: str, want: object, got: object) -> Found:
    assert isinstance(want, dict)
    assert isinstance(got, dict)
    places = sorted({*want, *got}, key=repr)
    return [f"{name} {at}: {got.get(at)}, not {want.get(at)}" for at in places if want.get(at) != got.get(at)]


def _ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso).astimezone(UTC).timestamp() * 1000)


def _letters(system: System) -> Found:
    """One letter for each event that broke its contract or failed in a function, and for each odd record too.

    And each event under an identity of another's is in one that is of its record.
    """
    truth, buried = system.truth, _stream(system).buried
    at = Counter[tuple[str, int]]()
    events, others = 0, list[DeadLetter]()
    for letter in DeadLetters(system.objects).list(system.after.name):
        where = letter.shard_id, int(letter.sequence_number)
        if where in buried:
            at[where] += 1
        elif letter.index is not None:
            events += 1
        else:
            others.append(letter)
    dead = [event.n for event in truth.events.values() if event.dead and event.n not in system.foreign]
    key = system.eraser.key if system.eraser else None
    fewest = sum(n in truth.accepted and n not in truth.lost and truth.events[n].device != key for n in dead)
    most = len(dead) + sum(n in truth.doubled for n in dead)
    spared = (0, 1) if key == "foreign" else (1,)
    found = [f"{at[where]} letters of the record at {where}" for where in buried if at[where] not in spared]
    if not fewest <= events <= most:
        found.append(f"{events} letters of events, {fewest} to {most} events are dead")
    return found + _clashes(system, others)


def _clashes(system: System, letters: list[DeadLetter]) -> Found:
    clashed = system.meter.clashed
    said = {json.loads(line)["n"] for letter in letters for line in letter.payload.splitlines()}
    found = [f"a letter of event {n}, which is in nobody's place" for n in said - clashed]
    # contents that another version of the contract has seen cannot be compared
    if not system.world.fired["* upgrade"] and system.eraser is None:
        found += [f"event {n} was dropped as a copy of another" for n in (clashed & system.truth.accepted) - said]
    return found


def _producers(system: System) -> Found:
    """No failure that passes has ended a batch, and of two pipelines one has the table that both want."""
    found, rivals = list(system.twins.alarms), system.rivals
    if "rivals" in system.operations and (len(rivals.winners), len(rivals.refused)) != (1, 1):
        found.append(f"of two rivals {sorted(rivals.winners)} have the table, {sorted(rivals.refused)} are refused")
    return found


def _references(system: System) -> Found:
    """Each event is joined with the version that its shard had heard of where it stands for the first time."""
    parents = {shard.shard_id: shard.parents for shard in system.shards()}
    opened = {shard.shard_id for shard in system.shards() if shard.closed is None}
    ends: dict[str, int] = {}
    want: dict[Identity, int] = {}
    for shard_id, records in _stream(system).shards:
        version = max((ends[parent] for parent in parents[shard_id]), default=1)
        for announced, events in records:
            version = max(version, announced)
            for at in events:
                want.setdefault(at, version)
        ends[shard_id] = version
    got = {(row["_origin"], row["_seq"]): row["zone"] for row in _rows(system) if row["zone"] is not None}
    key = system.eraser.key if system.eraser and system.flavour.own else None  # copies of what was forgotten are new
    wrong = {at: zone for at, zone in got.items() if want.get(at) != zone and at[0] != key}
    found = [f"{at}: joined with version {zone}, not {want.get(at)}" for at, zone in wrong.items()]
    behind = sorted(shard_id for shard_id in opened if ends[shard_id] < system.published)
    return found + [f"{shard_id} never heard of version {system.published}" for shard_id in behind]


def _ledger(system: System) -> Found:
    return list(system.dynamodb.violations)


def _exact(system: System, report: AuditReport) -> bool:
    """Whether the audit says of everything that it is right, and of the rows that somebody deleted that they miss."""
    deleted = Counter((row["_origin"], row["_seq"]) for row in system.strangers.deleted)
    foreign = sum(times for (origin, _), times in deleted.items() if is_foreign(origin))
    own = {at for at in deleted if not is_foreign(at[0])}
    said = {
        (one.origin, seq) for one in report.origins for start, stop in one.not_in_lake for seq in range(start, stop)
    }
    key = system.eraser.key if system.eraser and system.flavour.own else None
    # what is quarantined waits; a row that was taken out, came back and was forgotten then is excluded, no more missing
    spared = {at for at, row in system.strangers.taken.items() if system.eraser and row["device"] == system.eraser.key}
    spared |= system.strangers.rows_of(system.quarantined()).keys()
    own, said = ({at for at in some if at[0] != key and at not in spared} for some in (own, said))
    others = all(
        one.origin == key or not (one.not_processed or one.unexpected or one.duplicates) for one in report.origins
    )
    unsure = sum(is_foreign(at[0]) for at in spared)
    there = foreign - unsure <= report.foreign.missing <= foreign and not (
        report.foreign.duplicates or report.foreign.unexpected
    )
    # after 30 days a session is forgotten, and with it what was deleted of it
    named = said <= own if system.archive else said == own
    return named and others and there


def _audited(system: System) -> Found:
    """The pipeline's own audit: exact, with every identity of the stream processed, and it never said else."""
    entries = system.ledger.shards()
    store = StateStore(system.after, system.objects)
    states = [store.load(entry) for entry in entries]
    report = audit(system.after.name, entries, states, _lake(system).to_batches())
    found = list(system.alarms)
    if not _exact(system, report):
        found.append(f"not exact: {[one for one in report.origins if not one.exact]} {report.foreign}")
    processed = Counter({one.origin: one.processed for one in report.origins})
    told = Counter({one.origin: one.accepted or 0 for one in report.origins})
    # only a session's own outbox remembers what no receipt has named yet
    whole = not system.flavour.own and not any(one.restored for one in system.applications)
    # and after 30 days the shards that go on forget a session with its receipts, those that have ended nothing
    whole &= not system.archive
    for origin, seqs in _stream(system).by_origin().items():
        if system.flavour.own and system.eraser and origin == system.eraser.key:
            continue  # forgotten with its key
        if system.archive and processed[origin] < len(seqs):
            continue  # after 30 days an origin is forgotten: that the audit knows it is in `_exact`
        complete = whole and any(origin in one.origins for one in system.applications)
        if processed[origin] != len(seqs) or told[origin] > len(seqs) or (complete and told[origin] != len(seqs)):
            found.append(
                f"{origin}: {len(seqs)} events, {processed[origin]} processed, {told[origin]} told in receipts"
            )
    return found


AUDITORS: dict[str, Callable[[System], Found]] = {
    "ledger": _ledger,
    "producers": _producers,
    "files": _files,
    "lake": _lake_is_truth,
    "views": _views,
    "letters": _letters,
    "references": _references,
    "alerts": alerts,
    "to stream": _passed_on,
    "audit": _audited,
}
ALWAYS = ("ledger", "files")
"""What has to hold of a run that did not finish, too."""
