"""Define the commands for shards: map, heat, plan, apply, simulate; and autoscale."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.clock import SystemClock
from headwater.commands.options import Json
from headwater.commands.services import open_services, stop_on_signals
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.processors.scaling.autoscale import Policy
    from headwater.processors.scaling.heat import Sample
    from headwater.processors.scaling.load import LoadCurve
    from headwater.processors.scaling.pricing import Usage
    from headwater.processors.scaling.service import Autoscaler, AutoscalerInputs
    from headwater.processors.scaling.topology import Layout, Topology
    from headwater.processors.services import Services

__all__ = ["register"]

Stream = Annotated[str | None, typer.Option(help="The stream; HEADWATER_STREAM by default.")]
Prices = Annotated[Path | None, typer.Option(help="Your own price table (YAML like the shipped prices.yaml).")]
TraceFile = Annotated[Path | None, typer.Option(help="Load from a CSV trace instead of measurements.")]
Target = Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of a limit that a shard may use.")]
Margin = Annotated[float, typer.Option(min=0.0, help="Growth to be ready for, as a share of the load.")]
Consumers = Annotated[int, typer.Option(min=0, help="Readers that share a shard's 2 MB/s.")]
FanOut = Annotated[int, typer.Option(min=0, help="Readers with enhanced fan-out.")]
Floor = Annotated[int, typer.Option(min=1, help="Never fewer shards.")]
Ceiling = Annotated[int, typer.Option(min=1, help="Never more shards.")]
CloudWatch = Annotated[bool, typer.Option("--cloudwatch", help="Amazon's shard-level metrics instead of our own.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="One look: say what would be done, change nothing.")]

shards = typer.Typer(help="See the heat of shards, plan in money, apply step by step, simulate.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(shards, name="shards")
    app.command()(autoscale)


@shards.command("map")
def map_(stream: Stream = None, as_json: Json = False) -> None:
    """Show the hash space, parents and children, open and closed shards, and what consumers have still to read."""
    from headwater.processors.scaling.readings import read_samples, read_topology
    from headwater.processors.scaling.render import map_picture

    services = open_services()
    topology = read_topology(services.kinesis, stream or services.settings.stream)
    samples = read_samples(services.ledger, topology, services.clock.now_ms())
    entries = {entry.shard_id: entry for entry in services.ledger.shards()}
    lag = {shard_id: sample.lag_ms for shard_id, sample in samples.items()}
    drained = {shard_id: entry.closed for shard_id, entry in entries.items()}
    if as_json:
        doc = topology.to_json()
        for row in doc["shards"]:
            entry = entries.get(row["shard_id"])
            row["consumers"] = {
                services.ledger.pipeline: {
                    "position": entry.position if entry else None,
                    "drained": bool(entry and entry.closed),
                    "lag_ms": dict(lag.get(row["shard_id"], {})),
                }
            }
        _json(doc)
    else:
        _show(map_picture(topology, lag, drained))


@shards.command("heat")
def heat_(
    stream: Stream = None, consumers: Consumers = 1, cloudwatch: CloudWatch = False, as_json: Json = False
) -> None:
    """Show bytes, records and events per second of each shard, the share of its limits, lag, and the heaviest keys."""
    from headwater.processors.scaling.heat import heat
    from headwater.processors.scaling.readings import read_topology
    from headwater.processors.scaling.render import heat_picture

    services = open_services()
    topology = read_topology(services.kinesis, stream or services.settings.stream)
    rows = heat(topology, list(_samples(services, topology, cloudwatch).values()), consumers)
    if as_json:
        _json({"stream": topology.stream, "shards": [row.to_json() for row in rows]})
    else:
        _show(heat_picture(rows, topology.stream))


@shards.command()
def plan(
    stream: Stream = None,
    trace: TraceFile = None,
    shards_now: Annotated[
        int | None, typer.Option("--shards", min=1, help="Plan for so many even shards; no stream is read.")
    ] = None,
    target: Target = 0.7,
    margin: Margin = 0.2,
    consumers: Consumers = 1,
    fan_out: FanOut = 0,
    floor: Floor = 1,
    ceiling: Ceiling = 10_000,
    method: Annotated[str, typer.Option(help="auto, exact or local.")] = "auto",
    prices: Prices = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, for `shards apply`.")] = None,
    cloudwatch: CloudWatch = False,
    as_json: Json = False,
) -> None:
    """Plan the cheapest layout that keeps every shard under the target; show its cost, calls and alternatives."""
    from headwater.config import read_settings
    from headwater.processors.scaling.plan import Goal, make_plan
    from headwater.processors.scaling.pricing import load_prices
    from headwater.processors.scaling.render import plan_picture

    if method not in ("auto", "exact", "local"):
        raise UsageError(f"--method {method}: one of auto, exact, local")
    if shards_now is not None and trace is None:
        raise UsageError("--shards needs --trace: without a stream there is nothing measured")
    name = stream or read_settings().stream
    table = load_prices(prices)
    goal = Goal(target=target, margin=margin, floor=floor, ceiling=ceiling, method=method)  # type: ignore[arg-type]  # checked above
    layout, curve, usage = _load(name, trace, shards_now, cloudwatch, (consumers, fan_out))
    made = make_plan(name, layout, curve, usage, goal, table)
    if out is not None:
        out.write_text(json.dumps(made.to_json(), indent=1))
    if as_json:
        _json(made.to_json())
    else:
        _show(plan_picture(made))


@shards.command("apply")
def apply_(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A file of `shards plan --out`.")],
    go: Annotated[bool, typer.Option("--go", help="Make the calls; without it nothing is changed.")] = False,
    who: Annotated[str | None, typer.Option(help="Your name for the audit record.")] = None,
    as_json: Json = False,
) -> None:
    """Make the plan's calls one by one, each waited for. Run it again to go on after a stop."""
    from headwater.processors.scaling.apply import Applier
    from headwater.processors.scaling.plan import plan_from_json
    from headwater.processors.services import new_owner

    try:
        made = plan_from_json(json.loads(path.read_text()))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path}: not JSON; see `headwater shards plan --out`") from None
    services = open_services()
    applier = Applier(services.kinesis, services.ledger, SystemClock(), who or new_owner())
    if not go:
        done = applier.check(made)
    else:
        done = applier.apply(
            made, on_step=lambda at, step: typer.echo(f"{at + 1} of {len(made.steps)}: {step.call}", err=True)
        )
    if as_json:
        _json(done.to_json() | {"dry_run": not go})
    elif go:
        typer.echo(f"{done.made} calls made, {done.left} left; the layout is {done.layout}")
    else:
        typer.echo(f"dry run: {done.left} of {len(made.steps)} calls would be made; --go makes them")


