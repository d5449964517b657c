"""A relay between the network and gRPC's own server, which bounds the resources that clients may hold.

    client ──TCP──► End ─► ClientFrames ─► Connection ─► End ──Unix socket──► gRPC's server
                                               │
                                             Relay: all connections, and the bytes they hold

From Python, gRPC 1.62 can limit neither its connections nor the bytes of requests that it has not delivered
yet. So this event loop accepts the connections and forwards each over a Unix socket that no other process can
reach. Of HTTP/2 it reads the nine-byte header of each frame (RFC 9113, 4.1), which says how much of whose
request arrives, and what has been answered. Header blocks are forwarded in one piece, with two headers
appended: the client's address, which gRPC would no longer know, and the number of the call, with which the
handlers report that they are done: from then on the client is the one being waited for.
"""
import asyncio
import os
import re
import secrets
import socket
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from serving.service.header_blocks import HeaderTable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTP1_REQUEST = re.compile(rb"[A-Z]+ /[^ ]* HTTP/1")
_HTTP1_BODY = b'{"error": "this port speaks gRPC; REST has a port of its own"}'
HTTP1_ANSWER = (b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(_HTTP1_BODY), _HTTP1_BODY))
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
NO_ERROR, ENHANCE_YOUR_CALM = 0, 11
LAST_STREAM = 2 ** 31 - 1
FRAME_HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384                        # what gRPC's server tells its clients
MAX_BLOCK_BYTES = MAX_FRAME_BYTES - 256        # of a call's headers; the address follows them
PREFACE_SECONDS = 10
READ_SECONDS = 30  # for a client whose buffers are full, or that leaves an answer unread
UNREAD_SECONDS = 2  # after which a client that leaves an answer unread is evicted first
END_SECONDS = 5  # at shutdown, answers that wait for their clients longer are abandoned
CALL_BYTES = 65536  # counted per call until its answer is read, besides its request or answer
COMING, WHOLE, ANSWERED = range(3)             # states of a call
GOAWAY_SECONDS = 1  # time for calls that a client sends before it reads GOAWAY
POLL_SECONDS = 0.02                            # between two checks whether all calls are answered
BURST, FRAMES_A_SECOND = 2000, 1000            # small frames of a connection; further ones wait
MAX_DEBT = 2 * BURST  # small frames beyond those, in one read: no normal client sends so many
SMALL_BYTES = 256                              # of data in a small frame
ANSWER_FRAMES = 8  # small frames that belong to a call: acknowledgements, windows, pings


class RelayLimits(NamedTuple):
    max_connections: int
    max_bytes: int  # of unanswered requests, of all connections together


