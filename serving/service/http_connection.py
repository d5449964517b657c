"""An HTTP connection that reads one request at a time and ends by itself when its client sends too slowly, too much or nothing,
or does not read its answer.

`http_framing` says where requests begin and end, `http_app` answers; between them stands uvicorn's cycle of a request and its answer.
"""
import asyncio
import http
import itertools
import json
import logging
import select
import urllib.parse
from typing import Any, Dict, List, Optional, Set, Tuple

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.service.http_framing import (BARE_LINE_FEED, END_OF_HEAD, MAX_HEAD_BYTES, ChunkedBody,
                                          FramingError, Head, read_head)
from serving.service.inflight import Inflight, Share

HEAD_SECONDS = 10                              # for a head, and for what still comes after an answer
IDLE_SECONDS = 75                              # a connection may stay open between two requests
READ_SECONDS = 30                              # for a client whose buffers are full
NUM_COMPARED = 32                              # of the half-sent requests that have been coming longest, the slowest gives way to others
LINGER_SECONDS = 2                             # a client that is told to go may go on sending so long
GONE_SECONDS = 0.05                            # until a client that has closed for good is told apart from one that only listens
MAX_BLANK_BYTES = 4                            # ends of lines before a request
START = b"HTTP/1.1 "                           # of each answer
CLOSE_HEADER = (b"connection", b"close")
REQUEST_ID_HEADER = b"x-request-id"
HEALTH_PATHS = (b"/healthz", b"/readyz")       # whoever asks them would end a process that does not answer
NO_ROOM = "There are more connections than the server has room for"
LOG = logging.getLogger("uvicorn.error")


class Connections:
    """What the connections of one server share."""

    def __init__(self, app: Any, inflight: Inflight, max_open: int) -> None:
        self.app, self.inflight, self.max_open = app, inflight, max_open
        self.open: Set["HttpConnection"] = set()
        # Those whose clients have nothing to wait for, the one that has been silent longest first.
        self.idle: Dict["HttpConnection", None] = {}
        self.half_sent: Dict["HttpConnection", None] = {}      # with a part of a request, the one that has been coming longest first
        self.lingering: Dict["HttpConnection", None] = {}      # that are told to go
        self.unread: Dict["HttpConnection", None] = {}         # whose clients do not read what they asked for
        self.tasks: Set["asyncio.Task[None]"] = set()
        self.headers: List[Tuple[bytes, bytes]] = []           # of each answer
        self.is_draining = False

    def make_room(self) -> bool:
        """Whether one more may ask something, maybe since another connection was closed."""
        if len(self.open) <= self.max_open:
            return True
        chosen = next(iter(self.lingering), None) or next((each for each in self.idle if not each.has_unread()), None)
        if not chosen and self.half_sent:
            # By their speed: whoever sends a byte now and then is not silent, but who sends a large body quickly should end it.
            now = asyncio.get_event_loop().time()
            chosen = min(itertools.islice(self.half_sent, NUM_COMPARED), key=lambda each: each.bytes_per_second(now))
        chosen = chosen or next(iter(self.unread), None)
        if chosen:
            chosen.make_room()
        return chosen is not None

    def drain(self) -> None:
        """From now on every answer is the last of its connection, unless another request waits behind it."""
        self.is_draining = True
        for connection in self.open:
            connection.announce_end()

    def close_idle(self) -> None:
        """Closes those whose clients have asked nothing that is not answered."""
        for connection in list(self.idle):
            if not connection.has_unread():
                connection.make_room()


