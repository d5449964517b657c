"""A server under load for as long as you like, with all that may happen beside it, and its end: no request
may be lost.

  python test/checks/soak.py --seconds 600
  python test/checks/soak.py --seconds 60 --limit_files 1024      # the server may have so many descriptors

80 % of the capacity measured first, by REST and for a tenth by gRPC, from a process of its own that retries
nothing; every 20 s a new version, now and then one that is broken or hangs; a reader of the access log that
stops reading; 2,000 idle connections at each port; SIGTERM under load at the end. A request that was sent and
got no answer, or another status than 200, is lost. When a client is told "connection: close" it takes another
connection; when that is refused the server has ended, and so does the load.
"""
import argparse
import asyncio
import collections
import itertools
import json
import os
import random
import resource
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from typing import Any, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [ROOT, os.path.join(HERE, "attack"), os.path.join(ROOT, "test", "benchmark")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import uvloop

import server_load
from fuzz import SERVICE, TEXTS, predict_message
from target import FOLDER, Outcome, Server, end, export_model

QUESTIONS = os.path.join(ROOT, "estimator", "sample", "dev.tsv")
REOPENED = 100                                 # a second: a server may close what is idle
SWAP_SECONDS = 20
READ_SHARE = 0.1        # of the time, the access log is read
GRPC_SHARE = 0.1        # of the requests
REUSE_SECONDS = 5       # an older connection is not used again: the server may be closing it, to make room
MAX_CONNECTIONS = 900   # of clients; a server takes 1,000
TELL_SECONDS = 10
LEAK_MB = 64                                   # how much larger the last third may be than the first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity")
    parser.add_argument("--idle", type=int, default=2000, help="connections that say nothing, at each port")
    parser.add_argument("--limit_files", type=int, default=0,
                        help="descriptors of the server; 0 for the machine's limit")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[],
                        help="for the server: all that follows")
    parser.add_argument("--generate", nargs=3, metavar=("REST_PORT", "GRPC_PORT", "RATE"),
                        help="the load alone, to a server that runs")
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.generate:
        uvloop.install()
        rest_port, grpc_port, rate = arguments.generate
        asyncio.run(Generator(int(rest_port), int(grpc_port), float(rate)).run())
        return 0
    outcome = Outcome()
    folder = os.path.join(FOLDER, "soak_versions")
    shutil.rmtree(folder, ignore_errors=True)
    good = export_model(os.path.join(FOLDER, "export"))
    shutil.copytree(good, os.path.join(folder, "1"))
    try:
        with Server("soak", *arguments.flags, versions_folder=folder,
                    limit_files=arguments.limit_files) as server:
            soak(outcome, server, Versions(good, folder, server), arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome.status()


def soak(outcome: Outcome, server: Server, versions: "Versions", arguments: Any) -> None:
    reading = LogReader(server.process.stdout)
    bodies = server_load.read_bodies(QUESTIONS)
    asyncio.run(server_load.closed_loop(server.rest_port, bodies, 16, 2))        # warms up
    capacity = asyncio.run(server_load.closed_loop(server.rest_port, bodies, 16, 5)).rate()
    print("capacity %.0f requests a second; asked: %.0f for %g s"
          % (capacity, arguments.load * capacity, arguments.seconds), flush=True)
    crowds = [Crowd(port, arguments.idle) for port in (server.rest_port, server.grpc_port)]
    for crowd in crowds:
        crowd.keep_up()
    # Thousands that come at once are another attack: until the server has seen them all, nothing is measured.
    asyncio.run(server_load.closed_loop(server.rest_port, bodies, 16, 5))
    generator = subprocess.Popen(
        [sys.executable, "-W", "ignore", os.path.abspath(__file__), "--generate", str(server.rest_port),
         str(server.grpc_port), str(arguments.load * capacity)], stdout=subprocess.PIPE)
    told: List[Dict[str, Any]] = []
    telling = threading.Thread(target=tell, args=(generator.stdout, server, told), daemon=True)
    try:
        telling.start()
        start = now = time.monotonic()
        next_swap = start + SWAP_SECONDS
        while now < start + arguments.seconds and server.is_alive() and generator.poll() is None:
            for crowd in crowds:
                crowd.keep_up()
            if now > start + READ_SHARE * arguments.seconds and not reading.has_stopped:
                reading.has_stopped = True
                print("the log's reader stops after %d lines" % reading.num_lines, flush=True)
            if now > next_swap:
                next_swap += SWAP_SECONDS
                versions.change()
            time.sleep(max(0.0, 1 - (time.monotonic() - now)))
            now = time.monotonic()
        outcome.tell("the server lives under load", server.is_alive() and generator.poll() is None)
        outcome.tell("idle connections", True, ", ".join("%d open at port %d, %d opened" % (
            len(crowd.sockets), crowd.port, crowd.num_opened) for crowd in crowds))
        for version, state in versions.states().items():
            outcome.tell("the newest good version serves", state == "AVAILABLE",
                         "version %d is %s" % (version, state))
        tell_end(outcome, server)
        telling.join(70)                       # as long as the load's longest request
    finally:
        generator.kill()
    tell_losses(outcome, told)


def tell_end(outcome: Outcome, server: Server) -> None:
    seconds, status = end(server.process, 60)
    outcome.tell("SIGTERM under load", status == 0, "status %s after %.1f s" % (status, seconds))
    with open(server.log_path, "rb") as stream:
        outcome.tell("no traceback in the log", b"Traceback" not in stream.read(), server.log_path)


def tell_losses(outcome: Outcome, told: List[Dict[str, Any]]) -> None:
    if not told:
        outcome.tell("no request is lost", False, "the load has told nothing")
        return
    counts = told[-1]["counts"]
    lost = {code: count for code, count in counts.items() if code not in ("200", "OK")}
    outcome.tell("no request is lost", not lost and told[-1]["is_last"], "%d answered%s%s" % (
        sum(counts.values()) - sum(lost.values()),
        "".join(", %d × %s" % (count, code) for code, count in sorted(lost.items())),
        "" if told[-1]["is_last"] else "; the load did not hear of the end"))
    outcome.tell("nothing waits for a free connection", not told[-1]["unsent"],
                 "%d could not be sent" % told[-1]["unsent"])
    memory = [line["megabytes"] for line in told if "megabytes" in line]
    if len(memory) >= 6:
        third = len(memory) // 3
        first, last = np.median(memory[:third]), np.median(memory[-third:])
        outcome.tell("memory", last <= first + LEAK_MB,
                     "median of the first third %.0f MB, of the last %.0f MB" % (first, last))


def tell(stream: Any, server: Server, told: List[Dict[str, Any]]) -> None:
    """Prints what the load says of itself, with the server's memory."""
    for line in stream:
        found = json.loads(line.decode())
        if not found["is_last"] and server.is_alive():
            found["megabytes"] = server.megabytes()
        told.append(found)
        print("%5.0f s  %6.1f/s  p50 %6.1f ms  p99 %6.1f ms  max %6.1f ms  %s  %s MB" % (
            found["seconds"], found["rate"], *found["latencies"],
            " ".join("%s×%d" % (code, count) for code, count in sorted(
                found["counts"].items())), "%.0f" % found["megabytes"] if "megabytes" in found else "-"),
              flush=True)


class LogReader:
    """Reads lines until it is told to stop; the pipe stays open."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.has_stopped, self.num_lines = stream, False, 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for _ in self._stream:
            self.num_lines += 1
            if self.has_stopped:
                return


class Crowd:
    """`size` connections to `port` that say nothing."""

    def __init__(self, port: int, size: int) -> None:
        self.port, self._size, self.num_opened = port, size, 0
        self.sockets: Dict[int, socket.socket] = {}
        self._poll = select.poll()

    def keep_up(self) -> None:
        """Opens what is missing, not too much at once. Whatever the server says to them, its farewell above
        all, is read."""
        for number, _ in self._poll.poll(0):
            try:
                is_open = bool(self.sockets[number].recv(65536))
            except OSError:
                is_open = False
            if not is_open:
                self._poll.unregister(number)
                self.sockets.pop(number).close()
        wanted = self._size if not self.num_opened else min(self._size, len(self.sockets) + REOPENED)
        while len(self.sockets) < wanted:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=0.2)
            except OSError:                    # its queue of new connections is full, say
                return
            self.num_opened += 1
            connection.setblocking(False)
            self.sockets[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)


class Versions:
    """What comes and goes in the folder of versions."""

    def __init__(self, good: str, folder: str, server: Server) -> None:
        self._good, self._folder, self._server = good, folder, server
        self._newest, self._newest_good = 1, 1
        self._kinds = itertools.cycle((self._add_good, self._add_good, self._add_broken, self._add_good,
                                       self._add_fifo))

    def change(self) -> None:
        self._newest += 1
        path = os.path.join(self._folder, str(self._newest))
        next(self._kinds)(path)
        for name in os.listdir(self._folder):
            if name.isdigit() and int(name) < self._newest_good - 1:
                shutil.rmtree(os.path.join(self._folder, name))

    def states(self) -> Dict[int, str]:
        url = "http://127.0.0.1:%d/v1/models/albert/versions/%d" % (self._server.rest_port, self._newest_good)
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return {self._newest_good: json.load(answer)["model_version_status"][0]["state"]}
        except OSError as error:
            return {self._newest_good: str(error)}

    def _add_good(self, path: str) -> None:
        os.rename(shutil.copytree(self._good, path + ".tmp"), path)
        self._newest_good = self._newest

    def _add_broken(self, path: str) -> None:
        shutil.copytree(self._good, path + ".tmp")
        with open(os.path.join(path + ".tmp", "saved_model.pb"), "r+b") as stream:
            stream.truncate(1000)
        os.rename(path + ".tmp", path)

    def _add_fifo(self, path: str) -> None:
        shutil.copytree(self._good, path + ".tmp")
        os.remove(os.path.join(path + ".tmp", "saved_model.pb"))
        os.mkfifo(os.path.join(path + ".tmp", "saved_model.pb"))
        os.rename(path + ".tmp", path)


class Client(asyncio.Protocol):
    """A kept-alive connection that hears when it is to close."""

    def __init__(self) -> None:
        self.is_usable, self.idle_since = True, 0.0
        self._received = b""
        self._answer: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[str]":
        """The status; "no answer" when the connection ends before."""
        self._answer = asyncio.get_event_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if end and len(body) >= int(fields.get(b"content-length", 0)):
            self.is_usable = self.is_usable and fields.get(b"connection") != b"close"
            self._received, self.idle_since = b"", time.perf_counter()
            if not self._answer.done():
                self._answer.set_result(head[9:12].decode())

    def connection_lost(self, error: Any) -> None:
        self.is_usable = False
        if self._answer and not self._answer.done():
            self._answer.set_result("no answer")


class Generator:
    """Asks at random times, `rate` a second, whether or not the server keeps up, until it refuses
    a connection."""

    def __init__(self, rest_port: int, grpc_port: int, rate: float) -> None:
        self._rest_port, self._grpc_port, self._rate = rest_port, grpc_port, rate
        self._bodies = server_load.read_bodies(QUESTIONS)
        self._counts: Dict[str, int] = collections.Counter()
        self._latencies: List[float] = []
        self._free: List[Client] = []
        self._num_asking = self._unsent = 0

    async def run(self) -> None:
        self._start, self._ended = time.perf_counter(), asyncio.Event()
        ended = asyncio.ensure_future(self._ended.wait())
        asking = [asyncio.ensure_future(self._ask_rest()), asyncio.ensure_future(self._ask_grpc())]
        while not self._ended.is_set():
            await asyncio.wait({ended}, timeout=TELL_SECONDS)
            if not self._ended.is_set():
                self._tell(False)
        for task in asking:
            await task
        self._tell(True)

    async def _ask_rest(self) -> None:
        rng, tasks, due = random.Random(0), set(), time.perf_counter()
        while not self._ended.is_set():
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if self._num_asking >= MAX_CONNECTIONS:
                self._unsent += 1
            else:
                task = asyncio.ensure_future(self._ask(rng.choice(self._bodies), due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            due += rng.expovariate(self._rate * (1 - GRPC_SHARE))
        await asyncio.gather(*tasks)

    async def _ask(self, request: bytes, due: float) -> None:
        client = await self._client()
        if client:
            self._num_asking += 1
            self._count(await client.ask(request), due)
            self._num_asking -= 1
            if client.is_usable:
                self._free.append(client)
            else:
                client.transport.close()

    async def _client(self) -> Any:
        """One that is free, or a new one; None when that is refused."""
        while self._free:
            client = self._free.pop()
            if client.is_usable and time.perf_counter() - client.idle_since < REUSE_SECONDS:
                return client
            client.transport.close()
        try:
            return (await asyncio.get_event_loop().create_connection(Client, "127.0.0.1", self._rest_port))[1]
        except ConnectionRefusedError:
            self._ended.set()
            return None

    async def _ask_grpc(self) -> None:
        message = predict_message("", {name: [text.encode()] for name, text in TEXTS.items()})
        rng, due = random.Random(1), time.perf_counter()
        async with grpc.aio.insecure_channel("127.0.0.1:%d" % self._grpc_port) as channel:
            ask = channel.unary_unary(SERVICE + "Predict", request_serializer=None,
                                      response_deserializer=None)
            while True:                        # one after the other: a tenth of the load needs no more
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                asked = time.perf_counter()
                try:
                    await ask(message, timeout=60)
                    self._count("OK", asked)
                except grpc.aio.AioRpcError as error:
                    if error.code() == grpc.StatusCode.UNAVAILABLE and "refused" in error.details().lower():
                        break
                    self._count("%s: %s" % (error.code().name, error.details()), asked)
                if self._ended.is_set():
                    break
                due = max(due + rng.expovariate(self._rate * GRPC_SHARE), time.perf_counter() - 1)

    def _count(self, code: str, due: float) -> None:
        self._counts[code] += 1
        self._latencies.append(time.perf_counter() - due)

    def _tell(self, is_last: bool) -> None:
        latencies, self._latencies = np.array(self._latencies or [0.0]) * 1000, []
        print(json.dumps({"seconds": time.perf_counter() - self._start, "rate": len(latencies) / TELL_SECONDS,
                          "latencies": [*np.percentile(latencies, [50, 99]), latencies.max()],
                          "counts": self._counts, "unsent": self._unsent, "is_last": is_last}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
