"""Define the AWS Lambda function behind a Kinesis event source mapping:
`headwater.processors.runners.serverless.handler.handler`.

It is set by the same HEADWATER_ variables as every other runner. Importing this module loads the pipeline, so that
Lambda does so before the first batch comes; the first batch makes the first calls to AWS.
"""

from typing import Any

from headwater.clock import SystemClock
from headwater.config import read_settings
from headwater.processors.definition.loading import load
from headwater.processors.runners.serverless.shards import LambdaShards
from headwater.processors.services import Services, new_owner
from headwater.telemetry.logs import to_stdout

__all__ = ["handler"]


class _Function:
    def __init__(self) -> None:
        settings = read_settings()
        to_stdout(settings.log_level)
        pipeline = load(settings.pipeline)
        self._services = Services(settings, pipeline, SystemClock())
        self._shards: LambdaShards | None = None

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        if self._shards is None:
            self._services.prepare()
            self._shards = LambdaShards(
                self._services.pipeline,
                self._services.kinesis,
                self._services.ports,
                self._services.settings,
                self._services.clock,
                new_owner,
            )
        return self._shards.invoke(event, context.get_remaining_time_in_millis)


handler = _Function()
"""Takes `(event, context)` and returns the partial batch response; raises when nothing of a batch was committed."""
