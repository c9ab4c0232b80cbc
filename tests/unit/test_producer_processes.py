"""Producers and processes: forks, spawned workers, gunicorn, Celery, and an end without close."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from headwater.codec import Decoded, decode_record
from headwater.contract import load_contract
from headwater.producers.producer import Producer
from tests.producer_stream import FakeStream
from tests.producing import QUICK, TELEMETRY

REPOSITORY = Path(__file__).parents[2]

PRELUDE = """
import json, multiprocessing, os, sys, threading, time
from headwater.errors import HeadwaterError
from headwater.producers.direct import DirectProducer
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Runtime
from headwater.contract import load_contract
from tests.file_stream import FileStream
from tests.producing import event, fleet
LOG = sys.argv[1]
QUICK = ProducerSettings(linger_ms=20, receipts=False)
def connect(): return FileStream(LOG)
"""


def script(body: str) -> str:
    return PRELUDE + textwrap.dedent(body)


def run(body: str, log: Path, seconds: float = 60) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script(body), str(log)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds, check=False)


def on_stream(log: Path) -> list[tuple[int, str, int, str]]:
    """Process, origin, number and device of every event that the stream has."""
    found = []
    for line in log.read_text().splitlines() if log.exists() else []:
        pid, data = json.loads(line)
        batch = decode_record(bytes.fromhex(data), load_contract("telemetry"))
        assert isinstance(batch, Decoded)
        for at, row in enumerate(batch.table.to_pylist()):
            found.append((pid, batch.origin or "", batch.first_seq + at, row["device"]))
    return found


def assert_sessions(log: Path, devices: set[str]) -> None:
    """Each process has an origin of its own, and each event is there once under an identity of its own."""
    found = on_stream(log)
    assert sorted(one[3] for one in found) == sorted(devices)
    assert len({(origin, seq) for _, origin, seq, _ in found}) == len(found)
    origins: dict[str, set[int]] = {}
    for pid, origin, _, _ in found:
        origins.setdefault(origin, set()).add(pid)
    assert all(len(pids) == 1 for pids in origins.values())


def test_a_fork_has_a_session_a_thread_and_a_client_of_its_own(tmp_path: Path) -> None:
    """Forked in the middle of traffic from other threads; what the parent had not sent is the parent's."""
    done = run(
        """
        producer = Producer("s", "telemetry", client=connect, settings=QUICK)
        before = producer.put(event(device="before"))
        stop = threading.Event()
        def traffic(name):
            at = 0
            while not stop.is_set():
                producer.put(event(device=f"{name}-{at}")); at += 1
                time.sleep(0.001)
            counts[name] = at
        counts = {}
        threads = [threading.Thread(target=traffic, args=(f"t{n}",), daemon=True) for n in range(3)]
        for one in threads: one.start()
        children = []
        for n in range(5):
            time.sleep(0.03)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    assert producer.put(event(device=f"child-{n}")).result(20).count == 1
                    producer.put_batch(fleet(3))
                    producer.close()
                    try: before.result(1); code = 0
                    except HeadwaterError as error: code = 0 if "is a fork of it" in str(error) else 2
                except BaseException as error:
                    print(type(error).__name__, error, file=sys.stderr, flush=True)
                finally:
                    os._exit(code)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 5
        stop.set()
        for one in threads: one.join()
        producer.close()
        print(json.dumps(counts))
        """,
        tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    wanted = {f"{name}-{at}" for name, count in counts.items() for at in range(count)}
    wanted |= {"before", *(f"child-{n}" for n in range(5))}
    found = on_stream(tmp_path / "log")
    mine = [one for one in found if one[3] in wanted]
    assert sorted(one[3] for one in mine) == sorted(wanted)
    assert len(found) == len(wanted) + 5 * 3
    assert len({one[1:3] for one in found}) == len(found)
    assert len({one[1] for one in found}) == len({one[0] for one in found}) == 6


@pytest.mark.parametrize("kind", ["Producer", "DirectProducer"])
def test_a_fork_does_not_touch_the_outbox_of_its_parent(tmp_path: Path, kind: str) -> None:
    """The child's put is refused with the reason, also when it ends as an interpreter does; the file is whole."""
    box = tmp_path / "outbox.db"
    done = run(
        f"""
        box = {str(box)!r}
        contract = load_contract("telemetry")
        producer = {kind}("s", contract, client=connect, settings=QUICK, outbox=box)
        def put(n):
            if {kind!r} == "Producer": return producer.put(event(device=f"d{{n}}"))
            return producer.put(fleet(1), "o", n)
        futures = [put(n) for n in range(50)]
        pid = os.fork()
        if pid == 0:
            try: put(99)
            except HeadwaterError as error: print(error, flush=True)
            del producer
            sys.exit(0)
        futures += [put(n) for n in range(50, 200)]
        os.waitpid(pid, 0)
        for future in futures: future.result(20)
        producer.close()
        """,
        tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    assert "is a fork of it: the outbox" in done.stdout
    assert len(on_stream(tmp_path / "log")) == 200
    with sqlite3.connect(box) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert db.execute("select count(*) from batches").fetchone() == (0,)


def test_a_fork_with_a_client_made_before_is_told_what_to_do(tmp_path: Path) -> None:
    done = run(
        """
        producer = Producer("s", "telemetry", client=connect(), settings=QUICK)
        pid = os.fork()
        if pid == 0:
            try: producer.put(event())
            except HeadwaterError as error: print(error, flush=True)
            producer.flush(); producer.close(); os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    assert "pass a function that makes a client (client=lambda: boto3.client('kinesis'))" in done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(tmp_path: Path, method: str) -> None:
    """Workers put through the module's producer and end without close: the library's finalizers deliver."""
    (tmp_path / "module.py").write_text(
        script(
            """
            LOG = os.environ["LOG"]
            producer = Producer("s", "telemetry", client=connect, settings=ProducerSettings(linger_ms=60_000))
            def work(n):
                producer.put(event(device=f"worker-{n}"))
            """
        )
    )
    body = f"""
        import module
        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            module.producer.put(event(device="main"))
            workers = [context.Process(target=module.work, args=(n,)) for n in range(3)]
            for one in workers: one.start()
            for one in workers: one.join()
            assert [one.exitcode for one in workers] == [0] * 3
    """
    (tmp_path / "main.py").write_text(script(body))
    path = f"{tmp_path}:{REPOSITORY}"
    environment = {**os.environ, "LOG": str(tmp_path / "log"), "PYTHONPATH": path}
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "log")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_sessions(tmp_path / "log", {"main", "worker-0", "worker-1", "worker-2"})


def test_a_producer_is_not_sent_to_another_process() -> None:
    import pickle

    with (
        Producer("s", TELEMETRY, client=FakeStream(), settings=QUICK) as producer,
        pytest.raises(TypeError, match="make one in each process"),
    ):
        pickle.dumps(producer)


@pytest.mark.parametrize("how", ["end", "sys.exit(0)", "del producer", "raise SystemExit(3)"])
def test_an_end_without_close_delivers(tmp_path: Path, how: str) -> None:
    done = run(
        f"""
        producer = Producer("s", "telemetry", client=connect, settings=ProducerSettings(linger_ms=60_000))
        producer.put(event(device="last"))
        {"pass" if how == "end" else how}
        """,
        tmp_path / "log",
    )
    assert "lost" not in done.stderr
    assert [one[3] for one in on_stream(tmp_path / "log")] == ["last"]


@pytest.mark.parametrize("outbox", [False, True])
def test_an_end_without_close_says_what_is_lost(tmp_path: Path, outbox: bool) -> None:
    """A stream out of reach: within seconds the process ends and names count and stream, or the outbox."""
    box = tmp_path / "outbox.db"
    began = time.monotonic()
    done = run(
        f"""
        class Down(FileStream):
            def put_records(self, **_): raise ConnectionResetError("down")
        producer = Producer("orders", "telemetry", client=Down(LOG), outbox={str(box) if outbox else None!r})
        for n in range(7): producer.put(event())
        """,
        tmp_path / "log",
    )
    assert time.monotonic() - began < 30
    if outbox:
        assert f"the producer of stream orders ended without close(); the outbox {box} has the rest" in done.stderr
    else:
        assert "the producer of stream orders ended without close(), and 7 events are lost" in done.stderr


def test_gunicorn_with_preload(tmp_path: Path) -> None:
    """The app and its producer are made in the master; two workers put, and are ended by SIGTERM."""
    (tmp_path / "app.py").write_text(
        script(
            """
            LOG = os.environ["LOG"]
            producer = Producer("s", "telemetry", client=connect, settings=ProducerSettings(linger_ms=60_000))
            producer.put(event(device="master"))
            def app(environ, start_response):
                producer.put(event(device=environ["PATH_INFO"]))
                start_response("200 OK", [])
                return [str(os.getpid()).encode()]
            """
        )
    )
    socket = tmp_path / "socket"
    environment = {**os.environ, "LOG": str(tmp_path / "log"), "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"unix:{socket}", "app:app"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        pids, wanted = set[bytes](), {"master"}
        until = time.monotonic() + 60
        while time.monotonic() < until and len(pids) < 2:
            name = f"/{len(wanted)}"
            answer = subprocess.run(
                ["curl", "-s", "--unix-socket", str(socket), f"http://localhost{name}"],
                capture_output=True,
                check=False,
            )
            if answer.returncode == 0:
                pids.add(answer.stdout)
                wanted.add(name)
            else:
                time.sleep(0.2)
        server.send_signal(signal.SIGTERM)
        errors = server.communicate(timeout=60)[1]
    assert len(pids) == 2, errors
    assert "lost" not in errors
    assert_sessions(tmp_path / "log", wanted)


def test_celery_worker_delivers_at_its_last_signal(tmp_path: Path) -> None:
    """A prefork worker ends by os._exit after `worker_process_shutdown`: what is buffered then is delivered."""
    done = run(
        """
        import celery.signals
        producer = Producer("s", "telemetry", client=connect, settings=ProducerSettings(linger_ms=60_000))
        producer.put(event(device="main"))
        pid = os.fork()
        if pid == 0:
            producer.put(event(device="task"))
            celery.signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        producer.close()
        """,
        tmp_path / "log",
    )
    assert done.returncode == 0, done.stderr
    assert_sessions(tmp_path / "log", {"main", "task"})
