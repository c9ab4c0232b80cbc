"""Define the commands of a project of one's own: init makes its files, check tries its pipeline without AWS."""

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.commands.options import Json
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    from headwater.processors.definition.pipeline import Pipeline
    from headwater.testing.pipelines import PipelineRun

__all__ = ["register"]

_STARTER = Path(__file__).with_name("starter")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(init)
    app.command()(check)


def init(
    name: Annotated[str, typer.Argument(help="Its folder, new or without files; its name is the project's.")],
) -> None:
    """Make a project in a folder: a contract, a pipeline, a sample, a test and a compose file, all of which run."""
    folder = Path(name)
    called = folder.resolve().name if name else ""
    if not _NAME.fullmatch(called):
        raise UsageError(f"a project cannot be named {called!r}: small letters, digits, _ and -, a letter first")
    if folder.is_file() or (folder.is_dir() and any(not one.name.startswith(".") for one in folder.iterdir())):
        raise UsageError(f"{folder} is there already, and not empty")
    plain = called.replace("-", "_")
    shutil.copytree(_STARTER, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"), dirs_exist_ok=True)
    for file in (folder / one.name for one in _STARTER.iterdir() if one.is_file()):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("starter", plain), encoding="utf-8")
    sys.stdout.write(
        f"{called} is made{'' if folder.samefile('.') else f' in {folder}; go there'}. Then:\n\n"
        "does the pipeline fit its events?\n    headwater check pipeline.py --sample sample.ndjson\n"
        "its tests, in memory:\n    python -m pytest\n"
        "all of it on this machine:\n    HEADWATER_PIPELINE=pipeline.py headwater up\n"
    )


def check(
    pipeline: Annotated[
        str | None,
        typer.Argument(
            help="file.py, file.py:object or module:object; by default HEADWATER_PIPELINE, else ./pipeline.py, "
            "else the example that is shipped."
        ),
    ] = None,
    sample: Annotated[
        str | None, typer.Option(help="Events to try it on: NDJSON, CSV or Parquet, - is stdin; 100,000 at most.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a pipeline without AWS: columns, types and functions against its contract, and on a sample of events.

    Exits 1 when events of the sample break the contract or end as dead letters.
    """
    from headwater.commands.output import print_json
    from headwater.config import read_settings
    from headwater.processors.definition.loading import load
    from headwater.processors.references import check_sources
    from headwater.testing.pipelines import function_faults

    settings = read_settings()
    here = "pipeline" not in settings.model_fields_set and Path("pipeline.py").is_file()
    made = load(pipeline or ("pipeline.py" if here else settings.pipeline))
    check_sources(made)
    if faults := function_faults(made):
        raise UsageError(f"pipeline {made.name}: {'; '.join(faults)}")
    invalid: list[str] = []
    run = None if sample is None else _run(made, sample, invalid)
    found = _found(made, run, invalid)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if wrong := [*invalid, *(found.get("dead_letters") or [])]:
        raise HeadwaterError(f"{sample}: {len(wrong):,} events cannot be processed, the first: {wrong[0]}")


def _run(made: "Pipeline", sample: str, invalid: list[str]) -> "PipelineRun":
    from headwater.testing.pipelines import read_sample, run_pipeline

    def on_invalid(row: int, reason: str, _raw: bytes) -> None:
        invalid.append(f"row {row}: {reason}")

    return run_pipeline(made, read_sample(sample, made.contract, on_invalid))


def _found(made: "Pipeline", run: "PipelineRun | None", invalid: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pipeline": made.name,
        "contract": f"{made.contract.name} v{made.contract.version}",
        "lake": made.lake_to.table,
        "columns": made.lake_schema.names,
        "views": {view.name: [*view.by, *(one.name for one in view.aggregates)] for view in made.views},
        "streams": {step.stream: step.contract.arrow_schema.names for step in made.streams},
    }
    if run is None:
        return found
    return found | {
        "invalid": invalid,
        "events": run.counts.get("events", 0),
        "filtered": run.counts.get("filtered", 0),
        "in_lake": run.lake.num_rows,
        "dead_letters": [letter.reason for letter in run.dead_letters],
        "stream_rows": {name: table.num_rows for name, table in run.streams.items()},
        "view_rows": {name: len(rows) for name, rows in run.views.items()},
    }


def _print(found: dict[str, Any]) -> None:
    lines = [f"pipeline {found['pipeline']} fits contract {found['contract']}"]
    rows = found.get("view_rows", {})
    lines += [f"view {name}: {_list(columns)}" + _rows(rows.get(name)) for name, columns in found["views"].items()]
    sent = found.get("stream_rows", {})
    lines += [f"stream {name}: {_list(columns)}" + _rows(sent.get(name)) for name, columns in found["streams"].items()]
    lines.append(f"lake table {found['lake']}: {_list(found['columns'])}" + _rows(found.get("in_lake")))
    if "events" in found:
        lines.append(f"of {found['events']:,} events {found['filtered']:,} were filtered")
    else:
        lines.append("its functions were tried on no events; --sample FILE tries them on some")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _rows(count: int | None) -> str:
    return "" if count is None else f"; {count:,} row{'' if count == 1 else 's'}"
