import asyncio

import pytest
import uvicorn
from served import run

from serving import http_connection
from serving.http_connection import HttpConnection

LARGE = 20000000
bodies = []                                    # of all requests
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(scope, receive, send):
    await asyncio.sleep(0.1)
    bodies.append((await receive())["body"])
    body = b"ok" if scope["path"] == "/" else bytes(LARGE)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def with_connection(monkeypatch):
    """Runs a coroutine function of a connection's two streams; a head may take 0.05 s."""
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.05)
    app.has_room = lambda: True

    def serve(ask):
        async def session():
            config = uvicorn.Config(app, http=HttpConnection, ws="none", lifespan="off", log_config=None)
            config.load()
            state = uvicorn.Server(config).server_state
            server = await asyncio.get_event_loop().create_server(
                lambda: HttpConnection(config, state, {}), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await ask(reader, writer)
            writer.close()
            server.close()
        run(session())
    return serve


async def answer(reader):
    return (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0], await reader.readexactly(2)


def test_an_answer_may_take_longer_than_a_head(with_connection):
    async def ask(reader, writer):
        for _ in range(2):
            writer.write(REQUEST)
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
    with_connection(ask)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:", REQUEST[:-1]])
def test_a_head_that_does_not_come(with_connection, sent):
    async def ask(reader, writer):
        writer.write(sent)
        assert await reader.read() == b""
    with_connection(ask)


def test_a_second_head_that_does_not_come(with_connection):
    async def ask(reader, writer):
        writer.write(REQUEST)
        await answer(reader)
        writer.write(b"GET")
        assert await reader.read() == b""
    with_connection(ask)


def test_a_head_without_end(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)

    async def ask(reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    with_connection(ask)


def test_requests_in_any_pieces(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)
    requests = REQUEST + REQUEST.replace(b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\n{}") + REQUEST

    async def ask(reader, writer):
        for first in (len(REQUEST) + 3, len(requests) - len(REQUEST) - 3, len(requests) - 1):
            writer.write(requests[:first])
            await asyncio.sleep(0.01)
            writer.write(requests[first:])
            for _ in range(3):
                assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
    with_connection(ask)


def test_a_connection_that_is_to_be_closed(with_connection):
    async def ask(reader, writer):
        writer.write(REQUEST.replace(b"host: x", b"Connection: close"))
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert await reader.read() == b""
    with_connection(ask)


def test_the_answer_before_the_body_reaches_a_client_that_wants_to_close(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)

    async def ask(reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n{")
        await asyncio.sleep(0.12)              # it has been answered by now
        writer.write(b" " * 999999)
        await writer.drain()
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert await reader.read() == b""
    with_connection(ask)


def test_a_body_that_goes_on_after_the_answer(with_connection):
    async def ask(reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
    with_connection(ask)


def test_a_body_that_ends_after_the_answer(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.5)

    async def ask(reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        writer.write(b"}")
        await asyncio.sleep(0.7)
        writer.write(REQUEST)
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
    with_connection(ask)


def test_an_answer_that_is_not_read(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "READ_SECONDS", 0.05)

    async def ask(reader, writer):
        writer.write(REQUEST.replace(b"/ ", b"/large "))
        await asyncio.sleep(0.5)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(LARGE)
    with_connection(ask)


def test_a_request_that_would_rather_speak_another_protocol(with_connection):
    async def ask(reader, writer):
        for body in (b"one", b"two"):
            writer.write(b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 3\r\nUpgr")
            await asyncio.sleep(0.01)
            writer.write(b"ade: h2c\r\nHTTP2-Settings: AAEA\r\n\r\n" + body)
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
            assert bodies[-1] == body
    with_connection(ask)


def test_the_body_of_a_request_for_another_protocol_is_no_request(with_connection):
    async def ask(reader, writer):
        writer.write(REQUEST + b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(REQUEST))
        await asyncio.sleep(0.01)
        writer.write(REQUEST)
        answers = await reader.read()
        assert answers.startswith(b"HTTP/1.1 400 ") and answers.count(b"HTTP/1.1 ") == 1      # it overtakes the first one's
    with_connection(ask)


POST = b"POST /v1/models/albert:predict HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\nX-Request-Id: mine\r\n"


@pytest.fixture
def without_room(with_connection):
    """The same, while the application has no room; gives what it refused, too."""
    refused = []

    def refuse(path, request_id, client):
        refused.append((path, request_id))
        return 503, [(b"content-type", b"text/plain")], b"no"

    app.has_room, app.refuse = lambda: False, refuse
    yield with_connection, refused


def test_what_comes_whole_is_refused_at_once_and_the_connection_kept(without_room):
    with_connection, refused = without_room

    async def ask(reader, writer):
        for _ in range(2):
            writer.write(POST + b"\r\n{}")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert head.endswith(b"\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n")
            assert await reader.readexactly(2) == b"no"
        app.has_room = lambda: True
        writer.write(POST + b"\r\n{}")
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 200")
    del bodies[:]
    with_connection(ask)
    assert refused == [("/v1/models/albert:predict", "mine")] * 2
    assert len(bodies) == 1


@pytest.mark.parametrize("pieces", [
    [POST + b"\r\n", b"{}"],
    [POST + b"connection: keep-alive\r\n\r\n{}"],
    [POST + b"Expect: 100-continue\r\n\r\n{}"],
    [POST + b"content-length: 2\r\n\r\n{}"],
    [POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
    [POST + b"\r\n{}" + REQUEST],
    [POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n{}"],
    [REQUEST],
], ids=["in pieces", "connection", "expect", "two lengths", "chunked", "one behind it", "HTTP/1.0", "GET"])
def test_what_is_more_than_a_plain_request_goes_the_whole_way(without_room, pieces):
    with_connection, refused = without_room

    async def ask(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        await reader.readuntil(b"\r\n\r\n")
    with_connection(ask)
    assert refused == []
