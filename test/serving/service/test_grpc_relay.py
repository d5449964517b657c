import asyncio
import os
import socket

import pytest
from served import run

from serving.service import grpc_relay
from serving.service.grpc_relay import (BURST, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
                                        HEADERS, MAX_DEBT, PADDED, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
                                        ClientFrames, Connection, Relay, RelayLimits, ServerFrames, frame,
                                        goaway)

GREETING = PREFACE + frame(SETTINGS, 0, 0, b"")
HEAD = grpc_relay.literal_header("a", "bc")


@pytest.fixture(autouse=True)
def calls_that_take_nothing(monkeypatch):
    """But their requests and answers: so sums are of what a test sends."""
    monkeypatch.setattr(grpc_relay, "CALL_BYTES", 0)


class Seen(list):
    """Notes what it is called with."""

    def __call__(self, *facts):
        self.append(facts)


class Transport:
    """A connection's side, written to."""

    def __init__(self):
        self.written, self.is_closed, self.is_paused = b"", False, False

    def write(self, data):
        self.written += data

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = True

    def pause_reading(self):
        self.is_paused = True

    def resume_reading(self):
        self.is_paused = False

    def get_extra_info(self, name):
        return ("1.2.3.4", 5)


def client_frames(suffix=b""):
    frames = ClientFrames(Seen(), Seen())
    frames.suffix = lambda stream: suffix
    return frames


def connected(relay):
    """A connection that both sides have made."""
    connection = Connection(relay)
    connection.client_came(Transport())
    connection.server_came(Transport())
    connection.client_sent(GREETING)
    return connection


def relay_of(max_connections=9, max_bytes=1000):
    return Relay(socket.socket(), "nowhere", RelayLimits(max_connections, max_bytes))


def call(stream, size, flags=END_STREAM):
    return frame(HEADERS, END_HEADERS, stream, b"") + frame(DATA, flags, stream, b"x" * size)


@pytest.mark.parametrize("piece", [1, 2, 7, 10, 1000])
def test_what_a_client_sends_goes_on_however_it_is_cut(piece):
    frames = client_frames(b"!!")
    sent = GREETING + frame(HEADERS, END_HEADERS, 1,
                            HEAD) + frame(DATA, END_STREAM, 1, b"x" * 30) + frame(RST_STREAM, 0, 1, b"1234")
    passed = b"".join(frames.feed(sent[at:at + piece]) for at in range(0, len(sent), piece))
    assert passed == sent.replace(frame(HEADERS, END_HEADERS, 1, HEAD),
                                  frame(HEADERS, END_HEADERS, 1, HEAD + b"!!"))
    assert frames._on_block == [(1, 35, False)]
    assert frames._on_frame == [(SETTINGS, 0, 0, 0), (DATA, END_STREAM, 1, 30), (RST_STREAM, 0, 1, 4)]


@pytest.mark.parametrize("sent", [
    frame(HEADERS, END_STREAM, 3, HEAD[:2]) + frame(CONTINUATION, 0, 3, HEAD[2:3])
    + frame(CONTINUATION, END_HEADERS, 3, HEAD[3:]),
    frame(HEADERS, END_STREAM | END_HEADERS | PADDED | PRIORITY, 3, b"\x02" + b"12345" + HEAD + b"\0\0"),
])
def test_a_header_block_goes_on_in_one_frame(sent):
    frames = client_frames(b"!")
    assert frames.feed(PREFACE + sent) == PREFACE + frame(HEADERS, END_HEADERS | END_STREAM, 3, HEAD + b"!")
    assert frames._on_block == [(3, 35, True)]


@pytest.mark.parametrize("sent", [
    b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PRX",
    PREFACE + b"\xff\xff\xff" + bytes(6),                                              # a frame of 16 MiB
    PREFACE + frame(CONTINUATION, 0, 1, b"x"),
    PREFACE + frame(HEADERS, 0, 1, b"x") + frame(DATA, 0, 1, b""),
    PREFACE + frame(HEADERS, 0, 1, b"x") + frame(CONTINUATION, 0, 3, b"x"),
    PREFACE + frame(HEADERS, 0, 1, b"x") + frame(HEADERS, 0, 3, b"x"),
    PREFACE + frame(HEADERS, 0, 1, b"x") + frame(CONTINUATION, 0, 1, b""),
    PREFACE + frame(HEADERS, 0, 1, b"x" * 16000) + frame(CONTINUATION, END_HEADERS, 1, b"x" * 200),
    PREFACE + frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09x"),
])
def test_what_is_no_http2_of_a_client(sent):
    with pytest.raises(ValueError):
        client_frames().feed(sent)


