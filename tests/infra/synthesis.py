"""Synthesized templates, looked at as plain JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.settings import Deployment

__all__ = ["GIVEN", "Synthesis", "synthesize"]

Json = dict[str, Any]
GIVEN: dict[str, Any] = {
    "account": "222222222222",
    "region": "eu-central-1",
    "certificate": "12345678-1234-1234-1234-123456789012",
}
"""What every deployment has to be given."""


@dataclass(frozen=True)
class Synthesis:
    """One deployment's templates, by the stack's name without the deployment's."""

    deployed: Deployment
    folder: Path
    templates: Mapping[str, Json]

    def of(self, kind: str, *stacks: str) -> list[tuple[str, Json]]:
        """Stack and resource of every resource of a type."""
        return [
            (stack, resource)
            for stack, template in self.templates.items()
            for resource in template["Resources"].values()
            if resource["Type"] == kind and (not stacks or stack in stacks)
        ]

    def statements(self, *stacks: str) -> Iterator[tuple[str, Json]]:
        """Every statement of every policy that a role has."""
        for stack, policy in self.of("AWS::IAM::Policy", *stacks):
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
                yield stack, statement
        for stack, role in self.of("AWS::IAM::Role", *stacks):
            for policy in role["Properties"].get("Policies", ()):
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield stack, statement

    def environment(self, service: str) -> dict[str, str]:
        """What a service's task, or a function, is given."""
        if self.of("AWS::Lambda::Function", service):
            ((_, function),) = self.of("AWS::Lambda::Function", service)
            return dict(function["Properties"]["Environment"]["Variables"])
        ((_, task),) = self.of("AWS::ECS::TaskDefinition", service)
        pairs = task["Properties"]["ContainerDefinitions"][0]["Environment"]
        return {pair["Name"]: pair["Value"] for pair in pairs}

    def role(self, service: str) -> list[Json]:
        """The statements of the role that a service runs as."""
        stack = self.templates[service]["Resources"]
        roles = [
            name
            for name, one in stack.items()
            if one["Type"] == "AWS::IAM::Role"
            and one["Properties"].get("RoleName") == f"{self.deployed.name}-{service}-{self.deployed.region}"
        ]
        return [
            statement
            for one in stack.values()
            if one["Type"] == "AWS::IAM::Policy" and {"Ref": roles[0]} in one["Properties"]["Roles"]
            for statement in one["Properties"]["PolicyDocument"]["Statement"]
        ]


def synthesize(deployed: Deployment, folder: Path) -> Synthesis:
    """In this process; a finding of cdk-nag that nobody explained is an error."""
    from aws_cdk import App

    from infra.app import build, features

    app = App(context=features(), outdir=str(folder))
    build(app, deployed)
    app.synth()
    paths = sorted(folder.glob("*.template.json"))
    first = f"{deployed.name}-"
    templates = {path.name.removeprefix(first).split(".")[0]: json.loads(path.read_text()) for path in paths}
    return Synthesis(deployed, folder, templates)
