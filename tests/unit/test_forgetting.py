"""A privacy request is refused while there are rows that it would not find."""

from dataclasses import asdict, replace

import pytest

from headwater.aggregates import count
from headwater.errors import UsageError
from headwater.ledger import PendingFile
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.erasure.forget import forget
from headwater.processors.erasure.ports import change_state
from headwater.processors.generations import DOCUMENT, Generation, Generations
from headwater.processors.ports import PipelineStores
from headwater.processors.published import pending_files, wait_until_published
from headwater.processors.shard import snapshots
from headwater.processors.shard.worker import ShardWorker
from tests.lake import commit
from tests.typed import a_key
from tests.unit.test_rebuild_seam import services_of
from tests.unit.test_rollups import World
from tests.unit.test_view_versions import SHARD, Deployments

PIPELINE = Pipeline("rollups", contract="telemetry").view("total", by=["device"], n=count()).lake("telemetry")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Generations(Generation(1, 1)).begun(1), "is being built"),
        (Generations(Generation(1, 1)).begun(1).switched(5), "view rebuild total"),
        (replace(Generations(Generation(1, 1)), last=2, retired=(2,)), "view rebuild total"),
    ],
    ids=["built", "switched", "given up"],
)
def test_rows_of_another_generation_are_dropped_first(one: Generations, said: str) -> None:
    services = services_of(World(350_000, PIPELINE), PIPELINE)
    services.ledger.put_document(DOCUMENT, {"total": asdict(one)}, 0)
    with pytest.raises(UsageError, match=said):
        forget(services.erasure_ports, "dev-1", "me", lambda: None)


def test_a_shard_that_has_committed_nothing_goes_on_with_what_its_parent_has_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent's state is too large for the ledger's item of the child, which has none of its own yet."""
    monkeypatch.setattr(snapshots, "INLINE_STATE", 16)
    world = Deployments()
    parent = world.owner(float)
    parent.process(world.records)
    parent.commit(closed=True)

    def seen() -> int:
        return ShardWorker.claim(parent.context, "shardId-000000000001", [SHARD]).engine.state.seen.count()

    assert seen() == 9
    stores = PipelineStores(parent.pipeline, world.ledger, world.objects, world.clock)  # type: ignore[arg-type]  # in memory
    for entry in world.ledger.shards():
        change_state(
            stores, entry.shard_id, "forget", lambda state: state.forget(a_key("device", "e"), is_origin=False)
        )
    assert seen() == 9


def test_only_files_that_are_pending_when_it_begins_are_waited_for() -> None:
    """On a busy stream some file is always on its way to the table."""
    services, committed = services_of(World(350_000, PIPELINE), PIPELINE), 0

    def commit_one() -> None:
        nonlocal committed
        committed += 1
        commit(services.ledger, "s", committed, [PendingFile("t", f"s3://b/{committed}.parquet", 1, 1)])

    def publish() -> None:
        entry = services.ledger.shard("s")
        assert entry is not None
        commit_one()
        services.ledger.take(entry, [0])

    commit_one()
    ledger = services.ledger
    wait_until_published(ledger, pending_files(ledger), publish)
    assert committed == 2
