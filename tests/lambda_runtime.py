"""Lambda as a function sees it: containers with Amazon's runtime client, each fed by a Runtime API of its own.

A container has one invocation at a time; it is killed when its time is up, and replaced when it has died.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Lock, Semaphore, Thread
from typing import Any

__all__ = ["Answer", "Container", "Function"]

_PREFIX = "/2018-06-01/runtime/"


@dataclass(frozen=True)
class Answer:
    """What Invoke gives back: the function's result, or why there is none."""

    result: Any = None
    error: str = ""


@dataclass(frozen=True)
class _Invocation:
    request_id: str
    body: bytes
    deadline_ms: int


class Container:
    """`python -m awslambdaric HANDLER` and the API it asks for work."""

    def __init__(self, handler: str, environment: Mapping[str, str], log: Path, bundle: Path | None = None) -> None:
        """`bundle` is a folder with everything that may be imported; else this repository and its environment."""
        alone = {} if bundle is None else {"PYTHONPATH": str(bundle)}
        self._work: Queue[_Invocation] = Queue()
        self._answers: Queue[Answer] = Queue()
        self._waiting = Event()
        self._server = _Server(("127.0.0.1", 0), _api(self))
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        started = time.monotonic()
        address = f"127.0.0.1:{self._server.server_address[1]}"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, *(["-S"] if bundle else []), "-m", "awslambdaric", handler],
                env=dict(environment) | {"AWS_LAMBDA_RUNTIME_API": address} | alone,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=bundle or Path(__file__).parent.parent,
            )
        while not self._waiting.wait(0.05) and self._process.poll() is None:
            if time.monotonic() - started > 60:
                self.kill()
        self.init_seconds = time.monotonic() - started
        """From the start of the process to its first question for work."""

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def invoke(self, event: Mapping[str, Any], seconds: float, kill_after: float | None = None) -> Answer:
        """Synchronously. Killed when `seconds` or `kill_after` are over, as Lambda kills."""
        deadline = time.monotonic() + min(seconds, kill_after or seconds)
        body = json.dumps(event).encode()
        self._work.put(_Invocation(uuid.uuid4().hex, body, round((time.time() + seconds) * 1000)))
        while True:
            try:
                return self._answers.get(timeout=0.02)
            except Empty:
                if not self.alive:
                    return Answer(error=f"Runtime exited with error: {self._process.returncode}")
                if time.monotonic() > deadline:
                    self.kill()
                    return Answer(error=f"Task timed out after {seconds:.2f} seconds")

    def kill(self) -> None:
        if self.alive:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()

    def next(self) -> _Invocation | None:
        """For the API: the next invocation, once there is one."""
        self._waiting.set()
        while self.alive:
            try:
                return self._work.get(timeout=0.1)
            except Empty:
                continue
        return None

    def answer(self, path: str, body: bytes) -> None:
        """For the API: what the runtime posts."""
        if path.endswith("/response"):
            self._answers.put(Answer(json.loads(body)))
        else:
            error = json.loads(body)
            self._answers.put(Answer(error=f"{error['errorType']}: {error['errorMessage']}"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A container that was killed leaves its connection open: nothing to say."""


def _api(container: Container) -> type[BaseHTTPRequestHandler]:
    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = container.next()
            if found is None:
                return
            headers = {
                "Lambda-Runtime-Aws-Request-Id": found.request_id,
                "Lambda-Runtime-Deadline-Ms": str(found.deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:1:function:processor",
                "Content-Type": "application/json",  # without it the native client crashes
            }
            self._send(200, found.body, headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            container.answer(self.path.removeprefix(_PREFIX), body)
            self._send(202, b"{}", {"Content-Type": "application/json"})

        def _send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """The container's log is enough."""

    return Api


class Function:
    """A function with up to `containers` at once. `invoke` is safe from several threads, as Lambda's is."""

    def __init__(
        self,
        handler: str,
        environment: Mapping[str, str],
        log: Path,
        containers: int = 1,
        seconds: float = 30.0,
        kill_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`kill_after` is asked at each invocation for the seconds after which its container is to die."""
        self._handler = handler
        self._environment = dict(os.environ) | dict(environment)
        self._log = log
        self._seconds = seconds
        self._kill_after = kill_after
        self._free: list[Container] = []
        self._slots = Semaphore(containers)
        self._lock = Lock()
        self._random = random.Random(7)
        self.cold = self.invocations = self.died = 0

    def __enter__(self) -> "Function":
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._free:
            container.kill()

    def invoke(self, event: Mapping[str, Any]) -> Answer:
        """Any free container takes it, or a new one."""
        with self._slots:
            container = self._take()
            answer = container.invoke(event, self._seconds, self._kill_after())
            with self._lock:
                self.invocations += 1
                self.died += not container.alive
                if container.alive:
                    self._free.append(container)
            if not container.alive:
                container.kill()
            return answer

    def _take(self) -> Container:
        with self._lock:
            if self._free:
                return self._free.pop(self._random.randrange(len(self._free)))
            self.cold += 1
        return Container(self._handler, self._environment, self._log)
