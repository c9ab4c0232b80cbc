"""Two pipelines that want one lake table and start at the same moment: one of them gets it."""

from dataclasses import dataclass, field
from typing import Any

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.claims import REGISTRY, claim_names
from headwater.processors.definition.pipeline import Pipeline
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.workload import SESSIONS
from tests.simulation.world import Proxy, World

__all__ = ["Rivals"]


@dataclass
class Rivals:
    """Who was let in, and who was refused."""

    world: World
    dynamodb: Any
    settings: Settings
    winners: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def start(self, name: str) -> None:
        """Claim what the pipeline of this name writes to, as a processor does before it reads."""
        pipeline = Pipeline(name, SESSIONS.before.contract).lake("shared")
        registry = Ledger(Proxy(self.world, "dynamodb", self.dynamodb), LEDGER, REGISTRY)
        try:
            claim_names(pipeline, self.settings, "memory", registry)
        except UsageError as error:
            self.world.note(f"{name}: {error}")
            self.refused.add(name)
        else:
            self.winners.add(name)
            self.world.fired["* rivals"] += 1
