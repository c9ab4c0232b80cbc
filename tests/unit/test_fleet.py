"""The simulated fleet: the same each time, in the contract, and as rough as asked."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract import conform, load_contract
from headwater.testing.fleet import Fleet

TELEMETRY = load_contract("telemetry")


def all_of(fleet: Fleet, events: int, batch: int = 10_000) -> pa.Table:
    return pa.concat_tables(list(fleet.batches(events, batch))).unify_dictionaries().combine_chunks()


def test_events_conform_to_the_contract_and_strings_are_coded() -> None:
    table = all_of(Fleet(devices=200), 25_000)
    found = conform(TELEMETRY, table)
    assert table.num_rows == 25_000
    assert not found.invalid
    assert found.table.cast(TELEMETRY.arrow_schema).schema == TELEMETRY.arrow_schema
    assert all(pa.types.is_dictionary(table.schema.field(name).type) for name in ("device", "metric", "status"))
    assert len(pc.unique(table["device"])) == 200
    assert "dev-00001" in pc.unique(table["device"]).to_pylist()
    assert len(pc.unique(table["metric"])) == 8


def test_the_same_seed_gives_the_same_events_and_another_others() -> None:
    assert all_of(Fleet(seed=3), 5_000).equals(all_of(Fleet(seed=3), 5_000))
    assert not all_of(Fleet(seed=3), 5_000).equals(all_of(Fleet(seed=4), 5_000))


def test_event_time_moves_with_a_little_disorder_and_the_late_share() -> None:
    table = all_of(Fleet(devices=100, start_ms=1_000_000_000, late=0.01), 100_000)
    ts = table["ts"].cast(pa.int64()).to_numpy()
    behind = np.maximum.accumulate(ts) - ts
    assert 20 * 60_000 < ts.max() - 1_000_000_000 < 60 * 60_000
    assert 0.005 < (behind > 55_000).mean() < 0.015
    assert behind.max() < 11 * 60_000
    assert (np.diff(ts) < 0).mean() > 0.2
    assert not (behind[: len(ts)] > 5_000)[behind < 55_000].any()


def test_duplicates_are_rows_that_come_again_a_little_later() -> None:
    table = all_of(Fleet(devices=100, duplicates=0.05), 20_000)
    rows = table.to_pylist()
    assert 20_700 < len(rows) < 21_300
    assert len({tuple(row.values()) for row in rows}) == 20_000
