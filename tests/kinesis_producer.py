"""Amazon's Kinesis Producer Library (Java, with a native core) from Maven Central, as a process that puts events.

It speaks TLS alone, with Kinesis and with STS, which it asks for the account that its stream is of.
"""

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kcl_servers import HERE, jars

__all__ = ["AmazonProducer", "Confirmed", "amazon_producer"]

PROGRAM = HERE / "kinesis-producer" / "Produce.java"
_IDENTITY = (
    b'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    b"<Arn>arn:aws:iam::000000000000:user/test</Arn><UserId>TEST</UserId><Account>000000000000</Account>"
    b"</GetCallerIdentityResult><ResponseMetadata><RequestId>test</RequestId></ResponseMetadata>"
    b"</GetCallerIdentityResponse>"
)


@dataclass(frozen=True)
class Confirmed:
    """What it says at its end: events put, and confirmed."""

    put: int
    confirmed: int
    shards: int
    """That its events were confirmed on."""
    failures: dict[str, int]
    """Why events were sent again or given up, and how many times."""


class AmazonProducer:
    """The running process: it puts events numbered in `value`, from zero, at a steady rate."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    def put(self) -> int:
        """Return how many events it has put, or a few less."""
        if self._process.poll() is not None:
            raise AssertionError(f"it has ended: {self.said()}")
        told = [line for line in self.said().splitlines() if line.startswith("put ")]
        return int(told[-1].removeprefix("put ")) if told else 0

    def said(self) -> str:
        """Return the end of its log."""
        return self._log.read_text(errors="replace")[-4000:]

    def finish(self) -> Confirmed:
        """End it in order: it sends all that it has, and says what became of it."""
        out, _ = self._process.communicate(timeout=180)
        if self._process.returncode:
            raise AssertionError(self.said())
        return Confirmed(**json.loads(out))


@contextmanager
def amazon_producer(stream: str, port: int, folder: Path, rate: int, start_ms: int) -> Iterator[AmazonProducer]:
    """Yield it at work against the Kinesis that speaks TLS on this port; killed with the block if it still runs."""
    libraries, log = jars("kinesis-producer"), folder / "producer.log"
    with _sts(folder) as sts, log.open("wb") as errors:
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*"]
        given = [port, sts, stream, folder, rate, start_ms]
        command += [str(PROGRAM), *map(str, given)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        try:
            yield AmazonProducer(process, log)
        finally:
            if process.poll() is None:
                process.kill()  # its core ends when it is gone
            for stream_ in (process.stdin, process.stdout):
                _close(stream_)
            process.wait()


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None and not stream.closed:
        stream.close()


class _Identity(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(_IDENTITY)))
        self.end_headers()
        self.wfile.write(_IDENTITY)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _sts(folder: Path) -> Iterator[int]:
    """Yield the port of what answers GetCallerIdentity, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Identity)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(folder: Path) -> Path:
    """Return a file with a key and a certificate that it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, hashes.SHA256())
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = folder / "sts.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file
