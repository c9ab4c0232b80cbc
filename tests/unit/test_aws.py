"""Clients: an answer that was cut off is no answer."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.parsers import ResponseParserError

from headwater.aws import Objects, client
from headwater.config import Settings

WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"Item":{"a":{"S":"no"}}}'
CUT = {
    "body": b'HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n{"Item":{"a"',
    "all of the body": b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\nServer: x\r\nConten",
    "the header of a checksum": b"HTTP/1.1 200 OK\r\nServer: x\r\nx-amz-crc32:",
    "body of an error": b'HTTP/1.1 400 Bad\r\nContent-Length: 99\r\n\r\n{"__type":"x#ConditionalCheckFail',
}


@contextmanager
def answering(answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next answer and closes it; where it is, and the requests it had."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    requests.append(_whole_request(connection))
                    connection.sendall(answer)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        thread.join(10)
        assert not thread.is_alive(), "not every answer was asked for"


def _whole_request(connection: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return body


def made(patch: pytest.MonkeyPatch, service: str, url: str, **config: Any) -> Any:
    for name, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}.items():
        patch.setenv(f"AWS_{name}", value)
    return client(service, Settings(), **config)


@pytest.mark.parametrize("what", CUT)
def test_a_request_whose_answer_is_cut_is_sent_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore alone says of most of these that there is no such item."""
    with answering([CUT[what], CUT[what], WHOLE]) as (url, requests):
        dynamodb = made(monkeypatch, "dynamodb", url)
        assert dynamodb.get_item(TableName="t", Key={"k": {"S": "1"}})["Item"] == {"a": {"S": "no"}}
    assert len(requests) == 3
    assert len(set(requests)) == 1


@pytest.mark.parametrize("what", CUT)
def test_a_client_that_sends_once_says_that_the_connection_broke(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And sends once."""
    with answering([CUT[what]]) as (url, requests):
        dynamodb = made(monkeypatch, "dynamodb", url, retries={"mode": "standard", "total_max_attempts": 1})
        with pytest.raises(ConnectionClosedError):
            dynamodb.get_item(TableName="t", Key={"k": {"S": "1"}})
    assert len(requests) == 1


def test_an_answer_without_a_body_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none to come."""
    empty = [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    with answering(empty) as (url, requests):
        kinesis = made(monkeypatch, "kinesis", url)
        kinesis.delete_stream(StreamName="s")
        kinesis.delete_stream(StreamName="s")
    assert len(requests) == 2


LISTED = (
    b"<?xml version='1.0' encoding='UTF-8'?><DeleteResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"
    b"<Deleted><Key>a</Key></Deleted></DeleteResult>"
)


@pytest.mark.parametrize("kept", [0, 30, 120])
def test_a_request_whose_answer_in_xml_is_cut_is_sent_again(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in JSON is, although what came cannot be parsed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(LISTED)
    with answering([head + LISTED[:kept], head + LISTED]) as (url, requests):
        s3 = made(monkeypatch, "s3", url)
        found = s3.delete_objects(Bucket="b", Delete={"Objects": [{"Key": "a"}]})
        assert [one["Key"] for one in found["Deleted"]] == ["a"]
    assert len(requests) == 2
    with answering([head + LISTED[:kept]]) as (url, _):
        s3 = made(monkeypatch, "s3", url, retries={"mode": "standard", "total_max_attempts": 1})
        with pytest.raises(ConnectionClosedError):
            s3.delete_objects(Bucket="b", Delete={"Objects": [{"Key": "a"}]})


STORED = b"HTTP/1.1 100 Continue\r\nConnection: keep-alive\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("kept", [0, 12, 23, 40, 49, 51, 70, 90])
def test_a_file_is_stored_where_ever_the_answer_is_cut(
    kept: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """botocore asks S3 whether to send a file, and looked for the end of a cut `100 Continue` for ever."""
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in (STORED[:kept], STORED):
                connection, _ = listener.accept()
                with connection:
                    asks = b"\r\nExpect:" in connection.recv(4096, socket.MSG_PEEK)
                    _ = connection.recv(4096) if asks else _whole_request(connection)
                    connection.sendall(answer)

        s3 = made(monkeypatch, "s3", f"http://127.0.0.1:{listener.getsockname()[1]}")
        store = Thread(target=Objects(s3, "b").put_file, args=("k", tmp_path / "file"), daemon=True)
        for thread in (Thread(target=serve, daemon=True), store):
            thread.start()
        store.join(30)
        assert not store.is_alive()


def test_an_answer_that_cannot_be_parsed_is_no_fault_of_the_service() -> None:
    """A proxy's page in place of an answer: 503, and services go on."""
    from headwater.lease import PASSING
    from headwater.serving.api.errors import problem_of

    error = ResponseParserError("Unable to parse response")
    assert problem_of(error).status == 503
    assert isinstance(error, PASSING)
