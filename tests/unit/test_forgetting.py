"""A privacy request is refused while there are rows that it would not find."""

from dataclasses import asdict, replace

import pytest

from headwater.aggregates import count
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.erasure.forget import forget
from headwater.processors.generations import DOCUMENT, Generation, Generations
from tests.unit.test_rebuild_seam import services_of
from tests.unit.test_rollups import World

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