@shards.command("simulate")
def simulate_(
    trace: Annotated[Path, typer.Option(help="The day to replay: CSV, see docs/shards.md.")],
    target: Target = 0.7,
    margin: Margin = 0.2,
    floor: Floor = 1,
    ceiling: Ceiling = 10_000,
    consumers: Consumers = 1,
    fan_out: FanOut = 0,
    spread: Annotated[bool, typer.Option(help="Batches spread over the shards (our producer) or by key hash.")] = False,
    budget: Annotated[float | None, typer.Option(help="Dollars a day the autoscaler may spend.")] = None,
    prices: Prices = None,
    as_json: Json = False,
) -> None:
    """Replay a trace against our autoscaler, fixed shards, even splits and on-demand: throttles, lag, calls, cost."""
    from headwater.processors.scaling.autoscale import Policy
    from headwater.processors.scaling.pricing import load_prices
    from headwater.processors.scaling.render import outcome_picture
    from headwater.processors.scaling.scalers import contestants
    from headwater.processors.scaling.simulate import World, simulate
    from headwater.processors.scaling.topology import even_layout
    from headwater.processors.scaling.trace import read_trace

    load, table = read_trace(trace), load_prices(prices)
    policy = Policy(target=target, margin=margin, floor=floor, ceiling=ceiling, budget_per_day=budget)
    world = World(consumers=consumers, fan_out=fan_out, spread=spread)
    outcomes = [
        simulate(load, even_layout(count), scaler, world, table) for scaler, count in contestants(load, policy, table)
    ]
    if as_json:
        _json({"seconds": load.seconds, "outcomes": [outcome.to_json() for outcome in outcomes]})
    else:
        _show(outcome_picture(outcomes))