@pytest.mark.parametrize("piece", [1, 8, 9, 11, 1000])
def test_what_the_server_sends_goes_on_up_to_a_whole_header(piece):
    frames = ServerFrames(Seen())
    sent = frame(SETTINGS, 0, 0, b"123456") + frame(HEADERS, END_HEADERS, 1,
                                                    b"x") + frame(DATA, END_STREAM, 1, b"x" * 20)
    assert b"".join(frames.feed(sent[at:at + piece]) for at in range(0, len(sent), piece)) == sent
    assert frames._on_frame == [(SETTINGS, 0, 0), (HEADERS, END_HEADERS, 1), (DATA, END_STREAM, 1)]
    assert frames.at_boundary
    assert frames.feed(frame(DATA, 0, 1, b"xy")[:4]) == b"" and frames.at_boundary
    assert frames.feed(
        frame(DATA, 0, 1, b"xy")[4:10]) == frame(DATA, 0, 1, b"xy")[:10] and not frames.at_boundary


def test_a_literal_header():
    assert grpc_relay.literal_header("name", "value") == b"\0\x04name\x05value"


def test_bytes_are_held_until_they_are_answered():
    async def session():
        relay = relay_of()
        connection = connected(relay)
        connection.client_sent(call(1, 300) + call(3, 400, 0))
        assert (relay.held, connection.num_waiting) == (700, 1)
        connection.server_sent(frame(HEADERS, END_HEADERS, 1, b"") + frame(DATA, 0, 1, b"x"))
        assert (relay.held, connection.num_waiting, connection.was_answered) == (700, 1, False)
        connection.server_sent(frame(HEADERS, END_HEADERS | END_STREAM, 1, b""))
        assert (relay.held, connection.num_waiting, connection.was_answered) == (400, 0, True)
        connection.client_sent(frame(DATA, 0, 1, b"x" * 500))  # of a call that is over: gRPC throws it away
        assert relay.held == 400
        connection.client_sent(frame(RST_STREAM, 0, 3, b"1234"))
        assert relay.held == 0
        connection.client_sent(call(5, 300, 0))
        connection.lost()
        assert relay.held == 0
    run(session())


def test_beyond_the_bytes_of_all_the_connection_with_the_most_ends():
    async def session():
        relay = relay_of(max_bytes=1000)
        greedy, modest = connected(relay), connected(relay)
        greedy.client_sent(call(1, 400, 0) + call(3, 300, 0))
        modest.client_sent(call(1, 299, 0))
        assert not greedy._client.is_closed
        modest.client_sent(frame(DATA, 0, 1, b"xx"))
        assert greedy._client.is_closed and greedy._client.written == goaway(3, ENHANCE_YOUR_CALM)
        assert not modest._client.is_closed and relay.held == 301
        modest.client_sent(frame(DATA, 0, 1, b"x" * 800) + frame(DATA, 0, 1, b"x" * 800))
        assert modest._client.is_closed and relay.held == 0
    run(session())


def test_of_connections_that_hold_the_same_the_newest_ends():
    async def session():
        relay = relay_of(max_bytes=1000)
        connections = [connected(relay) for _ in range(8)]
        for connection in connections:
            connection.client_sent(call(1, 130, 0))
        assert [each._client.is_closed for each in connections] == [False] * 7 + [True]
    run(session())


def test_beyond_the_connections_the_one_that_is_missed_least_ends():
    async def session():
        relay = relay_of(max_connections=3)
        answered, idle, waiting = (connected(relay) for _ in range(3))
        answered.client_sent(call(1, 1))
        answered.server_sent(frame(HEADERS, END_HEADERS | END_STREAM, 1, b""))
        waiting.client_sent(call(1, 1))
        idle.client_sent(call(1, 1, 0))                                # half-sent is idle, too
        connections = [connected(relay) for _ in range(2)]
        assert [each._client.is_closed for each in (answered, idle, waiting,
                                                    *connections)] == [False, True, False, True, False]
        connections[1].client_sent(call(1, 1))
        answered.client_sent(call(3, 1))
        late = connected(relay)
        assert late._client.is_closed and not answered._client.is_closed
    run(session())


