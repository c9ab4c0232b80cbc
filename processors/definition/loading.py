"""Load a pipeline by its name: the only place where a user's module is imported.

What a pipeline consists of is defined in `pipeline`; who names one (a setting, a command) calls `load`.
"""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.definition.pipeline import Pipeline

__all__ = ["absolute", "load"]

_FORMER = re.compile(r"^processors\.examples\.")
"""The shipped examples by their former name, which settings out there still say."""


def absolute(spec: str) -> str:
    """Return the name by which a pipeline is found from any working folder; `module:object` stays as it is.

    >>> absolute("/project/fleet.py:pipeline"), absolute("fleet:pipeline")
    ('/project/fleet.py:pipeline', 'fleet:pipeline')
    """
    where, colon, name = spec.partition(":")
    return f"{Path(where).resolve()}{colon}{name}" if where.endswith(".py") else spec


def load(spec: str) -> Pipeline:
    """Load the pipeline named by `module:object` or `path/to/file.py:object`; the object is `pipeline` if left out.

    Modules beside the file, or in the working folder, can be imported by it: the folder goes to the end of `sys.path`.
    Raises UsageError with one line when there is none, or when its definition fails.

    >>> load("headwater.processors.examples.telemetry:pipeline").name
    'telemetry'
    """
    where, _, name = spec.partition(":")
    name = name or "pipeline"
    # last, so that a user's modules are found and shadow nothing
    folder = str(Path(where).resolve().parent if where.endswith(".py") else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        if where.endswith(".py"):
            if not Path(where).is_file():
                raise UsageError(f"no pipeline file {where}")
            found = importlib.util.spec_from_file_location("headwater_user_pipeline", where)
            assert found is not None
            assert found.loader is not None
            module = importlib.util.module_from_spec(found)
            # as for any import: a dataclass of a user looks itself up there
            sys.modules[found.name] = module
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