def autoscale(
    stream: Stream = None,
    target: Target = 0.7,
    margin: Margin = 0.2,
    floor: Floor = 1,
    ceiling: Ceiling = 1_000,
    cool_off: Annotated[float, typer.Option(min=0, help="Seconds between a reshard and the next outward.")] = 900.0,
    cool_down: Annotated[float, typer.Option(min=0, help="Seconds between a reshard and one inward.")] = 7_200.0,
    budget: Annotated[float | None, typer.Option(help="Dollars a day.")] = None,
    consumers: Consumers = 1,
    fan_out: FanOut = 0,
    period: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 60.0,
    prices: Prices = None,
    cloudwatch: CloudWatch = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Keep the shards to a policy. Run several: one leads. Decisions are explained in the log."""
    from headwater.processors.scaling.autoscale import Policy
    from headwater.processors.scaling.pricing import load_prices
    from headwater.processors.scaling.service import AutoscalerInputs, Readers
    from headwater.telemetry.logs import to_stdout

    services = open_services()
    policy = Policy(
        target, margin, floor, ceiling, cool_off_seconds=cool_off, cool_down_seconds=cool_down, budget_per_day=budget
    )
    inputs = AutoscalerInputs(
        lambda topology: _samples(services, topology, cloudwatch), load_prices(prices), Readers(consumers, fan_out)
    )
    service = _autoscaler(services, stream, policy, inputs)
    if not dry_run:
        to_stdout(services.settings.log_level)
        service.run(stop_on_signals(), period)
        return
    decision = service.turn(dry_run=True)
    if as_json:
        _json(decision.to_json() if decision else {"action": "hold", "reasons": ["another autoscaler leads"]})
    else:
        typer.echo(f"{decision.action}: {'; '.join(decision.reasons)}" if decision else "another autoscaler leads")


def _autoscaler(services: "Services", stream: str | None, policy: "Policy", inputs: "AutoscalerInputs") -> "Autoscaler":
    from headwater.processors.scaling.service import Autoscaler
    from headwater.processors.services import new_owner

    name = stream or services.settings.stream
    return Autoscaler(services.kinesis, services.ledger, services.clock, new_owner(), name, policy, inputs)


def _load(
    stream: str, trace: Path | None, even: int | None, cloudwatch: bool, readers: tuple[int, int]
) -> tuple["Layout", "LoadCurve", "Usage"]:
    """Return the layout now, the load to size for and the average to price.

    The layout is the stream's, or so many even shards; the load that of a trace, or what was measured of the stream.
    """
    from headwater.processors.scaling.load import from_samples
    from headwater.processors.scaling.pricing import Usage
    from headwater.processors.scaling.readings import read_topology
    from headwater.processors.scaling.topology import even_layout
    from headwater.processors.scaling.trace import peak_curve, read_trace

    if trace is not None:
        layout = even_layout(even) if even is not None else read_topology(open_services().kinesis, stream).layout
        found = read_trace(trace)
        by, records = (float(total.mean()) for total in found.totals())
        return layout, peak_curve(found), Usage(by, records, *readers)
    services = open_services()
    topology = read_topology(services.kinesis, stream)
    samples = _samples(services, topology, cloudwatch)
    if not samples:
        raise UsageError(
            f"nothing measured of stream {topology.stream} yet: run `headwater process`, "
            "or give --trace or --cloudwatch"
        )
    by, records = from_samples(topology, samples).total
    return topology.layout, from_samples(topology, samples, peak=True), Usage(by, records, *readers)


def _samples(services: "Services", topology: "Topology", cloudwatch: bool) -> "dict[str, Sample]":
    from headwater.processors.scaling.cloudwatch import cloudwatch_samples
    from headwater.processors.scaling.readings import read_samples

    if cloudwatch:
        return cloudwatch_samples(services.client("cloudwatch"), topology, services.clock.now_ms())
    return read_samples(services.ledger, topology, services.clock.now_ms())


def _json(doc: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(doc) + "\n")


def _show(picture: Any) -> None:
    from headwater.commands.tables import show

    show(picture)
