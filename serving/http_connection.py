"""An HTTP connection that ends by itself when its client sends a request's head too slowly, too long or not at all, or does
not read its answer."""
import asyncio
from typing import Any, Optional

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10
MAX_HEAD_BYTES = 65536
READ_SECONDS = 30                              # for a client whose buffers are full


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with these limits; `http_app` limits the body and the whole time, uvicorn the time between requests."""

    _head_timer: Optional[asyncio.TimerHandle] = None          # runs while a head is awaited
    _head_bytes = 0
    _read_timer: Optional[asyncio.TimerHandle] = None          # runs while the client must read

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._head_timer:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._head_timer:               # a further request on this connection
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_read_timer()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._stop_head_timer()
        self._stop_read_timer()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_read_timer(self) -> None:
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None
