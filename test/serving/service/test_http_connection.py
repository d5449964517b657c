import asyncio
import socket

import pytest
from served import run

from serving.service import http_connection
from serving.service.http_connection import Connections, HttpConnection
from serving.service.inflight import Inflight

LARGE = 20000000
bodies = []                                    # of all requests
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(scope, receive, send):
    await asyncio.sleep(0.1)
    message = await receive()
    bodies.append(message["body"])
    while scope["path"] == "/whole" and message.get("more_body"):
        message = await receive()
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def with_connection(monkeypatch):
    """Runs a coroutine function of a connection's two streams; a head may take 0.05 s."""
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.05)
    app.is_overloaded = lambda: False

    def serve(ask, max_kept=1 << 20, max_open=10):
        async def session():
            serve.connections = connections = Connections(app, Inflight(max_kept), max_open)
            server = await asyncio.get_event_loop().create_server(lambda: HttpConnection(connections),
                                                                  "127.0.0.1", 0, backlog=200)
            serve.address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*serve.address)
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


@pytest.mark.parametrize("sent, message", [
    (bytes.fromhex("16030102000100"), b"HTTP without TLS, and got TLS"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"got HTTP/2; gRPC has a port of its own"),
])
def test_other_protocols_are_told_so_at_once(with_connection, monkeypatch, sent, message):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)

    async def ask(reader, writer):
        writer.write(sent)
        said = await reader.read()
        assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n") and message in said
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
        assert await reader.readline() == b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
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
        writer.write(REQUEST.replace(b"host: x", b"host: x\r\nConnection: close"))
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert await reader.read() == b""
    with_connection(ask)


def test_the_answer_before_the_body_reaches_a_client_that_wants_to_close(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)

    async def ask(reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n{")
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
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                         b"Content-Length: 3\r\nUpgr")
            await asyncio.sleep(0.01)
            writer.write(b"ade: h2c\r\nHTTP2-Settings: AAEA\r\n\r\n" + body)
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
            assert bodies[-1] == body
    with_connection(ask)


def test_the_body_of_a_request_for_another_protocol_is_no_request(with_connection):
    async def ask(reader, writer):
        writer.write(REQUEST + REQUEST.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n"
                                               % len(REQUEST)))
        await asyncio.sleep(0.01)
        writer.write(REQUEST + REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await reader.read()).count(b"HTTP/1.1 200") == 3
        assert bodies[-2] == REQUEST
    with_connection(ask)


POST = b"POST /v1/models/albert:predict HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\nX-Request-Id: mine\r\n"


@pytest.fixture
def without_room(with_connection):
    """The same, while the application has no room; gives what it refused, too."""
    refused = []

    def refuse_if_full(method, path, request_id, client):
        if method != "POST":
            return None
        refused.append((path, request_id))
        return 503, [(b"content-type", b"text/plain")], b"no"

    app.is_overloaded, app.refuse_if_full = lambda: True, refuse_if_full
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
        app.is_overloaded = lambda: False
        writer.write(POST + b"\r\n{}")
        assert (await answer(reader))[0].startswith(b"HTTP/1.1 200")
    del bodies[:]
    with_connection(ask)
    assert refused == [("/v1/models/albert:predict", "mine")] * 2
    assert len(bodies) == 1


