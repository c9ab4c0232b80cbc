"""What has to hold when a run is over, each by an auditor that knows only the truth and the end state."""

import io
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.codec.control import decode_control, is_control
from processors.audit import audit
from processors.worker import StateStore
from sinks.deadletter import DeadLetters
from sinks.views import ViewStore
from tests.simulation.ledgerguard import VIEWS
from tests.simulation.system import POISON, STRANGE, STREAM, System
from tests.simulation.workload import PIPELINE, Event

__all__ = ["AUDITORS", "findings"]

Found = list[str]


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


def _lake(system: System) -> pa.Table:
    names = ["device", "ts", "value", "_origin", "_seq", "zone"]
    tables = [PIPELINE.lake_schema.empty_table().select(names)]
    for uri in _ours(system):
        body = system.objects.get(uri.removeprefix("s3://memory/"))
        table = pq.read_table(io.BytesIO(body), columns=names)
        tables.append(table.cast(tables[0].schema))
    return pa.concat_tables(tables)


def _ours(system: System) -> list[str]:
    return [uri for uri in system.table.files if not uri.startswith(STRANGE)]


def _kept(system: System) -> dict[tuple[str, int], Event]:
    return {at: one for session in system.sessions for at, one in session.truth.items() if one.kept}


def _foreign(system: System) -> int:
    return sum(
        one.data.startswith(b'{"device": "f"') for shard in system.kinesis.shards(STREAM) for one in shard.records
    )


def _lake_is_truth(system: System) -> Found:
    """Each event there once, as it was meant, and no other."""
    table = _lake(system)
    ts = table["ts"].cast(pa.int64()).to_pylist()
    rows = zip(
        table["_origin"].to_pylist(),
        table["_seq"].to_pylist(),
        table["device"].to_pylist(),
        ts,
        table["value"].to_pylist(),
        strict=True,
    )
    own, foreign = Counter[tuple[str, int, str, int, int]](), 0
    for row in rows:
        if row[2] == "f":
            foreign += 1
        else:
            own[row] += 1
    want = Counter((*at, one.device, one.ts, one.value) for at, one in _kept(system).items())
    found = [f"missing {row}" for row in want - own] + [f"too often or wrong {row}" for row in own - want]
    if foreign != _foreign(system):
        found.append(f"{foreign} foreign events in the lake, {_foreign(system)} in the stream")
    return found


def _files(system: System) -> Found:
    """Each referenced file is there, and named once."""
    found = [f"{uri} named {times} times" for uri, times in Counter(system.table.files).items() if times > 1]
    return found + [
        f"{uri} is no object" for uri in _ours(system) if uri.removeprefix("s3://memory/") not in system.objects.bodies
    ]


def _views(system: System) -> Found:
    """Both views over all kept events, computed here in plain Python."""
    events = [(one.device, one.ts, one.value) for one in _kept(system).values()]
    for shard in system.kinesis.shards(STREAM):
        for record in shard.records:
            if record.data.startswith(b'{"device": "f"'):
                events.append(("f", int(record.data.split(b":")[2].split(b",")[0]), 7))
    minutes: dict[tuple[str, int], tuple[int, int]] = {}
    ever: dict[str, tuple[int, int]] = {}
    for device, ts, value in events:
        at = device, ts // 60_000 * 60_000
        old = minutes.get(at, (0, 0))
        minutes[at] = old[0] + 1, old[1] + value
        before = ever.get(device, (0, -1))
        ever[device] = before[0] + 1, max(before[1], value)
    store = ViewStore(system.dynamodb, VIEWS)
    specs = {view.name: view.spec for view in PIPELINE.views}
    stored = {
        (row["device"], _ms(str(row["window_start"]))): (row["events"], row["total"])
        for row in store.rows(specs["by_minute"])
    }
    stored_ever = {row["device"]: (row["events"], row["highest"]) for row in store.rows(specs["ever"])}
    by_zone = {row["zone"]: row["events"] for row in store.rows(specs["by_zone"])}
    zones = dict(Counter(_lake(system)["zone"].to_pylist()))
    return (
        _differ("by_minute", minutes, stored) + _differ("ever", ever, stored_ever) + _differ("by_zone", zones, by_zone)
    )


