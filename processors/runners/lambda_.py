"""The AWS Lambda function behind a Kinesis event source mapping: `processors.runners.lambda_.handler`.

It is set by the same HEADWATER_ variables as every other runner. Importing this module wires it, so that Lambda does
so before the first batch comes.
"""

from typing import Any

from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.logs import to_stdout
from processors.pipeline import load
from processors.references import ensure_initial
from processors.runners.lambdashards import LambdaShards
from processors.services import Services, new_owner

__all__ = ["handler"]


class _Function:
    def __init__(self) -> None:
        settings = Settings()
        to_stdout(settings.log_level)
        pipeline = load(settings.pipeline)
        self._services = services = Services(settings, pipeline, SystemClock())
        self._shards = LambdaShards(pipeline, services.kinesis, services.ports, settings, services.clock, new_owner)
        self._ready = False

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        if not self._ready:
            services = self._services
            ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
            self._ready = True
        return self._shards.invoke(event, context.get_remaining_time_in_millis)


handler = _Function()
"""`handler(event, context)`: the partial batch response for the mapping; raises when nothing of a batch was taken."""
