"""What the templates say."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headwater.config import GatewaySettings, KclSettings, ServeSettings, Settings
from headwater.errors import UsageError
from headwater.web.http_server import KEEP_ALIVE_SECONDS
from infra.settings import SERVICES, deployment
from tests.infra.synthesis import GIVEN, Synthesis, synthesize

ROOT = Path(__file__).parents[2]
EXPLAINED = {"S1", "KDS3", "ECS2", "ECS4", "EC23", "IAM5"}
"""Rules of AwsSolutions that something is excused from; a new one is a decision, and belongs here."""


_RULE = re.compile(r"AwsSolutions-(\w+)")


def acknowledged(made: Synthesis) -> dict[str, str]:
    """Reason by finding, of a whole synthesis."""
    found: dict[str, str] = {}
    for path in made.folder.glob("*.metadata.json"):
        for entries in json.loads(path.read_text()).values():
            for entry in entries:
                if entry["type"] == "aws:cdk:acknowledged-rules":
                    found |= {name: why for name, why in entry["data"].items() if _RULE.search(name)}
    return found


def test_every_suppression_is_explained(containers: Synthesis, serverless: Synthesis) -> None:
    found = acknowledged(containers) | acknowledged(serverless)
    assert {match[1] for match in map(_RULE.search, found) if match} == EXPLAINED
    assert [name for name, why in found.items() if len(why) < 30] == []


def test_an_unexplained_finding_stops_the_synthesis(node: None, tmp_path: Path) -> None:
    from aws_cdk import App, Stack, Validations
    from aws_cdk import aws_sns as sns
    from cdk_nag import AwsSolutionsChecks

    app = App(outdir=str(tmp_path))
    sns.Topic(Stack(app, "open"), "Topic")
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()


def test_cfn_lint_finds_nothing(containers: Synthesis, serverless: Synthesis) -> None:
    templates = [str(path) for made in (containers, serverless) for path in made.folder.glob("*.template.json")]
    linter = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([linter, *templates], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_data_stack_is_as_it_was(serverless: Synthesis) -> None:
    """A changed property here may replace what holds data: look at it, then write the file anew."""
    path = Path(__file__).with_name("data.json")
    found = json.loads(json.dumps(serverless.templates["data"]["Resources"]))
    for resource in found.values():
        resource.pop("Metadata", None)
    assert found == json.loads(path.read_text())


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_no_role_may_do_everything(containers: Synthesis, serverless: Synthesis) -> None:
    """No `*` in an action, and every resource is named, but for what AWS lets nobody name."""
    for made in (containers, serverless):
        for stack, statement in made.statements():
            actions = as_list(statement["Action"])
            assert not [action for action in actions if "*" in action], (stack, statement)
            if "*" in as_list(statement["Resource"]):
                assert actions == ["ecr:GetAuthorizationToken"], (stack, statement)


def test_each_service_has_a_role_of_its_own(containers: Synthesis, serverless: Synthesis) -> None:
    for made in (containers, serverless):
        tasks = [one["Properties"]["TaskRoleArn"] for _, one in made.of("AWS::ECS::TaskDefinition")]
        functions = [one["Properties"]["Role"] for _, one in made.of("AWS::Lambda::Function")]
        stacks = [stack for stack, _ in made.of("AWS::ECS::TaskDefinition") + made.of("AWS::Lambda::Function")]
        assert len(tasks + functions) == len(set(stacks)) == 7
        for stack in stacks:
            assert made.role(stack), stack


def test_only_publisher_and_maintenance_may_change_the_catalog(containers: Synthesis) -> None:
    may = {stack for stack, one in containers.statements() if "glue:UpdateTable" in as_list(one["Action"])}
    assert may == {"publish", "maintain"}


def test_the_query_api_only_reads(containers: Synthesis) -> None:
    verbs = {action.split(":")[1] for one in containers.role("serve") for action in as_list(one["Action"])}
    assert all(re.match("Get|BatchGet|Describe|List|Query|Scan|Decrypt", verb) for verb in verbs), verbs


def test_stream(containers: Synthesis, serverless: Synthesis) -> None:
    ((_, prod),) = containers.of("AWS::Kinesis::Stream")
    ((_, dev),) = serverless.of("AWS::Kinesis::Stream")
    assert prod["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS"
    assert (prod["Properties"]["ShardCount"], prod["Properties"]["RetentionPeriodHours"]) == (8, 168)
    assert prod["DeletionPolicy"] == "Retain"
    assert dev["Properties"]["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert "ShardCount" not in dev["Properties"]


def test_tables(containers: Synthesis) -> None:
    tables = {one["Properties"]["TableName"]: one for _, one in containers.of("AWS::DynamoDB::Table")}
    assert set(tables) == {f"headwater-prod-{name}" for name in ("ledger", "views", "keys")}
    for name, table in tables.items():
        found = table["Properties"]
        assert found["BillingMode"] == "PAY_PER_REQUEST"
        assert found["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
        assert found["DeletionProtectionEnabled"]
        assert found["SSESpecification"]["SSEType"] == "KMS"
        assert table["DeletionPolicy"] == "Retain"
        expires = found.get("TimeToLiveSpecification", {}).get("AttributeName")
        assert expires == (None if name.endswith("ledger") else "expires"), "what the ledger knows must not end"


def test_bucket(containers: Synthesis) -> None:
    buckets = {one["Properties"]["BucketName"]: one["Properties"] for _, one in containers.of("AWS::S3::Bucket")}
    for found in buckets.values():
        assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    rules = buckets[containers.deployed.bucket]["LifecycleConfiguration"]["Rules"]
    ending = {rule["Prefix"] for rule in rules if "ExpirationInDays" in rule}
    assert ending == {"redriven/", "athena/"}, "neither lake nor dead letters nor states expire"
    policies = json.dumps([one["Properties"] for _, one in containers.of("AWS::S3::BucketPolicy")])
    assert policies.count('"aws:SecureTransport": "false"') == 2


def test_athena_reads_no_more_than_its_limit(containers: Synthesis) -> None:
    ((_, group),) = containers.of("AWS::Athena::WorkGroup")
    settings = group["Properties"]["WorkGroupConfiguration"]
    assert settings["EnforceWorkGroupConfiguration"] is True
    assert settings["BytesScannedCutoffPerQuery"] == 1_000_000_000_000
    assert settings["ResultConfiguration"]["EncryptionConfiguration"]["EncryptionOption"] == "SSE_KMS"


def test_containers_are_not_root_and_write_nowhere_but_tmp(containers: Synthesis) -> None:
    for stack, one in containers.of("AWS::ECS::TaskDefinition"):
        (container,) = one["Properties"]["ContainerDefinitions"]
        assert container["User"] == "10001", stack
        assert container["ReadonlyRootFilesystem"] is True
        assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp"]
        assert "Privileged" not in container
        assert container["Command"] == list(SERVICES[stack].command)
        assert "Secrets" not in container
        assert "@sha256:" in json.dumps(container["Image"]), "an image is named by its digest"


def known_variables() -> set[str]:
    models: dict[str, type[BaseModel]] = {
        "": Settings,
        "KCL_": KclSettings,
        "GATEWAY_": GatewaySettings,
        "SERVE_": ServeSettings,
    }
    return {f"HEADWATER_{prefix}{name.upper()}" for prefix, model in models.items() for name in model.model_fields}


def test_every_variable_is_a_setting(containers: Synthesis, serverless: Synthesis) -> None:
    names = {
        pair["Name"]
        for _, one in containers.of("AWS::ECS::TaskDefinition")
        for pair in one["Properties"]["ContainerDefinitions"][0]["Environment"]
    }
    for _, function in serverless.of("AWS::Lambda::Function"):
        names |= set(function["Properties"]["Environment"]["Variables"])
    assert names - known_variables() == set()


def test_services_roll_back_by_themselves_and_have_no_public_address(containers: Synthesis) -> None:
    services = containers.of("AWS::ECS::Service")
    assert {stack for stack, _ in services} == {"gateway", "serve", "kcl", "publish", "maintain", "alerts"}
    for stack, one in services:
        deploys = one["Properties"]["DeploymentConfiguration"]
        assert deploys["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        assert (deploys["MinimumHealthyPercent"], deploys["MaximumPercent"]) == (100, 200)
        assert one["Properties"]["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
        assert one["Properties"]["DesiredCount"] == SERVICES[stack].copies[0] == (1 if stack == "maintain" else 2)


def test_processors_scale_on_lag_and_cpu(containers: Synthesis) -> None:
    policies = [one["Properties"] for _, one in containers.of("AWS::ApplicationAutoScaling::ScalingPolicy", "kcl")]
    assert {one["PolicyType"] for one in policies} == {"TargetTrackingScaling", "StepScaling"}
    watched = json.dumps([one["Properties"] for _, one in containers.of("AWS::CloudWatch::Alarm", "kcl")])
    assert "GetRecords.IteratorAgeMilliseconds" in watched


def test_load_balancers_take_tls_only(containers: Synthesis) -> None:
    listeners = containers.of("AWS::ElasticLoadBalancingV2::Listener")
    assert len(listeners) == 2
    for _, one in listeners:
        assert one["Properties"]["Protocol"] == "HTTPS"
        assert "TLS13" in one["Properties"]["SslPolicy"]
    schemes = {
        stack: one["Properties"]["Scheme"] for stack, one in containers.of("AWS::ElasticLoadBalancingV2::LoadBalancer")
    }
    assert schemes == {"gateway": "internet-facing", "serve": "internal"}


def test_tasks_are_reached_by_their_load_balancer_alone(containers: Synthesis) -> None:
    for stack, one in containers.of("AWS::EC2::SecurityGroupIngress"):
        assert "SourceSecurityGroupId" in one["Properties"], stack
    for stack in ("kcl", "publish", "maintain", "alerts", "audit"):
        ((_, group),) = containers.of("AWS::EC2::SecurityGroup", stack)
        assert "SecurityGroupIngress" not in group["Properties"], stack


def test_the_mapping_keeps_the_guarantee(serverless: Synthesis) -> None:
    """One batch of a shard at a time, partial responses, and what is given up comes back to the function."""
    mappings = [one["Properties"] for _, one in serverless.of("AWS::Lambda::EventSourceMapping")]
    (stream,) = [one for one in mappings if "StartingPosition" in one]
    (queue,) = [one for one in mappings if "StartingPosition" not in one]
    assert stream["ParallelizationFactor"] == 1
    assert stream["BisectBatchOnFunctionError"] is True
    assert stream["StartingPosition"] == "TRIM_HORIZON"
    assert stream["FunctionResponseTypes"] == queue["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["DestinationConfig"]["OnFailure"]["Destination"] == queue["EventSourceArn"]
    assert stream["MaximumRecordAgeInSeconds"] < serverless.deployed.retention_hours * 3600


def test_handlers_are_there(serverless: Synthesis) -> None:
    """By name only: importing them opens clients."""
    for _, one in serverless.of("AWS::Lambda::Function"):
        (handler,) = one["Properties"]["ImageConfig"]["Command"]
        module, name = handler.rsplit(".", 1)
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"^(def {name}\(|{name} = )", source, re.MULTILINE), handler


def test_only_the_repository_s_environment_may_deploy(containers: Synthesis, serverless: Synthesis) -> None:
    text = json.dumps(containers.templates["delivery"])
    assert '"token.actions.githubusercontent.com:sub": "repo:example/headwater:environment:prod"' in text
    assert serverless.of("AWS::IAM::OIDCProvider") == []


def test_stages_differ_by_settings_alone(containers: Synthesis) -> None:
    prod = containers.deployed
    assert "headwater-prod" in prod.environment["HEADWATER_STREAM"]
    with pytest.raises(UsageError, match="stage test"):
        deployment("test")
    with pytest.raises(UsageError, match="no digest"):
        deployment("dev", images={"kcl": "latest"}, **GIVEN)
    with pytest.raises(UsageError, match="model ec2"):
        deployment("dev", "ec2")


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("wrong", ["", "0", "nonsense"])
def test_nothing_that_has_to_be_given_has_a_stand_in(name: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=f"-c {name}="):
        deployment("dev", **GIVEN | {name: wrong})


def test_the_app_of_cdk_json_runs_and_says_in_a_line_what_is_missing(tmp_path: Path) -> None:
    """As the CDK's command line runs it: the environment that `make env` makes, the context in a variable."""
    command = shlex.split(json.loads((ROOT / "cdk.json").read_text())["app"])
    assert command[0] == ".venv/bin/python"
    context = json.dumps({"stage": "dev"})
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=ROOT,
        env=os.environ | {"CDK_CONTEXT_JSON": context, "CDK_OUTDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stderr.splitlines()[-1]  # Node may have something to say before
    assert (done.returncode, said) == (1, "headwater: -c account=… is missing: the twelve digits of an account")
    assert "Traceback" not in done.stderr


def test_names_that_are_global_say_where_they_are(containers: Synthesis) -> None:
    """Two regions of one account, and two stages of it, get in nobody's way."""
    for _, bucket in containers.of("AWS::S3::Bucket"):
        assert bucket["Properties"]["BucketName"].endswith("-222222222222-eu-central-1")
    for _, repository in containers.of("AWS::ECR::Repository"):
        assert repository["Properties"]["RepositoryName"].startswith("headwater-prod/")


def test_zones_are_the_region_s_own(containers: Synthesis, serverless: Synthesis) -> None:
    for made, zones in ((containers, 3), (serverless, 2)):
        found = [one["Properties"]["AvailabilityZone"] for _, one in made.of("AWS::EC2::Subnet")]
        assert len(found) == 2 * zones
        assert all("Fn::GetAZs" in json.dumps(one) for one in found)


def test_a_provider_that_is_there_is_not_made(node: None, tmp_path: Path) -> None:
    made = synthesize(deployment("dev", repository="example/headwater", issuer="there", **GIVEN), tmp_path)
    assert made.of("AWS::IAM::OIDCProvider") == []
    trusted = json.dumps(made.templates["delivery"])
    assert "arn:aws:iam::222222222222:oidc-provider/token.actions.githubusercontent.com" in trusted


def test_an_idle_connection_is_closed_by_the_load_balancer_first(containers: Synthesis) -> None:
    for _, one in containers.of("AWS::ElasticLoadBalancingV2::LoadBalancer"):
        found = {pair["Key"]: pair["Value"] for pair in one["Properties"]["LoadBalancerAttributes"]}
        assert int(found["idle_timeout.timeout_seconds"]) < KEEP_ALIVE_SECONDS


def test_a_fleet_is_not_replaced_while_aws_throttles(containers: Synthesis) -> None:
    """Readiness is 503 then; what a load balancer asks is whether the process lives."""
    paths = {
        one["Properties"]["HealthCheckPath"] for _, one in containers.of("AWS::ElasticLoadBalancingV2::TargetGroup")
    }
    assert paths == {"/health/live", "/health"}


def test_no_scaling_alarm_stands_when_nothing_waits(containers: Synthesis) -> None:
    """Steps go outward only; inward goes the target of the CPU."""
    (steps,) = (
        one["Properties"]["StepScalingPolicyConfiguration"]["StepAdjustments"]
        for _, one in containers.of("AWS::ApplicationAutoScaling::ScalingPolicy", "kcl")
        if one["Properties"]["PolicyType"] == "StepScaling"
    )
    assert all(step["ScalingAdjustment"] > 0 for step in steps)


def test_the_catalog_stays_as_long_as_the_files(containers: Synthesis, serverless: Synthesis) -> None:
    for made, policy in ((containers, "Retain"), (serverless, "Delete")):
        for kind in ("AWS::Glue::Database", "AWS::Glue::Table", "AWS::S3::Bucket"):
            assert {one["DeletionPolicy"] for _, one in made.of(kind)} == {policy}, kind


def allowed(made: Synthesis, kind: str, service: str, action: str) -> bool:
    """Whether the policies of a kind of resource let one of AWS's services do it."""
    key = {"AWS::KMS::Key": "KeyPolicy"}.get(kind, "PolicyDocument")
    return any(
        statement["Effect"] == "Allow"
        and service in json.dumps(statement["Principal"])
        and action in as_list(statement["Action"])
        for _, one in made.of(kind)
        for statement in one["Properties"][key]["Statement"]
    )


def test_resource_policies_let_aws_s_own_services_in(containers: Synthesis) -> None:
    """What no role says: without these an alarm reaches nobody, and an alert no queue."""
    assert allowed(containers, "AWS::SNS::TopicPolicy", "cloudwatch.amazonaws.com", "sns:Publish")
    assert allowed(containers, "AWS::SQS::QueuePolicy", "events.amazonaws.com", "sqs:SendMessage")
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert allowed(containers, "AWS::KMS::Key", "cloudwatch.amazonaws.com", action)
