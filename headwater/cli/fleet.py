"""`headwater process --on kcl`: a fleet of KCL workers, of which this machine runs some."""

from headwater.cli.services import stop_on_signals
from headwater.clock import SystemClock
from headwater.config import Settings

__all__ = ["run_fleet"]


def run_fleet(workers: int) -> None:
    """Until SIGTERM or Ctrl-C. HeadwaterError, one line, when there is no Java or when a worker keeps failing."""
    from processors.pipeline import load
    from processors.references import ensure_initial
    from processors.runners.kcldaemon import Fleet, find_java
    from processors.services import Services

    settings = Settings()
    find_java(settings.kcl.java)
    services = Services(settings, load(settings.pipeline), SystemClock())
    services.pipeline.lake_to  # noqa: B018 (a pipeline without a lake table is refused before anything starts)
    stop = stop_on_signals()
    ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
    Fleet(services, workers).run(stop)
