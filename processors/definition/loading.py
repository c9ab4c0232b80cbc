"""Load a pipeline by its name: the only place where a user's module is imported.

What a pipeline consists of is defined in `pipeline`; who names one (a setting, a command) calls `load`.
"""

import importlib
import importlib.util
import re
from pathlib import Path

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.definition.pipeline import Pipeline

__all__ = ["load"]

_FORMER = re.compile(r"^processors\.examples\.")
"""The shipped examples by their former name, which settings out there still say."""


def load(spec: str) -> Pipeline:
    """Load the pipeline named by `module:object` or `path/to/file.py:object`; the object is `pipeline` if left out.

    Raises UsageError with one line when there is none, or when its definition fails.

    >>> load("headwater.processors.examples.telemetry:pipeline").name
    'telemetry'
    """
    where, _, name = spec.partition(":")
    name = name or "pipeline"
    try:
        if where.endswith(".py"):
            if not Path(where).is_file():
                raise UsageError(f"no pipeline file {where}")
            found = importlib.util.spec_from_file_location("headwater_user_pipeline", where)
            assert found is not None
            assert found.loader is not None
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            module = importlib.import_module(_FORMER.sub("headwater.processors.examples.", where))
    except HeadwaterError:
        raise
    except Exception as error:
        raise UsageError(f"pipeline {spec} cannot be loaded: {type(error).__name__}: {error}") from error
    pipeline = getattr(module, name, None)
    if not isinstance(pipeline, Pipeline):
        raise UsageError(f"{where} has no pipeline named {name!r}")
    return pipeline