class Clock:
    """An event loop's time that goes on when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_event_loop(), "time", lambda: self.now)


def named(connection, stream):
    return "%d.%d" % (connection.number, stream)


def test_unread_answers_are_held_and_requests_grow():
    async def session():
        relay = relay_of(max_bytes=10 ** 6)
        connection = connected(relay)
        connection.client_sent(call(1, 300) + call(3, 300))
        relay.grew(named(connection, 1), 5000)
        assert (relay.held, connection.num_waiting) == (5600, 2)
        relay.answered(named(connection, 1), 70)
        assert (relay.held, connection.num_waiting) == (300 + 70, 1)
        connection.server_sent(frame(HEADERS, END_HEADERS, 1, b""))
        assert connection.is_waiting and relay.held == 300 + 70
        connection.server_sent(frame(DATA, END_STREAM, 1, b"x"))
        assert (relay.held, connection.num_waiting, connection._unread) == (300, 1, {})
        relay.answered(named(connection, 1), 70)  # of calls and connections that are over
        relay.answered("99.1", 70)
        relay.answered("", 70)
        assert relay.held == 300
        connection.lost()
        assert relay.held == 0
    run(session())


def test_who_leaves_answers_unread_gives_way_first(monkeypatch):
    async def session():
        clock = Clock(monkeypatch)
        relay = relay_of(max_connections=3, max_bytes=10 ** 6)
        unread, waiting, idle = (connected(relay) for _ in range(3))
        for each in (unread, waiting):
            each.client_sent(call(1, 1))
        relay.answered(named(unread, 1), 1)
        connected(relay)
        assert [each._client.is_closed for each in (unread, waiting, idle)] == [False, False, True]
        relay.answered(named(unread, 3), 1)
        clock.now += grpc_relay.UNREAD_SECONDS + 1
        connected(relay)
        assert [each._client.is_closed for each in (unread, waiting)] == [True, False]
    run(session())


def test_watches_give_way_and_are_not_hurried(monkeypatch):
    async def session():
        clock = Clock(monkeypatch)
        relay = relay_of(max_connections=1, max_bytes=10 ** 6)
        watching = connected(relay)
        watching.client_sent(call(1, 1))
        relay.answered(named(watching, 1), 1, ends=False)
        clock.now += 1000
        watching._end_if_unread()
        assert not watching._client.is_closed and not watching.is_waiting
        connected(relay)
        assert watching._client.is_closed
    run(session())


def test_answers_that_are_not_read_in_time_end_the_connection(monkeypatch):
    async def session():
        clock = Clock(monkeypatch)
        relay = relay_of(max_bytes=10 ** 6)
        connection = connected(relay)
        connection.client_sent(call(1, 1) + call(3, 1) + call(5, 1))
        relay.answered(named(connection, 1), 1)
        relay.answered(named(connection, 3), 1)
        connection.server_sent(frame(HEADERS, END_STREAM, 1, b""))
        clock.now += grpc_relay.READ_SECONDS - 1
        connection.server_sent(frame(HEADERS, END_HEADERS, 3, b"") + frame(DATA, 0, 3, b"x"))  # byte by byte
        relay.answered(named(connection, 5), 1)
        connection._end_if_unread()
        assert not connection._client.is_closed and connection._is_timed
        clock.now += 2
        connection._end_if_unread()
        assert connection._client.is_closed and relay.held == 0
    run(session())


def test_the_end_waits_for_calls_but_not_for_who_does_not_read(monkeypatch):
    async def session():
        clock = Clock(monkeypatch)
        relay = relay_of(max_bytes=10 ** 6)
        connection = connected(relay)
        connection.client_sent(call(1, 1) + call(3, 1))
        relay.answered(named(connection, 1), 1)
        clock.now += grpc_relay.END_SECONDS + 1
        connection._end_when_answered()
        assert not connection._client.is_closed                        # the other is not answered
        relay.answered(named(connection, 3), 1)
        connection._end_when_answered()
        assert not connection._client.is_closed                        # but may be about to read that
        clock.now += grpc_relay.END_SECONDS + 1
        connection._end_when_answered()
        assert connection._client.is_closed
    run(session())


def test_calls_take_more_than_their_bytes(monkeypatch):
    async def session():
        monkeypatch.setattr(grpc_relay, "CALL_BYTES", 1000)
        relay = relay_of(max_bytes=5000)
        connection = connected(relay)
        connection.client_sent(call(1, 10) + call(3, 10))
        assert relay.held == 2020
        relay.answered(named(connection, 1), 70)
        assert relay.held == 2080
        connection.client_sent(b"".join(call(stream, 0, 0) for stream in (5, 7, 9)))
        assert connection._client.is_closed and relay.held == 0
    run(session())


def test_a_header_block_counts_as_what_it_becomes():
    async def session():
        relay = relay_of(max_bytes=10 ** 6)
        connection = connected(relay)
        kept = b"\x40\x01a\x64" + b"v" * 100
        connection.client_sent(frame(HEADERS, END_HEADERS, 1, kept + b"\xbe" * 9))
        assert relay.held == 10 * (101 + 32)
        connection.client_sent(frame(HEADERS, END_HEADERS, 3, b"\xbe" * 1000))
        assert connection._client.is_closed and relay.held == 0
    run(session())


def test_frames_that_carry_little_wait_and_too_many_end_the_connection():
    async def session():
        connection = connected(relay_of())
        ping = frame(6, 0, 0, b"12345678")
        connection.client_sent(ping * (BURST - 10))
        assert not connection._client.is_paused
        connection.client_sent(ping * 1000)
        assert connection._client.is_paused and not connection._client.is_closed
        connection.client_sent(ping * (BURST + MAX_DEBT) * 2)
        assert connection._client.is_closed
    run(session())


def test_pieces_of_a_header_block_count_as_frames():
    async def session():
        connection = connected(relay_of())
        piece = frame(CONTINUATION, 0, 1, b"x")
        connection.client_sent(frame(HEADERS, 0, 1, b"h") + piece * (2 * BURST))
        assert connection._client.is_paused and not connection._client.is_closed
        connection.client_sent(piece * (BURST + MAX_DEBT))
        assert connection._client.is_closed
    run(session())


def test_at_the_end_a_client_is_told_between_two_frames():
    async def session():
        connection = connected(relay_of())
        connection.server_sent(frame(DATA, 0, 1, b"xyz")[:10])
        connection.say_goodbye()
        connection.server_sent(b"yz" + frame(SETTINGS, 0, 0, b""))
        assert connection._client.written == frame(DATA, 0, 1, b"xyz") + frame(SETTINGS, 0, 0,
                                                                               b"") + goaway(2 ** 31 - 1, 0)
    run(session())


def test_a_socket_that_has_no_path_is_reached_by_this_process(tmp_path):
    os.mkdir(str(tmp_path / "folder"))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as sock:
        listening.bind(str(tmp_path / "folder" / "grpc"))
        listening.listen(1)
        path = grpc_relay.unlinked(str(tmp_path / "folder" / "grpc"))
        assert os.listdir(str(tmp_path / "folder")) == []
        sock.connect(path)


@pytest.mark.parametrize("is_accepted", [False, True])
def test_what_has_arrived_at_the_end_is_forwarded(tmp_path, is_accepted):
    async def forwarded(reader, writer):
        assert await reader.readexactly(len(GREETING)) == GREETING
        writer.write(frame(SETTINGS, 0, 0, b""))

    async def session():
        server = await asyncio.start_unix_server(forwarded, str(tmp_path / "grpc"))
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            relay = Relay(listening, str(tmp_path / "grpc"), RelayLimits(9, 1000))
            relay.start()
            clients = []
            for _ in range(3):                 # the event loop does not run between these
                clients.append(socket.create_connection(listening.getsockname()))
                clients[-1].sendall(b"" if is_accepted else GREETING)
            if is_accepted:
                while len(relay._connections) < 3:
                    await asyncio.sleep(0.001)
                for client in clients:
                    client.sendall(GREETING)
            await relay.drain(10)
            for client in clients:
                found = client.makefile("rb").read()
                assert found.startswith(frame(SETTINGS, 0, 0, b"") + goaway(2 ** 31 - 1, 0))
                client.close()
        server.close()
    run(session())


def test_connections_without_a_greeting_end():
    async def session():
        connection = Connection(relay_of())
        connection.client_came(Transport())
        assert connection._timer.when() - asyncio.get_event_loop().time() <= grpc_relay.PREFACE_SECONDS
        connection.client_sent(b"\x16\x03\x01")
        assert connection._client.is_closed and connection._client.written == b""
    run(session())


def test_http_1_is_told_that_this_is_none_of_its_ports():
    async def session():
        connection = Connection(relay_of())
        connection.client_came(Transport())
        connection.client_sent(b"POST /v1/models/albert:predict HTTP/1.1\r\n")
        head, _, body = connection._client.written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"REST has a port of its own" in body
        assert b"content-length: %d" % len(body) in head and connection._client.is_closed
    run(session())
