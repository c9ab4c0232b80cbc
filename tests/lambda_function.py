"""The function's handler where only what its bundle holds can be imported, whatever else is installed."""

import os
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions, requires
from typing import Any

from infra.lambda_bundle import PACKAGES

__all__ = ["bundled", "handler"]

_VARIABLE = "LAMBDA_TEST_MODULES"


def bundled(needs: tuple[str, ...]) -> dict[str, str]:
    """For the function's environment: top-level modules of everything else than these and what they require."""
    wanted, ready = set(), list(needs)
    while ready:
        name = _normal(_name(ready.pop()))
        if name not in wanted:
            wanted.add(name)
            ready += [line for line in requires(name) or () if "extra ==" not in line]
    owners = packages_distributions()
    others = [top for top, names in owners.items() if not wanted & set(map(_normal, names))]
    return {_VARIABLE: ",".join(set(others) - {*PACKAGES, "tests"} | {"producers"})}


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class _Missing(MetaPathFinder):
    def __init__(self, modules: frozenset[str]) -> None:
        self._modules = modules

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname.partition(".")[0] in self._modules:
            raise ModuleNotFoundError(f"{fullname} is not in the function's bundle", name=fullname)


def handler(event: Any, context: Any) -> Any:
    """As deployed."""
    return _deployed(event, context)


if os.environ.get(_VARIABLE):
    sys.meta_path.insert(0, _Missing(frozenset(os.environ[_VARIABLE].split(","))))
    from headwater.processors.runners.serverless.handler import handler as _deployed
