"""Answers on the REST port while the server starts: it is alive, but not ready.

Libraries and models take seconds to load, during which one call may block Python for longer than a probe
waits. So this file also runs as a separate process, which imports only the standard library and the rules of
framing:

    started ──end of its input: the server answers, or has exited──► accepts no more: its output ends ──► over

Each connection gets one answer; what is no request is refused as by the server.
"""
import asyncio
import http
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Optional, Set

from serving.service.http_framing import FramingError, find_head, read_head

HEAD_SECONDS = 10               # for a request's head
LINGER_SECONDS = 2              # how long a client may continue sending after its answer
LEAVE_SECONDS = 2               # until the process accepts no more, however busy the machine is
LAST_TURNS = 20                 # of the event loop, until the last accepted connections are known
MAX_CONNECTIONS = 256           # others are closed at once
READ_BYTES = 65536
ALIVE, NOT_READY = {"status": "alive"}, {"error": "The server is starting"}
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from serving.service.early_answers import main; main()"


class EarlyAnswers:
    """Answers on `listening`, which must be listening, until `end` is called or the block ends."""

    def __init__(self, listening: socket.socket) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, ROOT, str(listening.fileno())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            start_new_session=True)            # Ctrl-C is for the server alone

    def __enter__(self) -> "EarlyAnswers":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()                     # type: ignore[union-attr]

    def end(self) -> None:
        """Leaves the port to others, and returns when it has; accepted connections still get an answer."""
        self._process.stdin.close()            # type: ignore[union-attr]
        # else whoever hears that the server is ready might still be told that it is not
        select.select([self._process.stdout], [], [], LEAVE_SECONDS)
        threading.Thread(target=self._process.wait, name="early answers", daemon=True).start()


def answer_to(data: bytes, num_scanned: int = 0) -> Optional[bytes]:
    """The whole answer to a request whose head `data` begins with; None as long as the head is incomplete, as
    in the first `num_scanned` bytes."""
    try:
        found = find_head(data, num_scanned)
        if not found:
            return None
        method, target = read_head(data[slice(*found)])[:2]
    except FramingError as error:
        return _answer(error.status, {"error": str(error)}, b"")
    if method in (b"GET", b"HEAD") and target.partition(b"?")[0] == b"/healthz":
        return _answer(200, ALIVE, method)
    return _answer(503, NOT_READY, method)


def _answer(status: int, said: Any, method: bytes) -> bytes:
    body = json.dumps(said)
    return ("HTTP/1.1 %d %s\r\ndate: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s"
            "connection: close\r\n\r\n%s"
            % (status, http.HTTPStatus(status).phrase,
               time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()), len(body),
               "retry-after: 1\r\n" if status == 503 else "", "" if method == b"HEAD" else body)).encode()


async def answer_until_input_ends(listening: socket.socket, source: int, output: int) -> None:
    """Answers on `listening` until the pipe `source` ends, and then the connections already accepted; closes
    the pipe `output` when it accepts no more."""
    connected: Set["asyncio.Task[Any]"] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.Task.current_task()
        if len(connected) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connected.add(task)
        try:
            await answer_one(reader, writer)
        except (OSError, asyncio.TimeoutError):
            pass                               # it has disconnected, or sends too slowly
        finally:
            connected.discard(task)
            writer.close()

    server = await asyncio.start_server(answer, sock=listening)
    ended = asyncio.Event()
    asyncio.get_event_loop().add_reader(source, ended.set)
    await ended.wait()
    asyncio.get_event_loop().remove_reader(source)
    server.close()                             # its copy of the socket; the server's still listens
    for _ in range(LAST_TURNS):
        await asyncio.sleep(0)
    os.close(output)
    if connected:
        await asyncio.wait(connected, timeout=LINGER_SECONDS)


async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request's head, answers, and continues reading for a while: a client that still sends to a
    closed connection loses its answer."""
    answer = await asyncio.wait_for(_answer_to_head(reader), HEAD_SECONDS)
    if answer:
        writer.write(answer)
        writer.write_eof()
        await asyncio.wait_for(_to_the_end(reader), LINGER_SECONDS)


async def _answer_to_head(reader: asyncio.StreamReader) -> Optional[bytes]:
    """None when the client closes the connection before its head is complete."""
    data, answer = b"", None
    while not answer:
        piece = await reader.read(READ_BYTES)
        if not piece:
            return None
        data += piece
        answer = answer_to(data, len(data) - len(piece))
    return answer


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(READ_BYTES):
        pass


def main() -> None:
    """Answers on the socket whose number the process was given, until standard input ends."""
    asyncio.run(answer_until_input_ends(socket.socket(fileno=int(sys.argv[2])), 0, 1))
