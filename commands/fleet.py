"""Run `headwater process --on kcl`: a fleet of KCL workers, of which this machine runs some."""

from headwater.commands.services import open_services, stop_on_signals
from headwater.config import read_settings

__all__ = ["run_fleet"]


def run_fleet(workers: int) -> None:
    """Run so many workers until SIGTERM or Ctrl-C.

    Raises HeadwaterError, with one line, when there is no Java or when a worker keeps failing.
    """
    from headwater.processors.runners.kcl.fleet import FleetClients, KclFleet, find_java
    from headwater.processors.services import new_owner

    find_java(read_settings().kcl.java)  # before AWS is asked for anything: it is the likelier thing to be missing
    services = open_services()
    stop = stop_on_signals()
    services.prepare()
    clients = FleetClients(services.kinesis, services.client("dynamodb"))
    KclFleet(services.pipeline.name, services.settings, clients, services.clock, new_owner(), workers).run(stop)
