"""Find the files that a pipeline names: they lie beside the file that defines it, wherever a command is started."""

import sys
from pathlib import Path

from headwater.contract.parsing import shipped

__all__ = ["beside_definition", "contract_beside"]

_OURS = __name__.rpartition(".")[0]


def beside_definition(path: str) -> str:
    """Return the path below the folder of the file that is defining something; as it is where there is no such file.

    A path that is absolute or a URL, and one that only the working folder has, stays as it is.

    >>> beside_definition("s3://bucket/devices.csv"), beside_definition("/etc/devices.csv")
    ('s3://bucket/devices.csv', '/etc/devices.csv')
    """
    if "://" in path or Path(path).is_absolute():
        return path
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(_OURS):
        frame = frame.f_back
    file = frame.f_globals.get("__file__")
    found = Path(file).resolve().parent / path if file else Path(path)
    return str(found) if found.is_file() else path


def contract_beside(contract: str | Path) -> str:
    """Return a shipped contract's name as it is, and any other path as `beside_definition` does.

    >>> contract_beside("telemetry")
    'telemetry'
    """
    return str(contract) if contract in shipped() else beside_definition(str(contract))
