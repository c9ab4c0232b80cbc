"""Which services of an operating model a change concerns: `python changes.py MODEL` with the paths on stdin. A JSON
list on stdout, in the order of deploying.

Nothing but the standard library, so that a workflow can run it before anything is installed.
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
    "kcl": ("processors/*",),
    "publish": ("processors/*", "producers/controls.py"),
    "audit": ("processors/*",),
    "function": ("processors/*", "infra/lambda_bundle.py"),
    "function-publish": ("processors/*", "infra/lambda_bundle.py"),
    "function-audit": ("processors/*", "infra/lambda_bundle.py"),
    "maintain": ("processors/*",),
    "alerts": ("processors/*",),
    "serve": ("processors/*",),
    "gateway": ("producers/*", "processors/*"),
}
"""By service, beside what triggers all: the paths it is made of. Processors come first, producers last."""
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "containers": ("function", "function-publish", "function-audit"),
    "serverless": ("kcl", "publish", "audit"),
}
"""By operating model: what only the other one has."""


def services(paths: Iterable[str], model: str = "containers") -> list[str]:
    """Those of the model whose paths are among the changed ones. Documents and tests concern none."""
    changed = list(paths)

    def hit(patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(path, pattern) for path in changed for pattern in patterns)

    return [name for name, own in TRIGGERS.items() if name not in ELSEWHERE[model] and hit((*own, *_ALL))]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(services(sys.stdin.read().split(), *sys.argv[1:])) + "\n")
