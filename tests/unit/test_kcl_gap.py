"""A record on which the engine fails, in what the KCL did not deliver: read again without it, never for ever."""

from collections.abc import Sequence

import pytest

from headwater.processors.engine.engine import Effects, Engine
from headwater.stream import StreamRecord
from tests.unit.test_kcl_shard import Machine


def test_a_gap_with_a_record_that_the_engine_fails_on_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is ahead of the ledger, so the shard reads the records between by itself."""
    machine, process = Machine(), Engine.process
    for number in range(1, 6):
        machine.stream.add(number)

    def failing(engine: Engine, records: Sequence[StreamRecord]) -> Effects:
        if any(record.sequence_number == "3" for record in records):
            raise ValueError("no engine is without faults")
        return process(engine, records)

    monkeypatch.setattr(Engine, "process", failing)
    machine.started(checkpoint="5")
    assert machine.committed == "5"
    letters = [key for key in machine.objects.bodies if key.startswith("dlq/")]
    assert len(letters) == 1
