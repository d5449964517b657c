import asyncio

import pytest
from served import run

from serving.service.process import bind
from serving.service import http_server
from serving.service.http_server import HttpServer
from serving.service.inflight import Inflight

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def with_server(monkeypatch):
    """Runs a coroutine function of a server, whose application answers when it is let, and its port."""
    def serve(ask):
        async def session():
            letting = asyncio.Event()

            async def app(scope, receive, send):
                await letting.wait()
                await send({"type": "http.response.start", "status": 200,
                            "headers": [(b"content-length", b"2")]})
                await send({"type": "http.response.body", "body": b"ok"})
            app.is_overloaded = lambda: False
            listening = bind("127.0.0.1", 0, "rest_api_port")
            server = HttpServer(app, listening, Inflight(1 << 20), 10)
            await server.start()
            await ask(server, listening.getsockname(), letting)
        run(session())
    return serve


async def head_of(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)
    return head


def test_answers_are_dated_and_not_to_be_sniffed(with_server):
    async def ask(server, address, letting):
        letting.set()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST)
        head = await head_of(reader)
        assert (b"\r\ndate: " in head and b"\r\nx-content-type-options: nosniff\r\n" in head
                and b"connection" not in head)
        writer.write(b"no request\r\n\r\n")
        assert b"\r\nx-content-type-options: nosniff\r\n" in await reader.readuntil(b"\r\n\r\n")
        await server.stop(60)
    with_server(ask)


def test_the_end_answers_what_was_asked_and_what_is_asked_once_more(with_server, monkeypatch):
    monkeypatch.setattr(http_server, "IDLE_GRACE_SECONDS", 30)

    async def ask(server, address, letting):
        busy, idle, waiting = [await asyncio.open_connection(*address) for _ in range(3)]
        busy[1].write(REQUEST)
        while len(server.connections.open) < 3 or not server.connections.tasks:
            await asyncio.sleep(0.01)
        unaccepted = await asyncio.open_connection(*address)
        unaccepted[1].write(REQUEST)
        ending = asyncio.ensure_future(server.stop(60))
        while not server.connections.is_draining:
            await asyncio.sleep(0.01)
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)
        idle[1].write(REQUEST)                 # it could not know
        letting.set()
        for reader, _ in (busy, idle, unaccepted):
            assert b"connection: close\r\n" in await head_of(reader)
            assert await reader.read() == b""
        assert not ending.done()               # one may still ask
        waiting[1].close()
        await ending
    with_server(ask)


def test_the_end_does_not_wait_for_who_asks_nothing(with_server, monkeypatch):
    monkeypatch.setattr(http_server, "IDLE_GRACE_SECONDS", 0)

    async def ask(server, address, letting):
        reader, _ = await asyncio.open_connection(*address)
        await server.stop(1000)
        assert await reader.read() == b""
    with_server(ask)


def test_the_end_cuts_off_what_takes_too_long(with_server):
    async def ask(server, address, letting):
        _, writer = await asyncio.open_connection(*address)
        writer.write(REQUEST)
        while not server.connections.tasks:
            await asyncio.sleep(0.01)
        await server.stop(0.01)
        while server.connections.tasks:
            await asyncio.sleep(0.01)
    with_server(ask)