class _Flow(FlowControl):
    """uvicorn's, which resumes reading whenever the application wants a body; not so while a further request waits."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class HttpConnection(asyncio.Protocol):
    """One connection.

    A request that has come whole when `http_app` has no room for it is answered here and now: a task, a scope and two messages
    cost twice as much, and are spent when the machine has least to give.
    """

    def __init__(self, connections: Connections) -> None:
        self._all, self._app = connections, connections.app
        self._loop = asyncio.get_event_loop()
        self._transport: Any = None
        self._flow: Any = None
        self._server: Optional[Tuple[str, int]] = None
        self._client: Optional[Tuple[str, int]] = None
        self._kept = b""                       # what has come and is not read: a part of a head, or what is behind a request
        self._kept_share, self._body_share = Share(self._give_up), Share(self._give_up)
        self._answer_share = Share(lambda: self._transport.abort())            # what the client has not read of a large answer
        self._num_scanned = 0                  # bytes of `_kept` that no head ends in
        self._num_blank = 0
        self._body_left = 0                    # bytes of a body that have not come
        self._chunks: Optional[ChunkedBody] = None
        self._in_body = False
        self._begun, self._num_come = 0.0, 0   # when the request that is half-sent began to come, and its bytes so far
        self._cycle: Any = None                # uvicorn's RequestResponseCycle, once something was asked
        self._is_last = False                  # the connection ends with this answer
        self._has_eof = False                  # the client has said all it wants to
        self._is_closing = False               # what still comes is thrown away
        self._is_beyond = False                # there are too many
        self._has_started = False              # the first bytes of the answer went out ahead of it
        self._timer: Optional[asyncio.TimerHandle] = None          # runs while something is awaited of the client
        self._read_timer: Optional[asyncio.TimerHandle] = None     # runs while the client must read

    # What the event loop tells.

    def connection_made(self, transport: Any) -> None:
        self._transport, self._flow = transport, _Flow(transport)
        self._server, self._client = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self._server, self._client = self._server and self._server[:2], self._client and self._client[:2]
        self._all.open.add(self)
        self._is_beyond = not self._all.make_room()
        if len(self._all.open) > self._all.max_open + self._all.max_open // 8 + 8:
            transport.abort()                  # not even a refusal can be had
            return
        self._all.idle[self] = None
        self._await(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        try:
            if self._kept:
                data = self._kept + data
                self._forget()
            self._read(data)
        except FramingError as error:
            self.end(error.status, str(error))

    def eof_received(self) -> bool:
        """Whether the connection stays open: a client that has said all it wants to may still listen."""
        if self._is_closing or not self._is_answering() or self._in_body:
            return False
        self._has_eof = True
        if not self._cycle.response_started and not self._has_started:
            self._has_started = True           # to one that has gone for good this shows that it has
            self._transport.write(START)
        self._loop.call_later(GONE_SECONDS, self._close_if_gone)
        return True

    def pause_writing(self) -> None:
        self._flow.pause_writing()
        if not self._all.inflight.take(self._answer_share, self._transport.get_write_buffer_size()):
            self._transport.abort()
        self._all.unread[self] = None
        self._read_timer = self._loop.call_later(READ_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        self._all.inflight.give_back(self._answer_share)
        self._stop_read_timer()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._is_closing = True
        self._stop_timer()
        self._stop_read_timer()
        self._forget()
        for share in (self._body_share, self._answer_share):
            self._all.inflight.give_back(share)
        self._all.open.discard(self)
        for kind in (self._all.idle, self._all.half_sent, self._all.lingering):
            kind.pop(self, None)
        if self._cycle:
            self._cycle.disconnected = self._cycle.disconnected or not self._cycle.response_complete
            self._cycle.message_event.set()
        self._flow.resume_writing()

    # What uvicorn's cycle takes for a transport.

    def write(self, data: bytes) -> None:
        if self._has_started:
            self._has_started, data = False, data[len(START):]
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Closes once the request has come whole: what a client still sends to a closed connection costs it the answer."""
        self._is_last = True
        if self._cycle and not self._cycle.response_complete:
            self._transport.close()            # the application failed in the middle of its answer

    # What the server wants.

    def end(self, status: int, message: str) -> None:
        """Refuses what has come, and closes. What is already being answered still is; what waits behind it is not."""
        if self._is_closing:
            return
        if self._is_answering() and (self._cycle.response_started or not self._in_body):
            self._is_last = True
            self._forget()
            return
        self._refuse_half_sent(status, message)
        self._linger()

    def make_room(self) -> None:
        """Closes a connection whose client has not asked anything, or not to the end, or does not take its answer."""
        if self in self._all.half_sent:
            self._refuse_half_sent(503, NO_ROOM)
        self._is_closing = True
        for kind in (self._all.idle, self._all.half_sent, self._all.lingering):
            kind.pop(self, None)
        if self._read_timer:
            self._all.unread.pop(self, None)
            self._transport.abort()
        else:
            self._transport.close()

    def bytes_per_second(self, now: float) -> float:
        """Of the request that is half-sent."""
        return self._num_come / max(now - self._begun, 1)

    def announce_end(self) -> None:
        """Has the answer that is being made say that it is the last."""
        if self._is_answering() and not self._cycle.response_started and not self._kept:
            self._cycle.default_headers = [*self._cycle.default_headers, CLOSE_HEADER]

    def _withdraw_end(self) -> None:
        """Has the answer not say that it is the last, since a request has come behind it."""
        if self._all.is_draining and not self._cycle.response_started:
            self._cycle.default_headers = self._all.headers

    def _refuse_half_sent(self, status: int, message: str) -> None:
        if self._is_answering():
            self._cycle.disconnected, self._cycle.body = True, b""
            self._cycle.message_event.set()
            self._all.inflight.give_back(self._body_share)
            if self._cycle.response_started:
                return
        elif self._in_body:                    # what comes was answered before
            return
        if not self._read_timer:
            self._write_whole(status, [(b"content-type", b"application/json"), CLOSE_HEADER], json.dumps({"error": message}).encode())

    def _give_up(self) -> None:
        self.end(503, "All requests together have more than %d bytes" % self._all.inflight.max_bytes)

    def has_unread(self) -> bool:
        """Whether something has come that the event loop has not read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # Reading.

    def _read(self, data: bytes) -> None:
        """Reads on, as far as one request goes."""
        while data and not self._is_closing:
            if self._in_body:
                data = self._read_body(data)
            elif self._is_answering():
                self._withdraw_end()
                self._keep(data)
                self._flow.is_held = True
                self._flow.pause_reading()
                return
            elif self._is_last:
                self._linger()
                return
            else:
                data = self._read_head(data)

    def _read_head(self, data: bytes) -> bytes:
        while data.startswith(b"\r\n"):
            self._num_blank, self._num_scanned = self._num_blank + 2, 0
            if self._num_blank > MAX_BLANK_BYTES:
                raise FramingError(400, "a request must begin with its request line")
            data = data[2:]
        end = data.find(END_OF_HEAD, max(0, self._num_scanned - 3), MAX_HEAD_BYTES + 4)
        if end < 0:
            self._await_rest_of_head(data)
            return b""
        head = read_head(data[:end])
        rest = data[end + 4:]
        self._num_blank = self._num_scanned = 0
        if len(rest) == head.length and not self._app.has_room() and self._refuse(head):
            return b""
        if self._is_beyond:
            self._all.idle.pop(self, None)     # not this one
            self._all.half_sent.pop(self, None)
            self._is_beyond = not self._all.make_room()
            if self._is_beyond and head.target not in HEALTH_PATHS:
                raise FramingError(503, NO_ROOM)
        self._begin(head, len(rest))
        return rest

    def _await_rest_of_head(self, data: bytes) -> None:
        if len(data) > MAX_HEAD_BYTES:
            raise FramingError(431, "a head must have at most %d bytes" % MAX_HEAD_BYTES)
        if BARE_LINE_FEED.search(data, max(0, self._num_scanned - 1)):
            raise FramingError(400, "lines must end with a carriage return and a line feed")
        if self in self._all.idle:             # the first of it
            self._await(HEAD_SECONDS)
        if self._has_eof:
            self._transport.close()
            return
        self._mark_half_sent(len(data) - self._num_scanned)
        self._num_scanned = len(data)
        self._keep(data)

    def _begin(self, head: Head, num_behind: int) -> None:
        """Has the application answer a request, behind whose head so many bytes have come."""
        self._stop_timer()
        self._is_last = self._is_last or head.is_last
        self._in_body = head.length != 0
        if self._in_body:
            self._mark_half_sent(0)
        else:
            self._mark_whole()
        is_alone = num_behind <= (num_behind if head.length is None else head.length)
        self._body_share.give_up = self._give_up
        self._body_left = head.length or 0
        self._chunks = ChunkedBody() if head.length is None else None
        path, _, query = head.target.partition(b"?")
        text = path.decode("ascii")
        scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": head.version.decode(),
                 "server": self._server, "client": self._client, "scheme": "http", "root_path": "",
                 "method": head.method.decode(), "path": urllib.parse.unquote(text) if "%" in text else text,
                 "raw_path": path, "query_string": query, "headers": head.fields}
        self._cycle = RequestResponseCycle(
            scope=scope, transport=self, flow=self._flow, logger=LOG, access_logger=LOG, access_log=False,
            default_headers=[*self._all.headers, CLOSE_HEADER] if self._all.is_draining and is_alone else self._all.headers,
            message_event=asyncio.Event(), expect_100_continue=head.expects_continue and self._in_body,
            keep_alive=not self._is_last, on_response=self._answered)
        self._cycle.more_body = self._in_body
        if not self._in_body:
            self._cycle.message_event.set()
        task = self._loop.create_task(self._cycle.run_asgi(self._app))
        self._all.tasks.add(task)
        task.add_done_callback(self._all.tasks.discard)

    def _read_body(self, data: bytes) -> bytes:
        """Hands on what `data` holds of the body; returns what stands behind it."""
        if self._chunks:
            body, rest = self._chunks.feed(data)
            is_complete = self._chunks.is_complete
        else:
            body, rest = data[:self._body_left], data[self._body_left:]
            self._body_left -= len(body)
            is_complete = not self._body_left
        cycle = self._cycle
        self._mark_half_sent(len(data) - len(rest))
        if not cycle.response_complete:
            if is_complete:
                self._body_share.give_up = None
            if not self._all.inflight.take(self._body_share, len(body)):
                self._give_up()
                return b""
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()
            cycle.more_body = not is_complete
            cycle.message_event.set()
        if is_complete:
            self._in_body = False
            self._mark_whole()
            if cycle.response_complete:
                self._await_next()
            elif rest:
                self._withdraw_end()
        return rest

    def _mark_half_sent(self, num_bytes: int) -> None:
        """So many bytes more have come of a request."""
        self._all.idle.pop(self, None)
        if self not in self._all.half_sent:
            self._all.half_sent[self] = None
            self._begun, self._num_come = self._loop.time(), 0
        self._num_come += num_bytes

    def _mark_whole(self) -> None:
        self._all.idle.pop(self, None)
        self._all.half_sent.pop(self, None)

    def _keep(self, data: bytes) -> None:
        self._kept = data
        if not self._all.inflight.take(self._kept_share, len(data)):
            self._give_up()

    def _forget(self) -> None:
        if self._kept:
            self._kept = b""
            self._all.inflight.give_back(self._kept_share)

    # Answering.

    def _is_answering(self) -> bool:
        return self._cycle is not None and not self._cycle.response_complete

    def _answered(self) -> None:
        """The answer is written."""
        self._all.inflight.give_back(self._body_share)
        if self.is_closing():
            return
        if self._in_body:                      # refused before its body had come: the client may not send for ever
            self._flow.resume_reading()
            self._await(HEAD_SECONDS)
        else:
            self._await_next()

    def _await_next(self) -> None:
        """Goes on with the next request on this connection, or ends it."""
        kept, self._flow.is_held = self._kept, False
        self._forget()
        if self._is_last or (self._has_eof and not kept):
            if kept or self._flow.read_paused:
                self._linger()
            else:
                self._transport.close()
            return
        self._all.idle[self] = None
        self._await(IDLE_SECONDS)
        if kept:
            self._loop.call_soon(self._read_on, kept)
        else:
            self._flow.resume_reading()

    def _read_on(self, kept: bytes) -> None:
        self._flow.resume_reading()            # `data_received` comes later than this
        self.data_received(kept)

    def _refuse(self, head: Head) -> bool:
        """Whether the request was answered by a refusal."""
        if head.method != b"POST" or self._is_last or head.is_last or self._all.is_draining or self._read_timer:
            return False
        request_id = next((value.decode("latin-1") for name, value in head.fields if name == REQUEST_ID_HEADER), None)
        refusal = self._app.refuse(head.target.decode(), request_id, self._client)
        if not refusal:
            return False
        self._write_whole(*refusal)
        self._mark_whole()
        self._all.idle[self] = None
        self._await(IDLE_SECONDS)
        return True

    def _write_whole(self, status: int, headers: List[Tuple[bytes, bytes]], body: bytes) -> None:
        lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % header for header in (*self._all.headers, *headers)]
        self.write(b"\r\n".join(lines + [b"content-length: %d" % len(body), b"", body]))

    # Ending.

    def _linger(self) -> None:
        """Closes as soon as the client does, or soon: what is sent to a closed connection would take the answer with it."""
        self._is_closing, self._flow.is_held = True, False
        self._forget()
        self._mark_whole()
        if not self._transport.is_closing():
            self._all.lingering[self] = None
            self._transport.write_eof()
            self._flow.resume_reading()
            self._await(LINGER_SECONDS)

    def _close_if_gone(self) -> None:
        if self._is_answering() and not self._transport.is_closing():
            poll = select.poll()
            poll.register(self._transport.get_extra_info("socket").fileno(), 0)
            if poll.poll(0):                   # an error, or both ways closed
                self._transport.abort()
            else:
                self._loop.call_later(1, self._close_if_gone)

    def _await(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._transport.close)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _stop_read_timer(self) -> None:
        self._all.unread.pop(self, None)
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None