@pytest.mark.parametrize("pieces", [
    [POST + b"\r\n", b"{}"],
    [POST + b"connection: close\r\n\r\n{}"],
    [POST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n2\r\n{}\r\n0\r\n\r\n"],
    [POST + b"\r\n{}" + REQUEST],
    [POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n{}"],
    [REQUEST],
], ids=["in pieces", "to be closed", "chunked", "one behind it", "HTTP/1.0", "GET"])
def test_what_is_more_than_a_plain_request_goes_the_whole_way(without_room, pieces):
    with_connection, refused = without_room

    async def ask(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        await reader.readuntil(b"\r\n\r\n")
    with_connection(ask)
    assert refused == []


def kept(serve):
    return serve.connections.inflight.num_bytes


@pytest.fixture
def patiently(with_connection, monkeypatch):
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 30)
    return with_connection


def test_no_more_is_read_while_requests_wait(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST * 100000)
        await asyncio.sleep(0.05)              # the first is being answered
        assert 0 < kept(patiently) < 300000
        writer.transport.abort()
        while kept(patiently):                 # the next answer shows that the client has gone
            await asyncio.sleep(0.01)
    patiently(ask)


@pytest.mark.parametrize("sent, status", [
    (b"\r\n" * 3 + REQUEST, 400),
    (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    (REQUEST + b"GET / HTTP/1.1\r\n" + b"x: %s\r\n" % (b"y" * 70000), 431),
    (POST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n2\r\n{}XX0\r\n\r\n", 400),
    (POST.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n0\r\n" + b"x: y\r\n" * 20000,
     400),
], ids=["blank lines", "line feeds", "a head behind a request", "a chunk's end", "trailers"])
def test_what_is_refused_is_so_in_words(patiently, sent, status):
    async def ask(reader, writer):
        writer.write(sent)
        answers = await reader.read()
        assert b"HTTP/1.1 %d " % status == answers[answers.rindex(b"HTTP/1.1"):][:13]
        assert b"connection: close\r\n" in answers
    patiently(ask)


def test_heads_that_are_half_sent_share_a_budget(patiently):
    async def ask(reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 40000)
        await asyncio.sleep(0.05)
        assert kept(patiently) > 40000
        others = [await asyncio.open_connection(*patiently.address) for _ in range(2)]
        for _, other in others:
            other.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 30000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")          # the longest under way
        assert kept(patiently) <= 70000
        for _, other in others:
            other.close()
    patiently(ask, max_kept=70000)


def test_one_connection_too_many_closes_the_one_that_is_idle_longest(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST)                  # this one is being answered
        await asyncio.sleep(0.01)
        idle, _ = await asyncio.open_connection(*patiently.address)
        other_reader, other = await asyncio.open_connection(*patiently.address)
        assert await idle.read() == b""
        other.write(REQUEST)
        assert await answer(other_reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        other.close()
    patiently(ask, max_open=2)


def test_one_that_never_asked_gives_way_before_one_that_has(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST)
        await answer(reader)                   # idle from here on, before the next one
        silent, _ = await asyncio.open_connection(*patiently.address)
        _, other = await asyncio.open_connection(*patiently.address)
        assert await silent.read() == b""
        writer.write(REQUEST)
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        other.close()
    patiently(ask, max_open=2)


def test_many_that_come_at_once_make_room_for_each_other(patiently):
    async def ask(reader, writer):
        sockets = [socket.create_connection(patiently.address) for _ in range(145)]  # in one round
        sockets[-1].sendall(REQUEST)
        sockets[-1].setblocking(False)
        reply = await asyncio.get_event_loop().sock_recv(sockets[-1], 100)
        assert reply.startswith(b"HTTP/1.1 200 ")
        for each in sockets:
            each.close()
    patiently(ask, max_open=100)


def test_where_none_is_idle_a_request_is_refused(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST)
        await asyncio.sleep(0.01)
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(REQUEST)
        assert (await other_reader.readline()).startswith(b"HTTP/1.1 503 ")
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        other.close()
    patiently(ask, max_open=1)


HALF_SENT = b"POST /whole HTTP/1.1\r\nhost: x\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("slow", [
    b"GET / HTTP/1.1\r\nx: y", HALF_SENT, HALF_SENT + b"{",
    HALF_SENT.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"1"],
                         ids=["head", "no body yet", "body", "chunk's size"])
def test_where_none_is_idle_the_slowest_request_that_is_half_sent_gives_way(patiently, slow):
    async def ask(reader, writer):
        writer.write(HALF_SENT + b" " * 5000)
        slow_reader, slow_writer = await asyncio.open_connection(*patiently.address)
        slow_writer.write(slow)
        await asyncio.sleep(0.02)
        slow_writer.write(b"1")                # it is not silent
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(REQUEST)
        assert await answer(other_reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert (await slow_reader.readline()).startswith(b"HTTP/1.1 503 ")
        writer.write(b" " * 95000)
        assert await answer(reader) == (b"HTTP/1.1 200 OK", b"ok")
        slow_writer.close()
        other.close()
    patiently(ask, max_open=2)


@pytest.mark.parametrize("sent", [b"no request\r\n\r\n", HALF_SENT.replace(b"/whole", b"/") + b"{",
                                  REQUEST.replace(b"/ ", b"/large ")],
                         ids=["told to go", "answered before the body has come",
                              "an answer that is not read"])
def test_who_has_an_answer_and_does_not_go_gives_way(patiently, sent):
    async def ask(reader, writer):
        writer.transport.pause_reading()
        writer.write(sent)
        await asyncio.sleep(0.2)
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(REQUEST)
        assert await answer(other_reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert len(patiently.connections.open) == 1
        writer.transport.resume_reading()
        try:
            assert (await reader.read()).count(b"HTTP/1.1 ") <= 1
        except ConnectionError:
            pass
        other.close()
    patiently(ask, max_kept=2 * LARGE, max_open=1)


def test_health_is_told_even_where_there_is_no_room(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST)                  # is being answered
        await asyncio.sleep(0.01)
        other_reader, other = await asyncio.open_connection(*patiently.address)
        for path in (b"/healthz", b"/readyz"):
            other.write(REQUEST.replace(b"/ ", path + b" "))
            assert (await other_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await other_reader.readexactly(2)
        other.close()
    patiently(ask, max_open=1)


@pytest.mark.parametrize("pieces", [[5], [1, 4], [2, 2, 1]])
def test_all_that_has_come_is_answered_before_the_end(patiently, pieces):
    async def ask(reader, writer):
        patiently.connections.drain()
        for count in pieces:
            writer.write((POST + b"\r\n{}") * count)
            await asyncio.sleep(0.01)
        answers = (await reader.read()).split(b"HTTP/1.1 200 OK")[1:]
        assert [b"connection: close" in each for each in answers] == [False] * 4 + [True]
    patiently(ask)


@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_only_listens_gets_its_answers(patiently, requests):
    async def ask(reader, writer):
        writer.write(REQUEST * requests)
        writer.write_eof()
        answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == answers.count(b"HTTP") == requests
    patiently(ask)


def test_a_client_that_goes_is_told_to_the_application(patiently, monkeypatch):
    async def ask(reader, writer):
        gone = asyncio.Event()

        async def waits(scope, receive, send):
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            gone.set()
        monkeypatch.setattr(patiently.connections, "app", waits)
        waits.is_overloaded = lambda: False
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(REQUEST)
        await asyncio.sleep(0.01)
        other.close()
        await asyncio.wait_for(gone.wait(), 10)
    patiently(ask)


def test_requests_that_were_sent_ahead_take_turns(patiently, monkeypatch):
    """In a round of the event loop so many go on; all are answered in the end."""
    monkeypatch.setattr(http_connection, "PIPELINED_AT_ONCE", 2)
    most = []
    take_turns = Connections._take_turns

    def counted(connections):
        before = len(connections.pipelined)
        take_turns(connections)
        most.append(before - len(connections.pipelined))
    monkeypatch.setattr(Connections, "_take_turns", counted)

    async def ask(reader, writer):
        streams = [await asyncio.open_connection(*patiently.address) for _ in range(5)]
        for _, each in streams:
            each.write(REQUEST * 3)
        for each, _ in streams:
            assert [await answer(each) for _ in range(3)] == [(b"HTTP/1.1 200 OK", b"ok")] * 3
        for _, each in streams:
            each.close()
    patiently(ask)
    assert max(most) == 2 and sum(most) == 10


def test_who_waits_for_a_turn_gives_way(patiently, monkeypatch):
    monkeypatch.setattr(Connections, "_take_turns", lambda connections: None)

    async def ask(reader, writer):
        writer.write(REQUEST * 2)
        await answer(reader)
        other_reader, other_writer = await asyncio.open_connection(*patiently.address)
        other_writer.write(REQUEST)
        assert await answer(other_reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert await reader.read() == b""
        other_writer.close()
    patiently(ask, max_open=1)



def test_the_last_answers_say_so_and_requests_that_wait_are_answered_first(patiently):
    async def ask(reader, writer):
        writer.write(REQUEST * 3)
        await asyncio.sleep(0.01)
        patiently.connections.drain()
        answers = (await reader.read()).split(b"HTTP/1.1 200 OK")[1:]
        assert [b"connection: close" in each for each in answers] == [False, False, True]
        other_reader, other = await asyncio.open_connection(*patiently.address)
        patiently.connections.close_idle()
        assert await other_reader.read() == b""
    patiently(ask)


def test_bodies_that_are_half_sent_share_the_budget(patiently):
    refused = []

    async def ask(reader, writer):
        patiently.connections.inflight._on_refusal = lambda: refused.append(1)
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n"
        writer.write(head + b" " * 40000)
        await asyncio.sleep(0.02)
        assert kept(patiently) == 40000
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(head + b" " * 50000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")          # the longest under way
        assert b'{"error": "Requests in flight exceed 70000 bytes"}' in await reader.read()
        assert kept(patiently) == 50000
        third_reader, third = await asyncio.open_connection(*patiently.address)
        third.write(head + b" " * 50000)       # what has come whole stays
        assert (await third_reader.readline()).startswith(b"HTTP/1.1 503 ")
        assert await answer(other_reader) == (b"HTTP/1.1 200 OK", b"ok")
        assert (kept(patiently), refused) == (0, [1, 1])
        other.close()
        third.close()
    patiently(ask, max_kept=70000)


def test_answers_that_nobody_reads_share_the_budget(patiently):
    async def ask(reader, writer):
        writer.transport.pause_reading()
        writer.write(REQUEST.replace(b"/ ", b"/large "))
        while kept(patiently) < LARGE // 2:
            await asyncio.sleep(0.01)
        other_reader, other = await asyncio.open_connection(*patiently.address)
        other.write(REQUEST.replace(b"/ ", b"/large "))
        await other_reader.readuntil(b"\r\n\r\n")
        assert len(await other_reader.readexactly(LARGE)) == LARGE
        writer.transport.resume_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(LARGE)
        while kept(patiently):
            await asyncio.sleep(0.01)
        other.close()
    patiently(ask, max_kept=LARGE + LARGE // 4)
