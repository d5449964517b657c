"""Listens for REST: accepts connections, and shuts down without losing a request."""
import asyncio
import socket
import time
from email.utils import formatdate
from typing import Any

from serving.service.browsers import NO_SNIFFING
from serving.service.http_connection import Connections, HttpConnection
from serving.service.inflight import Inflight

IDLE_GRACE_SECONDS = 0.5  # at shutdown, until idle connections are closed: a last request may be on its way
DATE_SECONDS = 1
BACKLOG = 4096  # as in Linux; connections beyond it get no reply, and retry after 1, 3, 7 s


class HttpServer:
    """Serves `app` on `listening`.

    Args:
      max_connections: beyond this the longest-idle one is closed; if none is idle, a request is refused.
    """

    def __init__(self, app: Any, listening: socket.socket, inflight: Inflight, max_connections: int) -> None:
        self.connections = Connections(app, inflight, max_connections)
        self._listening = listening
        self._server: Any = None
        self._dating: Any = None

    async def start(self) -> None:
        """Accepts connections from now on."""
        self._set_date()
        self._server = await asyncio.get_event_loop().create_server(self._connect, sock=self._listening.dup(),
                                                                    backlog=BACKLOG)

    async def stop(self, drain_seconds: float) -> None:
        """Stops listening, makes each connection's next answer its last, and waits until all are closed, at
        most so long.

        Idle connections are closed after a short grace period.
        """
        self._server.close()                   # its copy of the socket; ours still listens
        await asyncio.sleep(0)
        await self._accept_rest()
        self._listening.close()
        self.connections.drain()
        loop = asyncio.get_event_loop()
        start = loop.time()
        while self.connections.open and loop.time() < start + drain_seconds:
            if loop.time() >= start + min(IDLE_GRACE_SECONDS, drain_seconds / 2):
                self.connections.close_idle()
            await asyncio.sleep(0.01)
        for task in list(self.connections.tasks):
            task.cancel()
        await asyncio.sleep(0)
        self._dating.cancel()

    async def _accept_rest(self) -> None:
        """Connections in the backlog: closing the socket would reset them with the requests that they
        have sent."""
        loop = asyncio.get_event_loop()
        self._listening.setblocking(False)
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:                    # no more, or no descriptor
                return
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._connect, connection)   # type: ignore[attr-defined]

    def _connect(self) -> HttpConnection:
        return HttpConnection(self.connections)

    def _set_date(self) -> None:
        self.connections.headers = [(b"date", formatdate(time.time(), usegmt=True).encode()), NO_SNIFFING]
        self._dating = asyncio.get_event_loop().call_later(DATE_SECONDS, self._set_date)
