import asyncio
import json
import os
import socket

import pytest

from serving.service import early_answers
from serving.service.early_answers import EarlyAnswers, answer_to


@pytest.mark.parametrize("head, status, body", [
    (b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b"200 OK", {"status": "alive"}),
    (b"\r\nGET /healthz?now HTTP/1.0\r\n\r\n", b"200 OK", {"status": "alive"}),
    (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"200 OK", None),
    (b"GET /readyz HTTP/1.0\r\n\r\n", b"503 Service Unavailable", {"error": "The server is starting"}),
    (b"POST /healthz HTTP/1.0\r\n\r\n", b"503 Service Unavailable", {"error": "The server is starting"}),
    (b"\x16\x03\x01\x02\x00\x01\x00", b"400 Bad Request",
     {"error": "this port speaks HTTP without TLS, and got TLS"}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request",
     {"error": "this port speaks HTTP/1.1, and got HTTP/2; gRPC has a port of its own"}),
    (b"GET /healthz HTTP/1.1\nhost: a\n\n", b"400 Bad Request",
     {"error": "lines must end with a carriage return and a line feed"}),
    (b"GET /healthz HTTP/1.1\r\n\r\n", b"400 Bad Request", {"error": "host is missing"}),
    (b"G" * 65537, b"431 Request Header Fields Too Large",
     {"error": "a head must have at most 65536 bytes"})])
def test_what_is_answered(head, status, body):
    said, _, found = answer_to(head).partition(b"\r\n\r\n")
    lines = said.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 " + status and (json.loads(found.decode()) if found else None) == body
    length = len(found or b'{"status": "alive"}')
    assert b"content-length: %d" % length in lines and b"connection: close" in lines
    assert (b"retry-after: 1" in lines) == (b"503" in status)


def test_a_head_that_has_not_come_is_waited_for():
    for data in (b"", b"\r", b"\r\n", b"GET /healthz HTTP/1.1\r\nhost: a\r\n"):
        assert answer_to(data) is None


@pytest.fixture
def listening():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening


def connect(listening):
    return socket.create_connection(listening.getsockname(), timeout=60)


def test_a_process_answers_until_the_server_does(listening):
    early = EarlyAnswers(listening)
    with early:
        with connect(listening) as connection:
            connection.sendall(b"POST /v1/models/a:predict HTTP/1.0\r\ncontent-length: 3000000\r\n\r\n")
            connection.sendall(b"x" * 3000000)         # who closed without reading it would lose the answer
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
        with connect(listening) as connection:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
        with connect(listening) as half_sent, connect(listening) as waiting:
            half_sent.sendall(b"GET /healthz HT")
            with connect(listening) as connection:     # so the others are accepted, too
                connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
            early.end()
            with connect(listening) as connection:     # the server's to accept, from now on
                accepted, _ = listening.accept()
                accepted.close()
            half_sent.sendall(b"TP/1.0\r\n\r\n")
            assert half_sent.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
            waiting.close()
        assert early._process.wait(60) == 0


def test_it_goes_with_the_block(listening):
    with EarlyAnswers(listening) as early:
        pass
    assert early._process.returncode == -9


def test_so_many_connections_and_no_more(listening, monkeypatch):
    monkeypatch.setattr(early_answers, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(early_answers, "LINGER_SECONDS", 0.1)
    (reading, writing), (told, output) = os.pipe(), os.pipe()

    async def ask():
        answering = asyncio.ensure_future(
            early_answers.answer_until_input_ends(listening.dup(), reading, output))
        first, _ = await asyncio.open_connection(*listening.getsockname())
        second, _ = await asyncio.open_connection(*listening.getsockname())
        assert await second.read() == b""
        os.close(writing)
        await answering
        assert os.read(told, 1) == b""                 # it is closed
    asyncio.run(asyncio.wait_for(ask(), 60))
    os.close(reading)
    os.close(told)