class Relay:
    """Accepts connections on `listening` and forwards them to the Unix socket at `path`; belongs to one event
    loop.

    Attributes:
      client_header: name of the header that holds a client's address. It is random, so that no client can
        send it.
      call_header: the same for the number of a call.
      held: bytes that calls of all connections take until their answers are read.
    """

    def __init__(self, listening: socket.socket, path: str, limits: RelayLimits) -> None:
        drawn = secrets.token_hex(8)
        self.client_header, self.call_header = "x-client-" + drawn, "x-call-" + drawn
        self.path, self.draining = path, False
        self.held = 0
        self._listening, self._limits = listening, limits
        self._connections: Set["Connection"] = set()
        self._by_number: Dict[int, "Connection"] = {}
        self._last_number = 0
        self._accepting: Optional["asyncio.Future[None]"] = None
        self._arrival: Optional["asyncio.Future[None]"] = None         # is awaited while nobody connects

    def start(self) -> None:
        self._listening.setblocking(False)
        self._accepting = asyncio.ensure_future(self._accept())

    async def drain(self, seconds: float) -> None:
        """Stops accepting, sends clients GOAWAY, and waits until all pending calls are answered, at most
        so long."""
        loop = asyncio.get_event_loop()
        end = loop.time() + seconds
        self.draining = True
        if self._accepting:
            self._note_arrival()               # it accepts what has arrived, and ends
            await asyncio.wait({self._accepting}, timeout=seconds)
            self._accepting.cancel()
        self._listening.close()
        for connection in [*self._connections]:
            connection.say_goodbye()
        while self._connections and loop.time() < end:
            await asyncio.sleep(POLL_SECONDS)

    def close(self) -> None:
        for connection in [*self._connections]:
            connection.close()

    def add(self, connection: "Connection") -> None:
        """When there are too many, closes the least useful one without pending calls or, if there is none,
        the new one."""
        if len(self._connections) >= self._limits.max_connections:
            idle = [each for each in self._connections if each.leaves_unread or not each.is_waiting]
            if not idle:
                connection.abort()
                return
            least_useful = min(idle, key=lambda each: (not each.leaves_unread, each.was_answered,
                                                       each.last_used))
            self.drop(least_useful, NO_ERROR)
        self._connections.add(connection)
        self._last_number += 1
        connection.number = self._last_number
        self._by_number[connection.number] = connection

    def drop(self, connection: "Connection", error: int) -> None:
        """Closes a connection at once and releases the bytes it holds."""
        self.remove(connection)
        connection.close(error)

    def remove(self, connection: "Connection") -> None:
        self._connections.discard(connection)
        self._by_number.pop(connection.number, None)
        connection.release_all()

    def hold(self, num_bytes: int) -> None:
        """Adds bytes that arrived, or were released if negative. When there are too many, the connection that
        holds most is closed, the newest if several hold the same.
        """
        self.held += num_bytes
        while self.held > self._limits.max_bytes:
            greediest = max(self._connections, key=lambda each: (each.held, each.number))
            self.drop(greediest, ENHANCE_YOUR_CALM)

    def grew(self, call: str, num_bytes: int) -> None:
        """A call's request takes so many bytes more than arrived. `call` is the value of its header."""
        connection, stream = self._find(call)
        if connection:
            connection.grew(stream, num_bytes)

    def answered(self, call: str, num_bytes: int, ends: bool = True) -> None:
        """A call's handler is done, and its answer of so many bytes waits for the client; unless `ends`,
        more may follow."""
        connection, stream = self._find(call)
        if connection:
            connection.answered(stream, num_bytes, ends)

    def _find(self, call: str) -> Tuple[Optional["Connection"], int]:
        number, _, stream = call.partition(".")
        return (self._by_number.get(int(number)), int(stream)) if stream else (None, 0)

    async def _accept(self) -> None:
        """Until draining; then what has already arrived, since closing the socket would reset it, with the calls
        that it has sent."""
        loop: Any = asyncio.get_event_loop()
        while True:                 # one by one, so that a descriptor is released before the next is taken
            try:
                accepted, _ = self._listening.accept()
            except OSError as error:
                if self.draining:
                    self._listening.close()    # before another arrives
                    return
                if isinstance(error, BlockingIOError):
                    await self._until_arrival()
                else:               # no descriptor is free, or the client has disconnected
                    await asyncio.sleep(0.05)
                continue
            accepted.setblocking(False)
            try:
                await loop.connect_accepted_socket(lambda: Connection(self).client_end(), accepted)
            except OSError:
                accepted.close()
            await asyncio.sleep(0)

    async def _until_arrival(self) -> None:
        """Returns when somebody connects, or the relay drains."""
        loop = asyncio.get_event_loop()
        self._arrival = loop.create_future()
        loop.add_reader(self._listening.fileno(), self._note_arrival)
        try:
            await self._arrival
        finally:
            loop.remove_reader(self._listening.fileno())

    def _note_arrival(self) -> None:
        if self._arrival and not self._arrival.done():
            self._arrival.set_result(None)


class _Call:
    """A call under way: the bytes it holds, and its state.

        COMING ──its request has come whole──► WHOLE ──its handler is done──► ANSWERED ──the client has its answer──► over
    """

    __slots__ = ("held", "state")

    def __init__(self) -> None:
        self.held, self.state = 0, COMING


