"""An HTTP connection that ends by itself when its client sends a request's head too slowly, too long or not at all, or does
not read its answer, or goes on sending after it."""
import asyncio
import re
from typing import Any, Optional

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10
MAX_HEAD_BYTES = 65536
# The parser leaves the body of a request that asks for another protocol unread. Java's client asks for HTTP/2 so.
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
READ_SECONDS = 30                              # for a client whose buffers are full


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with these limits; `http_app` limits the body and the whole time, uvicorn the time between requests."""

    _in_head = True                            # what comes next is a request's head, or the rest of one
    _head = b""                                # what has come of it
    _head_timer: Optional[asyncio.TimerHandle] = None          # runs while a head is awaited, or a body's end in vain
    _read_timer: Optional[asyncio.TimerHandle] = None          # runs while the client must read
    _is_last = False                           # the client wants the connection closed after its answer

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if not self._head_timer:           # a further request on this connection
                self._await_head()
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD_BYTES:
                self.transport.close()
            if len(head) > MAX_HEAD_BYTES or not end:
                return
            self._head, data = b"", UPGRADE.sub(b"", head) + end + rest
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = False                  # what the parser has begun, it must end: a head behind a body in one piece, say
        if not self._head_timer:
            self._await_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # uvicorn would close at once; and what a client still sends to a closed connection costs it the answer.
        if name.lower() == b"connection" and value.lower() == b"close":
            self._is_last = True
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True
        self._stop_head_timer()
        if self._is_last and self.cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.response_complete:   # another request is behind it
            return
        if not self._in_head:                  # refused before its body had come: the client may not send for ever
            self._await_head()
        elif self._is_last:
            self.transport.close()

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
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_read_timer(self) -> None:
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None
