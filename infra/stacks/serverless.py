"""Build the serverless model: the pipeline behind an event source mapping, publisher and audit on a schedule."""

from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as functions
from constructs import Construct

from infra.settings import Deployment
from infra.stacks.data import Data
from infra.stacks.events import queue
from infra.stacks.logs import log_group
from infra.stacks.roles import service_role

__all__ = ["HANDLERS", "serverless"]

HANDLERS = {
    "function": "headwater.processors.runners.serverless.handler.handler",
    "function-publish": "headwater.processors.runners.serverless.jobs.publish",
    "function-audit": "headwater.processors.runners.serverless.jobs.audit",
}
_SECONDS = {"function": 300, "function-publish": 120, "function-audit": 600}
_EVERY = {"function-publish": Duration.minutes(1), "function-audit": Duration.minutes(15)}


def serverless(app: Any, deployed: Deployment, env: Any, data: Data) -> dict[str, Any]:
    """Return the functions by name, and the queue of batches that were given up as `given-up`."""
    made: dict[str, Any] = {}
    for name in HANDLERS:
        stack = Stack(app, f"{deployed.name}-{name}", env=env)
        made[name] = _function(stack, name, deployed, data)
        if name == "function":
            made["given-up"] = _mapped(stack, made[name], deployed, data)
        else:
            rule = events.Rule(stack, "Schedule", schedule=events.Schedule.rate(_EVERY[name]))
            rule.add_target(targets.LambdaFunction(made[name], retry_attempts=0))
    return made


def _function(stack: Any, name: str, deployed: Deployment, data: Data) -> Any:
    scope = Construct(stack, "Function")
    repository = ecr.Repository.from_repository_name(scope, "Repository", deployed.image_repository(name))
    return functions.DockerImageFunction(
        scope,
        "Function",
        function_name=f"{deployed.name}-{name}",
        code=functions.DockerImageCode.from_ecr(repository, tag_or_digest=deployed.image(name), cmd=[HANDLERS[name]]),
        role=service_role(scope, name, deployed, data.key, "lambda.amazonaws.com"),
        memory_size=2048,
        timeout=Duration.seconds(_SECONDS[name]),
        environment=deployed.environment,
        environment_encryption=data.key,
        log_group=log_group(scope, name, deployed),
    )


def _mapped(stack: Any, function: Any, deployed: Deployment, data: Data) -> Any:
    """The stream's mapping; what it gives up goes to a queue that the same function reads."""
    given_up = queue(stack, "given-up", deployed, 6 * _SECONDS["function"])
    functions.CfnEventSourceMapping(
        stack,
        "Mapping",
        function_name=function.function_name,
        event_source_arn=data.stream.stream_arn,
        starting_position="TRIM_HORIZON",
        batch_size=1_000,
        maximum_batching_window_in_seconds=5,
        # more than one would let two containers take each other's shard: see docs/operations/serverless.md
        parallelization_factor=1,
        bisect_batch_on_function_error=True,
        maximum_retry_attempts=10,
        maximum_record_age_in_seconds=deployed.retention_hours * 3600 // 2,
        function_response_types=["ReportBatchItemFailures"],
        destination_config=functions.CfnEventSourceMapping.DestinationConfigProperty(
            on_failure=functions.CfnEventSourceMapping.OnFailureProperty(destination=given_up.queue_arn)
        ),
    )
    functions.CfnEventSourceMapping(
        stack,
        "GivenUpMapping",
        function_name=function.function_name,
        event_source_arn=given_up.queue_arn,
        batch_size=1,
        function_response_types=["ReportBatchItemFailures"],
    )
    return given_up
