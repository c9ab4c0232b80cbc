"""Print which services of an operating model a change concerns: `python changes.py MODEL` with the paths on stdin.

Prints a JSON list in the order of deploying. Imports nothing but the standard library, so that a workflow can run it
before anything is installed.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

__all__ = ["ELSEWHERE", "TRIGGERS", "services"]

_ALL = (
    "headwater/*",
    "sinks/*",
    "pyproject.toml",
    "requirements/*",
    "infra/settings.py",
    "infra/permissions.py",
    "infra/containers/*",
    "infra/stacks/*",
    "infra/app.py",
)
TRIGGERS: Mapping[str, tuple[str, ...]] = {
    "kcl": ("processors/*", "commands/*"),
    "publish": ("processors/*", "commands/*"),
    "audit": ("processors/*", "commands/*"),
    "function": ("processors/*", "infra/lambda_bundle.py"),
    "function-publish": ("processors/*", "infra/lambda_bundle.py"),
    "function-audit": ("processors/*", "infra/lambda_bundle.py"),
    "maintain": ("processors/*", "commands/*"),
    "alerts": ("processors/*", "commands/*"),
    "serve": ("processors/*", "serving/*", "commands/*"),
    "gateway": ("producers/*", "processors/*", "commands/*"),
}
"""Paths that a service is made of, beside what triggers all. Processors come first, producers last."""
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "containers": ("function", "function-publish", "function-audit"),
    "serverless": ("kcl", "publish", "audit"),
}
"""Services by operating model that only the other one has."""


def services(paths: Iterable[str], model: str = "containers") -> list[str]:
    """Return the model's services whose paths are among the changed ones. Documents and tests concern none."""
    changed = list(paths)

    def hit(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(path, pattern) for path in changed for pattern in patterns)

    return [name for name, own in TRIGGERS.items() if name not in ELSEWHERE[model] and hit((*own, *_ALL))]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(services(sys.stdin.read().split(), *sys.argv[1:])) + "\n")