class Connection:
    """A client's connection, and the one to gRPC's server to which it is forwarded.

        waiting for the preface ──► connecting ──► relaying ──say_goodbye──► draining ──► over
          PREFACE_SECONDS            to the Unix    until either side         its calls
                                     socket         goes, or `drop`           are answered

    Reading from the client pauses while any of these is in `_stalls`: "connecting", "server" (its buffers are
    full), "calm" (the client has sent too many small frames, and must wait). "Over" may follow each state.

    Attributes:
      number: its number among all connections.
      held: bytes of its unanswered requests and unread answers.
      num_waiting: its unanswered calls whose requests are complete.
      was_answered: whether any of its calls was answered.
      last_used: when it was accepted, or one of its calls was last answered.
    """

    def __init__(self, relay: Relay) -> None:
        self.number = self.held = self.num_waiting = 0
        self.was_answered = False
        self._loop = asyncio.get_event_loop()
        self.last_used = self._loop.time()
        self._relay = relay
        self._client: Any = None               # transports
        self._server: Any = None
        self._calls: Dict[int, _Call] = {}     # by stream
        # by stream, the oldest first: since when an answer waits for the client
        self._unread: Dict[int, float] = {}
        self._is_timed = False                 # whether a check of the oldest is scheduled
        self._last_stream = 0
        self._from_client = ClientFrames(self._frame_of_client, self._block_of_client)
        self._from_server = ServerFrames(self._frame_of_server)
        self._goodbye = b""                    # a GOAWAY that waits for the end of a frame, the first of all
        self._was_greeted = False              # by the server's first frame, which must come before any other
        self._stalls: Set[str] = set()         # why the client is not read
        # small frames allowed; when it was last increased
        self._credit, self._credit_time = float(BURST), self.last_used
        self._timer: Any = None
        self._is_over = False

    def client_end(self) -> "End":
        return End(self.client_came, self.client_sent, self.client_full, self.client_reads, self.lost)

    def server_end(self) -> "End":
        return End(self.server_came, self.server_sent, self.server_full, self.server_reads, self.lost)

    def client_came(self, transport: Any) -> None:
        self._client = transport
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        name = "ipv6:[%s]:%d" % (host, port) if ":" in host else "ipv4:%s:%d" % (host, port)
        self._timer = self._loop.call_later(PREFACE_SECONDS, self.abort)
        self._relay.add(self)
        address = literal_header(self._relay.client_header, name)
        self._from_client.suffix = lambda stream: address + literal_header(
            self._relay.call_header, "%d.%d" % (self.number, stream))

    def client_sent(self, data: bytes) -> None:
        try:
            passed = self._from_client.feed(data)
        except ValueError:                     # not HTTP/2 as gRPC clients speak it
            if not self._server and HTTP1_REQUEST.match(data):
                self._client.write(HTTP1_ANSWER)
            self._relay.drop(self, NO_ERROR)
            return
        if passed and not self._is_over:
            if self._server:
                self._server.write(passed)
            else:
                self._timer.cancel()
                self._stall("connecting")
                asyncio.ensure_future(self._connect(passed))

    def server_sent(self, data: bytes) -> None:
        passed = self._from_server.feed(data)
        if not self._is_over:
            self._client.write(passed)
            self._was_greeted = True
            self._flush_goodbye()

    def say_goodbye(self) -> None:
        """Tells the client to open no more calls on this connection; closes when its calls are answered."""
        if self._server is None:               # its first call may not have been read yet: `_connect` says it
            self._loop.call_later(GOAWAY_SECONDS, self._abort_if_silent)
            return
        self._goodbye = goaway(LAST_STREAM, NO_ERROR)
        self._flush_goodbye()
        self._loop.call_later(GOAWAY_SECONDS, self._end_when_answered)

    def _abort_if_silent(self) -> None:
        if self._server is None:
            self.abort()

    def _end_when_answered(self) -> None:
        if self._is_over:
            return
        late = self._loop.time() - END_SECONDS
        nobody_waits = all(self._unread.get(stream, late + 1) < late for stream in self._calls)
        if nobody_waits and (self._calls or self._from_server.at_boundary):
            self._relay.drop(self, NO_ERROR)
        else:
            self._loop.call_later(POLL_SECONDS, self._end_when_answered)

    def client_full(self) -> None:
        """The client does not read its answers."""
        if self._server:
            self._server.pause_reading()
        self._timer = self._loop.call_later(READ_SECONDS, self.abort)

    def client_reads(self) -> None:
        self._timer.cancel()
        if self._server and not self._is_over:
            self._server.resume_reading()

    @property
    def is_waiting(self) -> bool:
        """Whether one of its calls waits for its answer, or has just received it."""
        return bool(self.num_waiting or self._unread)

    @property
    def leaves_unread(self) -> bool:
        """Whether an answer has waited for the client longer than it takes to read one."""
        return bool(self._unread) and self._loop.time() - next(iter(self._unread.values())) > UNREAD_SECONDS

    def grew(self, stream: int, num_bytes: int) -> None:
        self._hold(stream, num_bytes, False)

    def answered(self, stream: int, num_bytes: int, ends: bool) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        if call.state == WHOLE:
            self.num_waiting -= 1
        call.state = ANSWERED
        if ends:
            self._unread[stream] = self._loop.time()
            if not self._is_timed:
                self._time(READ_SECONDS)
        else:                                  # the state may stay the same for days
            self.was_answered = True
        self._hold(stream, num_bytes + CALL_BYTES - call.held, False)

    def _time(self, seconds: float) -> None:
        self._is_timed = True
        self._loop.call_later(seconds, self._end_if_unread)

    def _end_if_unread(self) -> None:
        """Closes a client that does not read: the age of the oldest answer counts, since a window that is
        opened byte by byte is no reason to wait longer."""
        self._is_timed = False
        if self._unread and not self._is_over:
            left = next(iter(self._unread.values())) + READ_SECONDS - self._loop.time()
            if left > 0:
                self._time(left)
            else:
                self._relay.drop(self, ENHANCE_YOUR_CALM)

    def server_full(self) -> None:
        self._stall("server")

    def server_reads(self) -> None:
        self._go_on("server")

    def close(self, error: int = NO_ERROR) -> None:
        """Closes both sides, and tells the client why if it is between two frames."""
        is_relaying = self._server and self._client and not self._is_over
        if is_relaying and self._from_server.at_boundary:
            self._client.write(goaway(self._last_stream, error))
        self._over(self._client and self._client.close)
        self._loop.call_later(1, self.abort)   # a client that does not read would keep its descriptor

    def abort(self) -> None:
        self._over(None)
        if self._client:
            self._client.abort()

    def lost(self) -> None:
        """One side has disconnected."""
        if not self._is_over:
            self._loop.call_later(READ_SECONDS, self.abort)
        self._over(self._client and self._client.close)

    def release_all(self) -> None:
        for stream in [*self._calls]:
            self._release(stream)

    def _over(self, end_client: Optional[Callable[[], None]]) -> None:
        if not self._is_over:
            self._is_over = True
            self._timer.cancel()
            self._relay.remove(self)
            if self._server:
                self._server.abort()
        if end_client:
            end_client()

    async def _connect(self, first: bytes) -> None:
        try:
            await self._loop.create_unix_connection(self.server_end, self._relay.path)
        except OSError:
            self.abort()
            return
        if self._is_over:
            self._server.abort()
        else:
            self._server.write(first)
            self._go_on("connecting")
            if self._relay.draining:
                self.say_goodbye()

    def server_came(self, transport: Any) -> None:
        self._server = transport

    def _block_of_client(self, stream: int, num_bytes: int, is_whole: bool) -> None:
        self._spend()
        opens_call = stream > self._last_stream
        if opens_call and not self._is_over:   # an earlier frame of the same read may have ended it
            self._last_stream = stream
            self._calls[stream] = _Call()
            num_bytes += CALL_BYTES
        self._hold(stream, num_bytes, is_whole)

    def _frame_of_client(self, kind: int, flags: int, stream: int, num_bytes: int) -> None:
        if kind == DATA and stream in self._calls:
            if num_bytes < SMALL_BYTES:
                self._spend()
            self._hold(stream, num_bytes, bool(flags & END_STREAM))
        else:
            self._spend()
            if kind == RST_STREAM:
                self._release(stream)

    def _frame_of_server(self, kind: int, flags: int, stream: int) -> None:
        ends_stream = kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM)
        if ends_stream and self._release(stream):
            self.was_answered, self.last_used = True, self._loop.time()
            self._credit = min(BURST, self._credit + ANSWER_FRAMES)

    def _hold(self, stream: int, num_bytes: int, is_whole: bool) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        call.held += num_bytes
        self.held += num_bytes
        if is_whole and call.state == COMING:
            call.state = WHOLE
            self.num_waiting += 1
        self._relay.hold(num_bytes)

    def _release(self, stream: int) -> bool:
        """Whether it was a pending call."""
        call = self._calls.pop(stream, None)
        if call is None:
            return False
        self.held -= call.held
        if call.state == WHOLE:
            self.num_waiting -= 1
        self._unread.pop(stream, None)
        self._relay.hold(-call.held)
        return True

    def _spend(self) -> None:
        """Counts a small frame; when there are too many, the next ones wait, or the connection is closed."""
        self._credit -= 1
        if self._credit < -MAX_DEBT and not self._is_over:
            self._relay.drop(self, ENHANCE_YOUR_CALM)
        if self._credit < 0 and "calm" not in self._stalls:
            now = self._loop.time()
            earned = (now - self._credit_time) * FRAMES_A_SECOND
            self._credit, self._credit_time = min(BURST, self._credit + earned), now
            if self._credit < 0:
                self._stall("calm")
                seconds_in_debt = -self._credit / FRAMES_A_SECOND
                self._loop.call_later(seconds_in_debt + 0.05, self._go_on, "calm")

    def _stall(self, why: str) -> None:
        if not self._stalls and not self._is_over:
            self._client.pause_reading()
        self._stalls.add(why)

    def _go_on(self, why: str) -> None:
        if why in self._stalls:
            self._stalls.remove(why)
            if not self._stalls and not self._is_over:
                self._client.resume_reading()

    def _flush_goodbye(self) -> None:
        if self._goodbye and self._was_greeted and self._from_server.at_boundary:
            self._client.write(self._goodbye)
            self._goodbye = b""