def _differ(name: str, want: object, got: object) -> Found:
    assert isinstance(want, dict)
    assert isinstance(got, dict)
    places = sorted({*want, *got}, key=repr)
    return [f"{name} {at}: {got.get(at)}, not {want.get(at)}" for at in places if want.get(at) != got.get(at)]


def _ms(iso: str) -> int:
    return round(datetime.fromisoformat(iso).astimezone(UTC).timestamp() * 1000)


def _letters(system: System) -> Found:
    """One letter for each event that broke its contract or failed in a function, and for each poison record."""
    letters = list(DeadLetters(system.objects).list(PIPELINE.name))
    dead = sum(one.dead for session in system.sessions for one in session.truth.values())
    poison = sum(one.data == POISON for shard in system.kinesis.shards(STREAM) for one in shard.records)
    got = Counter(letter.index is None for letter in letters)
    found = []
    if got[False] != dead:
        found.append(f"{got[False]} letters of events, {dead} events are dead")
    if got[True] != poison:
        found.append(f"{got[True]} letters of records, {poison} records are poison")
    return found


def _references(system: System) -> Found:
    """Each event is joined with the version that its shard had heard of where it stands for the first time."""
    sealed = {batch.payload: (one.numbers.origin, batch) for one in system.sessions for batch in one.outbox.batches}
    ends: dict[str, int] = {}
    want: dict[tuple[str, int], int] = {}
    shards = sorted(system.kinesis.shards(STREAM), key=lambda shard: shard.shard_id)  # parents have smaller numbers
    for shard in shards:
        version = max((ends[parent] for parent in shard.parents), default=1)
        for record in shard.records:
            if record.data in sealed:
                origin, batch = sealed[record.data]
                for at in range(batch.first_seq, batch.first_seq + batch.count):
                    want.setdefault((origin, at), version)
            elif is_control(record.data):
                control = decode_control(record.data)
                if control.kind == "reference":
                    version = max(version, int(str(control.body["version"])))
        ends[shard.shard_id] = version
    table = _lake(system).select(["_origin", "_seq", "zone"]).to_pylist()
    got = {(row["_origin"], row["_seq"]): row["zone"] for row in table if row["zone"] is not None}
    found = [
        f"{at}: joined with version {zone}, not {want.get(at)}" for at, zone in got.items() if want.get(at) != zone
    ]
    behind = [shard.shard_id for shard in shards if shard.closed is None and ends[shard.shard_id] < system.published]
    return found + [f"{shard_id} never heard of version {system.published}" for shard_id in behind]


def _ledger(system: System) -> Found:
    return list(system.dynamodb.violations)


def _audited(system: System) -> Found:
    """The pipeline's own audit: no interval is missing, everything accepted was processed, and it never said else."""
    entries = system.ledger.shards()
    store = StateStore(PIPELINE, system.objects)
    states = [store.load(entry) for entry in entries]
    report = audit(PIPELINE.name, entries, states, _lake(system).to_batches())
    found = list(system.alarms)
    if not report.exact:
        found.append(f"not exact: {[one for one in report.origins if not one.exact]} {report.foreign}")
    for session in system.sessions:
        want = session.numbers.next_seq
        got = sum(one.processed for one in report.origins if one.origin == session.numbers.origin)
        told = sum(one.accepted or 0 for one in report.origins if one.origin == session.numbers.origin)
        if want not in (got,) or told != want:
            found.append(f"{session.numbers.origin}: {want} events, {got} processed, {told} told in receipts")
    return found


AUDITORS: dict[str, Callable[[System], Found]] = {
    "ledger": _ledger,
    "files": _files,
    "lake": _lake_is_truth,
    "views": _views,
    "letters": _letters,
    "references": _references,
    "audit": _audited,
}
ALWAYS = ("ledger", "files")
"""What has to hold of a run that did not finish, too."""
