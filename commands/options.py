"""Define the options that several commands share, each once."""

from typing import Annotated

import typer

__all__ = ["Json"]

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout: one object, or one object a line where there are rows.")
]
"""Ask for output for programs. Logs and progress go to stderr, so the last line of stdout is JSON as well."""
