"""A producer with an outbox as a process: `python -m tests.chaos.producer NUMBER OUTBOX CONFIRMED RATE`.

Takes up after the last event that the outbox has accepted, whatever became of the process before, and notes in the
file CONFIRMED, a line each, up to which event `put` has returned. SIGTERM: delivers everything, tells the total, ends.
"""

import signal
import sys
import uuid
from pathlib import Path
from threading import Event

from headwater.aws import client
from headwater.config import Settings
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from tests.chaos.events import CONTRACT, events

__all__ = ["accepted"]

PIECE = 40


def accepted(path: Path, stream: str) -> int:
    """How many events the outbox has accepted since it was made."""
    outbox = Outbox(path, stream, CONTRACT, uuid.uuid4().hex)
    found = outbox.accepted()
    outbox.close()
    return found


def main() -> None:
    number, path, confirmed, rate = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = Settings()
    at = accepted(path, settings.stream) if path.exists() else 0
    noted = int((confirmed.read_text().split() or ["0"])[-1]) if confirmed.exists() else 0
    # the last put may have been durable when the process died before it could note it
    if not noted <= at <= noted + PIECE:
        sys.exit(f"LOST: put returned for {noted} events, and the outbox has {at}")
    options = ProducerSettings(max_events=200, linger_ms=100, delivery_seconds=3600, receipt_seconds=5)
    producer = Producer(settings.stream, CONTRACT, client=client("kinesis", settings), settings=options, outbox=path)
    sys.stderr.write(f"from event {at}\n")
    with confirmed.open("a") as notes:
        while not stop.wait(PIECE / rate):
            if at % 200 == 0:
                producer.put(events(number, at, at + 1).to_pylist()[0])
                at += 1
            else:
                step = min(PIECE, 200 - at % 200)
                producer.put_batch(events(number, at, at + step))
                at += step
            notes.write(f"{at}\n")
            notes.flush()
    producer.close()
    sys.stdout.write(f"{at}\n")


if __name__ == "__main__":
    main()
