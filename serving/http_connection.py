"""An HTTP connection that ends by itself when its client sends a request's head too slowly, too long or not at all, or does
not read its answer, or goes on sending after it."""
import asyncio
import http
import re
from typing import Any, Optional

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10
MAX_HEAD_BYTES = 65536
# The parser leaves the body of a request that asks for another protocol unread. Java's client asks for HTTP/2 so.
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
# A request that wants nothing else of the connection than that it be kept, when it has come in one piece.
PLAIN_POST = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n", re.ASCII)
WANTS_MORE = re.compile(rb"\r\n(?:connection|expect|transfer-encoding|upgrade)[ \t]*:", re.IGNORECASE)
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})(?=\r\n|$)", re.IGNORECASE)
REQUEST_ID = re.compile(rb"\r\nx-request-id: *([^\r\n]*)", re.IGNORECASE)
READ_SECONDS = 30                              # for a client whose buffers are full


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with these limits; `http_app` limits the body and the whole time, uvicorn the time between requests.

    A request that has come whole when `http_app` has no room for it is answered here and now: a task, a scope and two messages
    cost twice as much, and are spent when the machine has least to give.
    """

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
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD_BYTES:
                self.transport.close()
            elif not end and not self._head_timer:     # a further request on this connection
                self._await_head()
            if len(head) > MAX_HEAD_BYTES or not end:
                return
            if not self.config.app.has_room() and self._refuse(head, rest):
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
        if self.parser.should_upgrade():       # a head behind a body in one piece: what follows it would be read as a request
            raise ValueError("another protocol was asked for")
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

    def _refuse(self, head: bytes, body: bytes) -> bool:
        """Whether the request was answered by a refusal."""
        post = PLAIN_POST.match(head)
        is_busy = self._read_timer or (self.cycle and not self.cycle.response_complete)
        if not post or is_busy or WANTS_MORE.search(head) or self._is_last:
            return False
        lengths = CONTENT_LENGTH.findall(head)
        if len(lengths) != 1 or int(lengths[0]) != len(body):
            return False
        given = REQUEST_ID.search(head)
        refusal = self.config.app.refuse(post.group(1).decode(), given.group(1).decode("latin-1") if given else None, self.client)
        if not refusal:
            return False
        status, headers, answer = refusal
        lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % header for header in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"\r\n".join(lines + [b"content-length: %d" % len(answer), b"", answer]))
        self._head = b""
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        return True

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
