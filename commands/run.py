"""Define the commands that run services: demo, up, process, publish, reference."""

import importlib.util
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.clock import Clock, SystemClock
from headwater.commands.options import Json
from headwater.commands.services import open_services, stop_on_signals
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from headwater.commands.local.demo import Demo, DemoProgress, DemoResult

__all__ = ["register"]

reference = typer.Typer(help="Publish reference tables, which events are joined with.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (demo, up, process, publish):
        app.command()(command)
    app.add_typer(reference, name="reference")


def demo(
    events: Annotated[int, typer.Option(min=1, help="Events to produce.")] = 100_000,
    devices: Annotated[int, typer.Option(min=1, help="Devices in the simulated fleet.")] = 100,
    shards: Annotated[int, typer.Option(min=1, max=64, help="Shards of the stream.")] = 4,
    as_json: Json = False,
) -> None:
    """Run the whole pipeline on an embedded AWS and audit it: every event in the lake once, every view right."""
    from rich.console import Console
    from rich.live import Live

    from headwater.config import read_settings

    settings, clock = read_settings(), SystemClock()  # before what takes a second to import
    _need_local()
    from headwater.commands.local.demo import Demo, DemoSettings
    from headwater.commands.tables import show
    from headwater.processors.definition.loading import load

    console = Console(stderr=as_json)
    wanted = DemoSettings(events=events, devices=devices, shards=shards)
    run = Demo(load(settings.pipeline), settings, wanted, clock)
    console.print("starting the embedded AWS …")
    with run.running(), Live(console=console, refresh_per_second=4, transient=True) as live:
        seconds = _watch(run, events, clock, live)
        live.update(_progress(run.progress, events, seconds, "committing, publishing, auditing"))
        result = run.result()
    show(_summary(result), console=console)
    if as_json:
        sys.stdout.write(json.dumps(result.to_json()) + "\n")
    if not result.ok:
        raise typer.Exit(1)


def _need_local() -> None:
    """Raise UsageError, which says what to install, where the embedded AWS is not."""
    if importlib.util.find_spec("moto") is None:
        raise UsageError("the embedded AWS is not installed: pip install 'headwater[local]'")


def _watch(run: "Demo", events: int, clock: Clock, live: "Live") -> float:
    """Show how far the demo is until all is streamed, a line now and then without a terminal; return the seconds."""
    started = printed_ms = clock.now_ms()
    while not run.streamed:
        progress = run.poll()
        seconds = (clock.now_ms() - started) / 1000
        live.update(_progress(progress, events, seconds))
        if not live.console.is_terminal and clock.now_ms() - printed_ms > 2000:
            printed_ms = clock.now_ms()
            live.console.print(
                f"{seconds:5.1f} s  produced {progress.produced:,}  processed {progress.processed:,}  "
                f"in the lake {progress.in_lake:,}  lag {progress.lag_ms / 1000:.1f} s"
            )
        clock.sleep(0.2)
    return (clock.now_ms() - started) / 1000


def _progress(progress: "DemoProgress", events: int, seconds: float, stage: str = "streaming") -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(title=f"headwater demo: {stage}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("", "events", "", "rate/s"):
        table.add_column(column, justify="right" if column in ("events", "rate/s") else "left")
    for name, number in (
        ("produced", progress.produced),
        ("processed", progress.processed),
        ("in the lake", progress.in_lake),
    ):
        rate = f"{number / seconds:,.0f}" if seconds > 0 else ""
        table.add_row(name, f"{number:,}", ProgressBar(total=events, completed=number, width=40), rate)
    table.add_row("lag", f"{progress.lag_ms / 1000:.1f} s", f"copies dropped {progress.duplicates_dropped:,}", "")
    return table


def _summary(result: "DemoResult") -> "RenderableType":
    from rich.table import Table

    numbers = result.to_json()
    table = Table(title="exact" if result.ok else "NOT exact", title_justify="left", box=None, show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("produced", f"{result.produced:,} events")
    table.add_row("in the lake", f"{result.report.in_lake:,} rows")
    table.add_row("missing", f"{numbers['missing']:,}")
    table.add_row("in the lake twice", f"{numbers['duplicates']:,}")
    table.add_row("copies on the stream, dropped", f"{result.duplicates_dropped:,}")
    wrong = len(result.view_differences)
    table.add_row("view rows, all compared", f"{result.view_rows:,}" + (f", {wrong:,} differ" if wrong else ""))
    table.add_row("time", f"{result.setup_seconds:.1f} s to set up, {result.seconds:.1f} s to stream")
    table.add_row("rate", f"{numbers['events_per_second']:,} events/s")
    for line in result.view_differences[:5]:
        table.add_row(line, "")
    return table


def up(
    shards: Annotated[int, typer.Option(min=1, max=64, help="Shards of the stream.")] = 4,
    as_json: Json = False,
) -> None:
    """Run an embedded AWS and every service until Ctrl-C; other commands find it by the printed settings."""
    from headwater.config import read_settings

    settings = read_settings()  # before what takes a second to import
    _need_local()
    from headwater.commands.local.up import Up
    from headwater.processors.definition.loading import load

    stop = stop_on_signals()
    service = Up(load(settings.pipeline), settings, SystemClock(), shards, _say)
    with service.running() as found:
        if as_json:
            sys.stdout.write(json.dumps(found) + "\n")
        else:
            sys.stdout.write("ready; in another terminal:\n\n")
            for name, value in found["settings"].items():
                sys.stdout.write(f"  export {name}={value}\n")
            endpoints = [name for name in ("aws", "gateway", "otlp_grpc", "api", "console") if name in found]
            sys.stdout.write(
                "\n" + "".join(f"  {name:9} {found[name]}\n" for name in endpoints) + "\nCtrl-C ends it.\n"
            )
        sys.stdout.flush()
        while not stop.wait(0.5):
            service.check()
    sys.stderr.write("ended\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def process(
    on: Annotated[str, typer.Option(help="embedded or kcl.")] = "embedded",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Daemons on this machine, with --on kcl.")] = 1,
) -> None:
    """Read every shard: drop copies, enrich, aggregate, write files and views. SIGTERM ends it cleanly."""
    if on == "kcl":
        from headwater.commands.fleet import run_fleet

        run_fleet(workers)
        return
    if on != "embedded":
        raise UsageError(f"--on {on}: runners are embedded and kcl")
    from headwater.processors.runners.embedded import EmbeddedRunner
    from headwater.processors.services import new_owner
    from headwater.telemetry.logs import to_stdout

    services = open_services()
    to_stdout(services.settings.log_level)
    stop = stop_on_signals()
    services.prepare()
    runner = EmbeddedRunner(
        services.pipeline, services.kinesis, services.ports, services.settings, services.clock, new_owner()
    )
    runner.run(stop)
    failed = [status for status in runner.status() if status.error and status.state == "restarting"]
    if failed:
        raise HeadwaterError(f"shard {failed[0].shard_id} ended with work left: {failed[0].error}")


def publish() -> None:
    """Add committed files to the lake's table, one commit per interval. Run several: one leads."""
    from headwater.announcing import put_control
    from headwater.processors.services import new_owner
    from headwater.telemetry.logs import to_stdout

    services = open_services()
    to_stdout(services.settings.log_level)
    stream = services.settings.stream
    announce = partial(put_control, services.kinesis, stream, key=services.control_key(stream))
    services.publish_loop(new_owner(), announce).run(stop_on_signals())


@reference.command("publish")
def reference_publish(
    name: Annotated[str, typer.Argument(help="The reference table, as named in the pipeline.")],
    source: Annotated[
        str | None, typer.Argument(help="CSV, Parquet, s3:// or dynamodb://; the pipeline's own by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the table's present content a new version, in force from a point in the stream on."""
    from headwater.announcing import put_control
    from headwater.processors.references import publish as publish_reference

    services = open_services()

    stream = services.settings.stream
    announce = partial(put_control, services.kinesis, stream, key=services.control_key(stream))
    found = publish_reference(
        services.pipeline, name, source, services.ledger, services.objects, services.client, announce
    )
    if as_json:
        sys.stdout.write(json.dumps(found or {"name": name, "changed": False}) + "\n")
    elif found:
        sys.stdout.write(f"{name}: version {found['version']} announced on every shard\n")
    else:
        sys.stdout.write(f"{name}: not changed\n")
