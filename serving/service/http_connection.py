"""An HTTP connection: reads one request at a time, and closes when its client sends too slowly, too much or
nothing, or does not read its answer.

`http_framing` says where requests begin and end, `http_app` answers them; between the two is uvicorn's
request-response cycle.
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

from serving.service.descriptors import OF_REST
from serving.service.http_framing import ChunkedBody, FramingError, Head, find_head, read_head
from serving.service.inflight import Inflight, Share

HEAD_SECONDS = 10               # for a head, and for the rest of a body after its answer
IDLE_SECONDS = 75               # between two requests
READ_SECONDS = 30               # for a client whose buffers are full
PIPELINED_AT_ONCE = 16          # pipelined requests per round of the event loop
NUM_COMPARED = 32               # the slowest of so many oldest half-sent requests gives way to others
LINGER_SECONDS = 2              # how long a client may continue sending after its last answer
GONE_SECONDS = 0.05             # until a closed connection is told apart from a half-closed one
START = b"HTTP/1.1 "            # of each answer
CLOSE_HEADER = (b"connection", b"close")
REQUEST_ID_HEADER = b"x-request-id"
HEALTH_PATHS = (b"/healthz", b"/readyz")       # monitors would kill a process that does not answer these
NO_ROOM = "The server has too many connections"
LOG = logging.getLogger("uvicorn.error")


class Connections:
    """The state shared by the connections of one server: settings, and which may be closed to make room.

    Attributes:
      open: all of them.
      silent: those that never sent anything, the oldest one first.
      idle: those whose clients have their answers, the longest-idle one first.
      half_sent: those with a part of a request, the oldest request first.
      lingering: those that were asked to close.
      unread: those whose clients do not read their answers.
      pipelined: those with a request waiting after an answered one, in the order of their turns.
      headers: of each answer.
    """

    def __init__(self, app: Any, inflight: Inflight, max_open: int) -> None:
        self.app, self.inflight, self.max_open = app, inflight, max_open
        self.open: Set["HttpConnection"] = set()
        self.silent: Dict["HttpConnection", None] = {}
        self.idle: Dict["HttpConnection", None] = {}
        self.half_sent: Dict["HttpConnection", None] = {}
        self.lingering: Dict["HttpConnection", None] = {}
        self.unread: Dict["HttpConnection", None] = {}
        self.pipelined: Dict["HttpConnection", None] = {}
        self.tasks: Set["asyncio.Task[None]"] = set()
        self.headers: List[Tuple[bytes, bytes]] = []
        self.is_draining = False

    def mark_idle(self, connection: "HttpConnection") -> None:
        self.mark_busy(connection)
        self.idle[connection] = None           # as the last

    def mark_silent(self, connection: "HttpConnection") -> None:
        self.silent[connection] = None         # as the last

    def mark_half_sent(self, connection: "HttpConnection") -> None:
        self.mark_busy(connection)
        self.half_sent[connection] = None      # as the last

    def mark_busy(self, connection: "HttpConnection") -> None:
        """Its client waits for an answer, or it is closed: it does not make room for others."""
        for connections in (self.silent, self.idle, self.half_sent, self.lingering, self.pipelined):
            connections.pop(connection, None)

    def make_room(self) -> bool:
        """Whether there is room for one more connection; may close another one to make room."""
        if len(self.open) <= self.max_open:
            return True
        chosen = self._least_missed()
        if chosen:
            chosen.give_way()
        return chosen is not None

    def _least_missed(self) -> Optional["HttpConnection"]:
        chosen = (next(iter(self.lingering), None)
                  or next((each for each in itertools.chain(self.silent, self.idle) if not each.has_unread()),
                          None))
        if not chosen and self.half_sent:
            # By speed: a client that sends a byte now and then is not silent, but one that sends a large body
            # quickly should be able to finish.
            now = asyncio.get_event_loop().time()
            chosen = min(itertools.islice(self.half_sent, NUM_COMPARED),
                         key=lambda each: each.bytes_per_second(now))
        return chosen or next(iter(self.unread), None) or next(iter(self.pipelined), None)

    def await_turn(self, connection: "HttpConnection") -> None:
        """Lets a connection continue with its pipelined requests, a few per round of the event loop: other
        clients must not wait for a thousand that pipeline."""
        self.mark_busy(connection)
        if not self.pipelined:
            asyncio.get_event_loop().call_soon(self._take_turns)
        self.pipelined[connection] = None      # as the last

    def _take_turns(self) -> None:
        for connection in list(itertools.islice(self.pipelined, PIPELINED_AT_ONCE)):
            connection.read_on()
        if self.pipelined:
            asyncio.get_event_loop().call_soon(self._take_turns)

    def drain(self) -> None:
        """From now on every answer is the last of its connection, unless another request is waiting there."""
        self.is_draining = True
        for connection in self.open:
            connection.announce_end()

    def close_idle(self) -> None:
        """Closes those whose clients wait for nothing."""
        for connection in [*self.silent, *self.idle]:
            if not connection.has_unread():
                connection.give_way()


class _Flow(FlowControl):
    """uvicorn's resumes reading whenever the application requests a body; this one does not while a further
    request waits."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class HttpConnection(asyncio.Protocol):
    """One connection.

        idle ──first byte──► reading a head ──its end──► answering ──► answered ──► idle, for the next request
          │                        │                         │             │
          └────────────────────────┴─────────┬───────────────┴─────────────┘
                                             ▼
                                         lingering ──► closed

    state            known by                              closes after
    idle             in `Connections.idle`                 IDLE_SECONDS
                     or, before the first request,         HEAD_SECONDS
                     `Connections.silent`
    reading a head   `_kept` has its beginning             HEAD_SECONDS
    answering        `_is_answering()`; `_in_body` while   the time limit of `http_app`; READ_SECONDS
                                                           while the
                     the body still comes                  client does not read
    answered         `_in_body`: refused before all of     HEAD_SECONDS
                     the body came; what comes is dropped
    awaiting a turn  in `Connections.pipelined`            no time: turns come quickly
    lingering        `_is_closing`: what comes is dropped  LINGER_SECONDS

    While it is answering, and until its turn comes, a further request waits in `_kept`, and nothing more
    is read.

    Under overload, a complete request is refused here, without a task: a task, a scope and two messages
    would cost twice as much, just when the machine is busiest.
    """

    def __init__(self, connections: Connections) -> None:
        self._all, self._app = connections, connections.app
        self._loop = asyncio.get_event_loop()
        self._transport: Any = None
        self._flow: Any = None
        self._server: Optional[Tuple[str, int]] = None
        self._client: Optional[Tuple[str, int]] = None
        self._kept = b""  # arrived but not parsed: a part of a head, or what follows a request
        self._kept_share, self._body_share = Share(self._give_up), Share(self._give_up)
        self._answer_share = Share(lambda: self._transport.abort())  # the unsent part of a large answer
        self._num_scanned = 0                  # bytes of `_kept` in which no head ends
        self._body_left = 0                    # bytes of a body still to come
        self._chunks: Optional[ChunkedBody] = None
        self._in_body = False
        # when the half-sent request began to arrive, and its bytes so far
        self._begun, self._num_come = 0.0, 0
        self._cycle: Any = None                # uvicorn's RequestResponseCycle, from the first request on
        self._is_last = False                  # the connection ends with this answer
        self._has_eof = False                  # the client has closed its sending side
        self._is_closing = False               # further input is dropped
        self._is_surplus = False               # opened beyond the limit
        self._has_started = False              # START was sent ahead of the answer
        self._timer: Optional[asyncio.TimerHandle] = None  # runs while the server waits for the client
        self._read_timer: Optional[asyncio.TimerHandle] = None     # runs while the client must read

    # Called by the event loop.

    def connection_made(self, transport: Any) -> None:
        self._transport, self._flow = transport, _Flow(transport)
        self._server, self._client = _address(transport, "sockname"), _address(transport, "peername")
        self._all.open.add(self)
        self._is_surplus = not self._all.make_room()
        if len(self._all.open) > OF_REST * self._all.max_open + 8:
            # Too many even to send a refusal. Not fewer: those that give way close in the next round of the
            # event loop, and in this one it may accept hundreds that came while it was held up.
            transport.abort()
            return
        self._all.mark_silent(self)
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
        """Whether the connection stays open: a client that has closed its sending side may still want
        its answer."""
        waits_for_answer = self._is_answering() and not self._in_body
        if self._is_closing or not waits_for_answer:
            return False
        self._has_eof = True
        if not self._cycle.response_started and not self._has_started:
            self._has_started = True  # writing to a client that has closed for good shows that it has
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
        self._all.mark_busy(self)
        if self._cycle:
            if not self._cycle.response_complete:
                self._cycle.disconnected = True
            self._cycle.message_event.set()
        self._flow.resume_writing()

    # Called by uvicorn's cycle, for which this is its transport.

    def write(self, data: bytes) -> None:
        if self._has_started:
            self._has_started, data = False, data[len(START):]
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        """Closes once the request is complete: a client that still sends to a closed connection loses its
        answer."""
        self._is_last = True
        if self._is_answering():
            self._transport.close()            # the application failed in the middle of its answer

    # Called by the server.

    def end(self, status: int, message: str) -> None:
        """Refuses the incoming request, and closes. A request being answered still is; one waiting after it
        is not."""
        if self._is_closing:
            return
        if self._is_answering() and (self._cycle.response_started
                                     or not self._in_body):       # too late to refuse it
            self._is_last = True
            self._forget()
            return
        self._refuse_half_sent(status, message)
        self._linger()

    def give_way(self) -> None:
        """Closes a connection that is idle, half-sent, lingering or waits for its turn, or whose client does
        not read its answer."""
        if self in self._all.half_sent:
            self._refuse_half_sent(503, NO_ROOM)
        self._is_closing = True
        self._all.mark_busy(self)
        if self._read_timer:
            self._all.unread.pop(self, None)
            self._transport.abort()
        else:
            self._transport.close()

    def bytes_per_second(self, now: float) -> float:
        """Of the half-sent request."""
        return self._num_come / max(now - self._begun, 1)

    def announce_end(self) -> None:
        """Makes the pending answer announce that it is the last."""
        if self._is_answering() and not self._cycle.response_started and not self._kept:
            self._cycle.default_headers = [*self._cycle.default_headers, CLOSE_HEADER]

    def _withdraw_end(self) -> None:
        """Makes the pending answer not announce that it is the last, since a further request has arrived."""
        if self._all.is_draining and not self._cycle.response_started:
            self._cycle.default_headers = self._all.headers

    def _refuse_half_sent(self, status: int, message: str) -> None:
        if self._is_answering():
            self._cycle.disconnected, self._cycle.body = True, b""
            self._cycle.message_event.set()
            self._all.inflight.give_back(self._body_share)
            if self._cycle.response_started:
                return
        elif self._in_body:                    # the request was already answered
            return
        reads_answers = not self._read_timer
        if reads_answers:
            headers = [(b"content-type", b"application/json"), CLOSE_HEADER]
            self._write_whole(status, headers, json.dumps({"error": message}).encode())

    def _give_up(self) -> None:
        self.end(503, "Requests in flight exceed %d bytes" % self._all.inflight.max_bytes)

    def has_unread(self) -> bool:
        """Whether bytes have arrived that the event loop has not read yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # Reading.

    def _read(self, data: bytes) -> None:
        """Parses until a further request has to wait."""
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
        found = find_head(data, self._num_scanned)
        if not found:
            self._await_rest_of_head(data)
            return b""
        begin, end = found
        head = read_head(data[begin:end])
        rest = data[end + 4:]
        self._num_scanned = 0
        is_whole = len(rest) == head.length    # and nothing follows it
        if is_whole and self._app.is_overloaded() and self._refuse_at_once(head):
            return b""
        if self._is_surplus:
            self._all.mark_busy(self)          # it cannot give way to itself
            self._is_surplus = not self._all.make_room()
            if self._is_surplus and head.target not in HEALTH_PATHS:
                raise FramingError(503, NO_ROOM)
        self._begin(head, len(rest))
        return rest

    def _await_rest_of_head(self, data: bytes) -> None:
        if self in self._all.silent or self in self._all.idle:     # these are its first bytes
            self._await(HEAD_SECONDS)
        if self._has_eof:
            self._transport.close()
            return
        self._mark_half_sent(len(data) - self._num_scanned)
        self._num_scanned = len(data)
        self._keep(data)

    def _begin(self, head: Head, num_behind: int) -> None:
        """Passes a request to the application; so many bytes have arrived after its head."""
        self._stop_timer()
        self._is_last = self._is_last or head.is_last
        self._in_body = head.length != 0
        if self._in_body:
            self._mark_half_sent(0)
        else:
            self._all.mark_busy(self)
        is_alone = num_behind <= (num_behind if head.length is None else head.length)
        self._body_share.give_up = self._give_up
        self._body_left = head.length or 0
        self._chunks = ChunkedBody() if head.length is None else None
        says_last = self._all.is_draining and is_alone
        self._cycle = RequestResponseCycle(
            scope=self._scope(head), transport=self, flow=self._flow, logger=LOG, access_logger=LOG,
            access_log=False,
            default_headers=[*self._all.headers, CLOSE_HEADER] if says_last else self._all.headers,
            message_event=asyncio.Event(), expect_100_continue=head.expects_continue and self._in_body,
            keep_alive=not self._is_last, on_response=self._answered)
        self._cycle.more_body = self._in_body
        if not self._in_body:
            self._cycle.message_event.set()
        task = self._loop.create_task(self._cycle.run_asgi(self._app))
        self._all.tasks.add(task)
        task.add_done_callback(self._all.tasks.discard)

    def _scope(self, head: Head) -> Dict[str, Any]:
        """The ASGI scope of a request."""
        path, _, query = head.target.partition(b"?")
        text = path.decode("ascii")
        return {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
                "http_version": head.version.decode(),
                "server": self._server, "client": self._client, "scheme": "http", "root_path": "",
                "method": head.method.decode(), "path": urllib.parse.unquote(text) if "%" in text else text,
                "raw_path": path, "query_string": query, "headers": head.fields}

    def _read_body(self, data: bytes) -> bytes:
        """Passes on the part of the body in `data`; returns what follows the body."""
        if self._chunks:
            body, rest = self._chunks.feed(data)
            is_complete = self._chunks.is_complete
        else:
            body, rest = data[:self._body_left], data[self._body_left:]
            self._body_left -= len(body)
            is_complete = not self._body_left
        self._mark_half_sent(len(data) - len(rest))
        if self._is_answering() and not self._pass_on(body, is_complete):
            return b""
        if is_complete:
            self._in_body = False
            self._all.mark_busy(self)
            if not self._is_answering():       # it was refused before its body had come
                self._await_next()
            elif rest:
                self._withdraw_end()
        return rest

    def _mark_half_sent(self, num_bytes: int) -> None:
        """Counts so many more bytes of a request."""
        if self not in self._all.half_sent:
            self._all.mark_half_sent(self)
            self._begun, self._num_come = self._loop.time(), 0
        self._num_come += num_bytes

    def _pass_on(self, body: bytes, is_complete: bool) -> bool:
        """Gives the application a part of the body; False when the budget of bytes has no room for it."""
        if is_complete:
            self._body_share.give_up = None
        if not self._all.inflight.take(self._body_share, len(body)):
            self._give_up()
            return False
        self._cycle.body += body
        if len(self._cycle.body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._cycle.more_body = not is_complete
        self._cycle.message_event.set()
        return True

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
        """The answer is written; called by uvicorn's cycle."""
        self._all.inflight.give_back(self._body_share)
        if self.is_closing():
            return
        if self._in_body:  # refused before its body had come, which is dropped, but not for ever
            self._flow.resume_reading()
            self._await(HEAD_SECONDS)
        else:
            self._await_next()

    def _await_next(self) -> None:
        """Continues with the next request of this connection, or closes it."""
        if self._is_last or (self._has_eof and not self._kept):
            may_have_unread = self._kept or self._flow.read_paused
            if may_have_unread:
                self._linger()
            else:
                self._transport.close()
            return
        if self._kept:
            self._all.await_turn(self)
        else:
            self._become_idle()
            self._resume_reading()

    def _become_idle(self) -> None:
        self._all.mark_idle(self)
        self._await(IDLE_SECONDS)

    def read_on(self) -> None:
        """Continues with the request that waits after the answered one."""
        self._become_idle()
        self._resume_reading()                 # the event loop calls `data_received` later than this does
        self.data_received(b"")

    def _resume_reading(self) -> None:
        self._flow.is_held = False
        self._flow.resume_reading()

    def _refuse_at_once(self, head: Head) -> bool:
        """Whether a complete request was answered here, with the application's refusal under overload."""
        is_last = self._is_last or head.is_last or self._all.is_draining
        if is_last or self._read_timer:  # those need the full path: another header, or waiting for the client
            return False
        request_id = next(
            (value.decode("latin-1") for name, value in head.fields if name == REQUEST_ID_HEADER), None)
        refusal = self._app.refuse_if_full(head.method.decode(), head.target.decode(), request_id,
                                           self._client)
        if not refusal:
            return False
        self._write_whole(*refusal)
        self._become_idle()
        return True

    def _write_whole(self, status: int, headers: List[Tuple[bytes, bytes]], body: bytes) -> None:
        lines = [b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % header for header in (*self._all.headers, *headers)]
        self.write(b"\r\n".join(lines + [b"content-length: %d" % len(body), b"", body]))

    # Ending.

    def _linger(self) -> None:
        """Closes when the client does, or soon: a client that sends to a closed connection loses
        its answer."""
        self._is_closing, self._flow.is_held = True, False
        self._forget()
        self._all.mark_busy(self)
        if not self._transport.is_closing():
            self._all.lingering[self] = None
            self._transport.write_eof()
            self._flow.resume_reading()
            self._await(LINGER_SECONDS)

    def _close_if_gone(self) -> None:
        if self._is_answering() and not self._transport.is_closing():
            poll = select.poll()
            poll.register(self._transport.get_extra_info("socket").fileno(), 0)
            if poll.poll(0):                   # an error, or both directions are closed
                self._transport.abort()
            else:
                self._loop.call_later(1, self._close_if_gone)

    def _await(self, seconds: float) -> None:
        """Closes after `seconds` unless the timer is stopped: the client's turn."""
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


def _address(transport: Any, name: str) -> Optional[Tuple[str, int]]:
    """Host and port, without IPv6's other fields."""
    found = transport.get_extra_info(name)
    return found[:2] if found else None
