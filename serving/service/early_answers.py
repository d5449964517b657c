"""Answers on the REST port while the server starts: it is alive, but not ready.

Libraries and models take seconds to load, during which one call may block Python for longer than a probe
waits. So this file also runs as a separate process, with only the standard library:

    started ──end of its input: the server answers, or has exited──► accepts no more: its output ends ──► over

Each connection gets one answer.
"""
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Set

HEAD_SECONDS = 10               # for a request's head
LINGER_SECONDS = 2              # how long a client may continue sending after its answer
LEAVE_SECONDS = 2               # until the process accepts no more, however busy the machine is
LAST_TURNS = 20                 # of the event loop, until the last accepted connections are known
MAX_CONNECTIONS = 256           # others are closed at once
MAX_HEAD_BYTES = 65536
ALIVE = 200, "OK", {"status": "alive"}
NOT_READY = 503, "Service Unavailable", {"error": "The server is starting"}


class EarlyAnswers:
    """Answers on `listening`, which must be listening, until `end` is called or the block ends."""

    def __init__(self, listening: socket.socket) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), str(listening.fileno())],
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


def answer_to(head: bytes) -> bytes:
    """The whole answer to a request with this head."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    is_probe = method in (b"GET", b"HEAD") and path == b"/healthz"
    status, phrase, said = ALIVE if is_probe else NOT_READY
    body = json.dumps(said)
    return ("HTTP/1.1 %d %s\r\ndate: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s"
            "connection: close\r\n\r\n%s"
            % (status, phrase, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()), len(body),
               "" if status == 200 else "retry-after: 1\r\n", "" if method == b"HEAD" else body)).encode()


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
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass                               # it has disconnected, or sends no request
        finally:
            connected.discard(task)
            writer.close()

    server = await asyncio.start_server(answer, sock=listening, limit=MAX_HEAD_BYTES)
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
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
    writer.write(answer_to(head))
    writer.write_eof()
    await asyncio.wait_for(_to_the_end(reader), LINGER_SECONDS)


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(MAX_HEAD_BYTES):
        pass


if __name__ == "__main__":
    asyncio.run(answer_until_input_ends(socket.socket(fileno=int(sys.argv[1])), 0, 1))