class End(asyncio.Protocol):
    """One end of a connection: forwards the event loop's calls to the connection's own."""

    def __init__(self, came: Callable[[Any], None], sent: Callable[[bytes], None], full: Callable[[], None],
                 reads: Callable[[], None], lost: Callable[[], None]) -> None:
        self.connection_made, self.data_received = came, sent  # type: ignore[assignment, method-assign]
        self.pause_writing, self.resume_writing = full, reads  # type: ignore[method-assign]
        self.connection_lost = lambda error: lost()  # type: ignore[method-assign]


class ClientFrames:
    """Bytes from a client, in pieces → those to forward. Raises ValueError for anything but HTTP/2.

        preface ──► header of a frame ──HEADERS, CONTINUATION──► whole frame, kept until its block ends ──► next header
                          │
                          └──others──► payload, passed on as it comes: `_skip` bytes are left ──► next header

    Args:
      on_frame: gets type, flags, stream and length of each frame but HEADERS.
      on_block: gets stream and length of each header block, once it is decoded, and whether the request ends
        with it.

    Attributes:
      suffix: gives what is appended to each header block, by stream.
    """

    def __init__(self, on_frame: Callable[[int, int, int, int], None],
                 on_block: Callable[[int, int, bool], None]) -> None:
        self._on_frame, self._on_block = on_frame, on_block
        self.suffix: Callable[[int], bytes] = lambda stream: b""
        self._table = HeaderTable()
        self._rest = b""  # the beginning of the preface, of a frame's header, or of a frame of headers
        self._has_preface = False
        self._skip = 0                         # bytes of a frame that have not come
        self._block: Optional[bytes] = None    # a header block whose end has not come
        self._block_stream = self._block_flags = 0

    def feed(self, data: bytes) -> bytes:
        data = self._rest + data
        passed: List[bytes] = []
        start = position = 0                   # what lies between them is passed on as it came
        if not self._has_preface:
            if not PREFACE.startswith(data[:len(PREFACE)]):
                raise ValueError("no HTTP/2")
            if len(data) < len(PREFACE):
                self._rest = data
                return b""
            self._has_preface, position = True, len(PREFACE)
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            payload = position + FRAME_HEADER_BYTES
            if payload > len(data):
                break
            length, kind, flags, stream = frame_header(data, position)
            if length > MAX_FRAME_BYTES:
                raise ValueError("a frame of %d bytes" % length)
            if kind in (HEADERS, CONTINUATION):
                end = payload + length
                if end > len(data):
                    break
                if kind == CONTINUATION:       # a block may come in thousands of them
                    self._on_frame(kind, flags, stream, length)
                passed += [data[start:position], self._headers(kind, flags, stream, data[payload:end])]
                start = position = end
                continue
            if self._block is not None:
                raise ValueError("a header block has no end")
            self._on_frame(kind, flags, stream, length)
            position, self._skip = payload, length
        self._rest = data[position:]
        return b"".join([*passed, data[start:position]])

    def _headers(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """What to forward for a frame of headers: the whole block in one frame, once it is complete."""
        begins_block, is_in_block = kind == HEADERS, self._block is not None
        if begins_block == is_in_block:
            raise ValueError("headers out of turn")
        if begins_block:
            self._block_stream, self._block_flags = stream, flags & END_STREAM
            payload = without_padding(flags, payload)
        elif stream != self._block_stream or not payload:
            # gRPC's clients send no empty CONTINUATION, floods do
            raise ValueError("headers out of turn")
        block = (self._block or b"") + payload
        if len(block) > MAX_BLOCK_BYTES:
            raise ValueError("headers of more than %d bytes" % MAX_BLOCK_BYTES)
        if not flags & END_HEADERS:
            self._block = block
            return b""
        self._block = None
        self._on_block(stream, self._table.measure(block), bool(self._block_flags))
        return frame(HEADERS, END_HEADERS | self._block_flags, stream, block + self.suffix(stream))


class ServerFrames:
    """Bytes from gRPC's server → the same, without an incomplete frame header. `on_frame` gets type, flags,
    stream."""

    def __init__(self, on_frame: Callable[[int, int, int], None]) -> None:
        self._on_frame = on_frame
        self._rest = b""
        self._skip = 0

    @property
    def at_boundary(self) -> bool:
        """Whether the forwarded bytes end with a complete frame."""
        return not self._skip

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data = self._rest + data
        position = self._skip
        while len(data) - position >= FRAME_HEADER_BYTES:
            length, kind, flags, stream = frame_header(data, position)
            self._on_frame(kind, flags, stream)
            position += FRAME_HEADER_BYTES + length
        end = min(position, len(data))
        self._skip, self._rest = position - end, data[end:]
        return data[:end] if self._rest else data


def frame_header(data: bytes, position: int) -> Tuple[int, int, int, int]:
    """Length, type, flags and stream of the frame at `position`."""
    length = data[position] << 16 | data[position + 1] << 8 | data[position + 2]
    stream = int.from_bytes(data[position + 5:position + 9], "big") & LAST_STREAM  # without the reserved bit
    return length, data[position + 3], data[position + 4], stream


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def goaway(last_stream: int, error: int) -> bytes:
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + error.to_bytes(4, "big"))


def literal_header(name: str, value: str) -> bytes:
    """A header that changes no table of HPACK (RFC 7541, 6.2.2). Name and value have at most 126 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text for text in (name.encode(), value.encode()))


def without_padding(flags: int, payload: bytes) -> bytes:
    """The fragment of a block in a HEADERS frame, without padding and priority (RFC 9113, 6.2)."""
    padding, start = 0, 0
    if flags & PADDED and payload:
        padding, start = payload[0], 1
    if flags & PRIORITY:
        start += 5
    end = len(payload) - padding
    if start > end:
        raise ValueError("more padding than a frame")
    return payload[start:end]


def unlinked(path: str) -> str:
    """Another path to the Unix socket at `path`, only for this process; `path` is removed."""
    descriptor = os.open(path, os.O_PATH)
    os.unlink(path)
    return "/proc/self/fd/%d" % descriptor
