"""A client of the gateway, the query API and the console at a steady pace, which sends again what is not confirmed."""

import time
from collections import Counter
from threading import Event, Thread

import httpx

from headwater.codec import event_json
from tests.chaos.events import CONTRACT, events

__all__ = ["Visitor"]

PIECE = 40


class Visitor:
    """Sends the events of one producer over HTTP under numbers of its own, and looks at views meanwhile."""

    def __init__(self, number: int, rate: float, gateway_port: int, serve_port: int) -> None:
        self.counts: Counter[str] = Counter()
        self._number, self._rate = number, rate
        self._gateway, self._serve = f"http://127.0.0.1:{gateway_port}", f"http://127.0.0.1:{serve_port}"
        self._stop = Event()
        self._confirmed = 0
        self._threads = [Thread(target=one, daemon=True) for one in (self._send_all, self._look_all)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float) -> int:
        """Events that the gateway has confirmed, once it has confirmed all that were sent. TimeoutError else."""
        self._stop.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"the gateway did not confirm event {self._confirmed} in {seconds:.0f} s")
        return self._confirmed

    def _send_all(self) -> None:
        with httpx.Client(timeout=40) as client:
            while not self._stop.wait(PIECE / self._rate):
                lines = event_json(events(self._number, self._confirmed, self._confirmed + PIECE))
                while not self._send(client, b"\n".join(lines)):
                    time.sleep(0.5)
                self._confirmed += PIECE

    def _send(self, client: httpx.Client, body: bytes) -> bool:
        headers = {
            "Content-Type": "application/x-ndjson",
            "Headwater-Origin": "visitor",
            "Headwater-Seq": str(self._confirmed),
        }
        try:
            answer = client.post(f"{self._gateway}/v1/events/{CONTRACT.name}", content=body, headers=headers)
        except httpx.HTTPError as error:
            self.counts[f"gateway: {type(error).__name__}"] += 1
            return False
        self.counts[f"gateway: {answer.status_code}"] += 1
        return answer.status_code in (200, 202)

    def _look_all(self) -> None:
        pages = ("/v1/views/device_10m?limit=50", "/v1/views/fleet_1m/metric-1?order=desc&limit=20", "/v1/alerts", "/")
        with httpx.Client(timeout=20) as client:
            while not self._stop.wait(0.5):
                for page in pages:
                    try:
                        status = str(client.get(self._serve + page).status_code)
                    except httpx.HTTPError as error:
                        status = type(error).__name__
                    self.counts[f"serve: {page.split('?')[0]} {status}"] += 1
