"""Load on the server, from a generator in a process of its own, over loopback, with questions of a file in
random order.

  python test/benchmark/server_load.py --data dev.tsv --config tiny

1. Closed loop: 1, 8, 32, 128 clients, each asking one question after the other, against three servers in
   turns: ours, the same without batching, where each request runs when it comes, as in TensorFlow Serving
   without it, and one that runs requests one after the other with TensorFlow's own setting of threads, as a
   process around Session.run does.
2. Open loop at 80 % of that capacity for --soak_seconds: errors, latency, the server's memory.
3. Open loop at 3 times the capacity: how many are answered, how quickly the rest is refused, and how it
   is afterwards.

Weights are random: they do not change the time. Everything ends by itself.
"""
import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, List, NamedTuple, Tuple

import numpy as np
import uvloop

import results
from export_apart import export_apart

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLIENTS = (1, 8, 32, 128)
ROUNDS = 3
MAX_CONNECTIONS = 512                          # of the open loop
MODEL_NAME = "albert"
SERVERS = {"batching": (), "as they come": ("--enable_batching", "false"), "one by one": (
    "--max_batch_size", "1", "--max_enqueued_batches", "256", "--num_batch_threads", "1",
    "--tensorflow_intra_op_parallelism", "0")}


class Load(NamedTuple):
    """What became of the requests of one run: (status, seconds) of each; 0 for those that no connection was
    free for."""
    seconds: float
    answers: List[Tuple[int, float]]

    def latencies(self, *statuses: int) -> np.ndarray:
        """Milliseconds, of the requests that got one of `statuses`."""
        return np.array([1000 * seconds for status, seconds in self.answers if status in statuses])

    def rate(self) -> float:
        """Answers with status 200 a second."""
        return len(self.latencies(200)) / self.seconds

    def describe(self) -> str:
        counts = collections.Counter(status for status, _ in self.answers)
        text = "%7.1f answers/s, p50 %7.1f ms, p99 %7.1f ms" % (self.rate(),
                                                                *np.percentile(self.latencies(200), [50, 99]))
        others = ", ".join("%d × %s" % (count, status)
                           for status, count in sorted(counts.items()) if status != 200)
        return text + ("; " + others if others else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample", "dev.tsv"),
                        help="questions in pairs")
    parser.add_argument("--config", default="tiny", help="of the model")
    parser.add_argument("--seconds", type=float, default=5, help="of each closed-loop round")
    parser.add_argument("--soak_seconds", type=float, default=600)
    parser.add_argument("--overload_seconds", type=float, default=20)
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    uvloop.install()
    bodies = read_bodies(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        export_apart(arguments.config, folder)
        servers = [Server(folder, *flags) for flags in SERVERS.values()]
        try:
            asyncio.run(measure(servers, bodies, arguments))
        finally:
            for server in servers:
                server.stop()
    return 0


async def measure(servers: List["Server"], bodies: List[bytes], arguments: Any) -> None:
    """Prints everything."""
    for server in servers:
        await closed_loop(server.port, bodies, 8, 2)             # warms up
    capacity = 0.0
    print("%s, %d questions, closed loop, medians of %d rounds of %g s" % (
        arguments.config, len(bodies), ROUNDS, arguments.seconds))
    print("%8s %-18s %10s %8s %8s %18s %12s" % ("clients", "server", "answers/s", "p50 ms", "p99 ms",
                                                "batching's rate", "its p99"))
    for clients in CLIENTS:
        rounds: List[List[List[float]]] = [[] for _ in servers]
        for _ in range(ROUNDS):
            for server, numbers in zip(servers, rounds):
                load = await closed_loop(server.port, bodies, clients, arguments.seconds)
                assert all(status == 200 for status, _ in load.answers), "not every request was answered"
                numbers.append([load.rate(), *np.percentile(load.latencies(200), [50, 99])])
        ours = np.median(rounds[0], axis=0)
        for name, numbers in zip(SERVERS, rounds):
            theirs = np.median(numbers, axis=0)
            print("%8d %-18s %10.1f %8.1f %8.1f %17.2f× %11.2f×" % (
                clients, name, *theirs, ours[0] / theirs[0], ours[2] / theirs[2]), flush=True)
        for column, unit in enumerate(("answers/s", "p50 ms", "p99 ms")):
            results.append(arguments.results, "server_load", "%d clients" % clients, unit, {
                results.OURS if name == "batching" else name: [numbers[column] for numbers in found]
                for name, found in zip(SERVERS, rounds)})
        capacity = max(capacity, ours[0])
    batched = servers[0]
    for server in servers[1:]:
        server.stop()
    memory = batched.memory()
    soak = await open_loop(batched.port, bodies, 0.8 * capacity, arguments.soak_seconds, batched)
    print("open loop, 80 %% of %.1f/s, %g s: %s" % (capacity, arguments.soak_seconds, soak.describe()))
    print("  memory before %.0f MB; then %s"
          % (memory, " ".join("%.0f" % value for value in batched.memories)), flush=True)
    cpu = batched.cpu_seconds()  # anew, just before: other work on a shared machine comes and goes
    alone = await closed_loop(batched.port, bodies, 32, arguments.seconds)
    per_cpu_second, capacity = len(alone.latencies(200)) / (batched.cpu_seconds() - cpu), alone.rate()
    cpu = batched.cpu_seconds()
    overload = await open_loop(batched.port, bodies, 3 * capacity, arguments.overload_seconds)
    cpu = batched.cpu_seconds() - cpu
    print("open loop, 3 × %.1f/s, %g s: %s" % (capacity, arguments.overload_seconds, overload.describe()))
    print("  %.0f %% of capacity; refused within p50 %.1f ms, p99 %.1f ms" % (
        100 * overload.rate() / capacity, *np.percentile(overload.latencies(503), [50, 99])))
    print("  the server had %.2f cores, the generator, beside it, the rest; answers for each CPU-second of "
          "the server: %.0f, at 32 clients %.0f" % (cpu / overload.seconds,
                                                    len(overload.latencies(200)) / cpu, per_cpu_second))
    after = await closed_loop(batched.port, bodies, 1, 5)
    print("one client right after: %s" % after.describe(), flush=True)


class Server:
    """A server in a process of its own, at any free ports."""

    def __init__(self, folder: str, *flags: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--model_base_path", os.path.join(folder, "export"),
             "--port", "0", "--rest_api_port", "0", "--access_log", "false", *flags],
            cwd=ROOT, stdout=subprocess.PIPE)
        self.port = int(re.search(rb"http://127\.0\.0\.1:(\d+)", self._process.stdout.readline()).group(1))
        self.memories: List[float] = []

    def memory(self) -> float:
        """Resident megabytes."""
        return self._metric(b"process_resident_memory_bytes") / 1e6

    def cpu_seconds(self) -> float:
        return self._metric(b"process_cpu_seconds_total")

    def _metric(self, name: bytes) -> float:
        with urllib.request.urlopen("http://127.0.0.1:%d/monitoring/prometheus/metrics"
                                    % self.port) as answer:
            return float(re.search(rb"^%s (\S+)" % name, answer.read(), re.M).group(1))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time. No streams and no task for each request: the
    generator shares the server's machine, and what it takes the server does not have."""

    def __init__(self) -> None:
        self.is_open = False
        self._received = b""
        self._answer: Any = None

    @classmethod
    async def to(cls, port: int) -> "Connection":
        return (await asyncio.get_event_loop().create_connection(cls, "127.0.0.1", port))[1]

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status of the answer; 0 when the server closes the connection, as it does where it was idle."""
        self._answer = asyncio.get_event_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) == int(re.search(rb"content-length: (\d+)", head).group(1)):
            self._received = b""
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Any) -> None:
        self.is_open = False
        if self._answer and not self._answer.done():
            self._answer.set_result(0)


async def closed_loop(port: int, bodies: List[bytes], clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it is answered."""
    answers: List[Tuple[int, float]] = []
    start = time.perf_counter()

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        connection = await Connection.to(port)
        while time.perf_counter() < start + seconds:
            asked = time.perf_counter()
            status = await connection.ask(rng.choice(bodies))
            answers.append((status, time.perf_counter() - asked))
        connection.close()
    await asyncio.gather(*[client(number) for number in range(clients)])
    return Load(time.perf_counter() - start, answers)


async def open_loop(port: int, bodies: List[bytes], rate: float, seconds: float, watched: Any = None) -> Load:
    """Asks at random times, `rate` a second, whether or not the server keeps up; the memory of `watched`
    20 times."""
    rng = random.Random(0)
    answers: List[Tuple[int, float]] = []
    free: List[Connection] = []
    num_open = 0
    start = next_time = time.perf_counter()
    watch_times = [start + seconds * part / 20 for part in range(1, 21)] if watched else []
    pending = set()

    def ask(connection: Connection, due: float) -> None:
        def answered(answer: "asyncio.Future[int]") -> None:
            pending.discard(answer)
            answers.append((answer.result(), time.perf_counter() - due))
            free.append(connection)
        answer = connection.ask(rng.choice(bodies))
        pending.add(answer)
        answer.add_done_callback(answered)

    while next_time < start + seconds:
        await asyncio.sleep(max(0.0, next_time - time.perf_counter()))
        while free and not free[-1].is_open:   # it was idle
            free.pop()
            num_open -= 1
        if free:
            ask(free.pop(), next_time)
        elif num_open < MAX_CONNECTIONS:
            num_open += 1
            ask(await Connection.to(port), next_time)
        else:
            answers.append((0, 0.0))
        next_time += rng.expovariate(rate)
        if watch_times and time.perf_counter() > watch_times[0]:
            watch_times.pop(0)
            watched.memories.append(await asyncio.get_event_loop().run_in_executor(None, watched.memory))
    spent = time.perf_counter() - start
    await asyncio.gather(*pending)
    for connection in free:
        connection.close()
    return Load(spent, answers)


def read_bodies(path: str) -> List[bytes]:
    """A whole HTTP request for each pair of the file's first two columns."""
    with open(path, encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream]
    found = []
    for row in rows:
        if len(row) > 1 and row[0] != "text_a":
            body = json.dumps({"instances": [{"text_a": row[0], "text_b": row[1]}]},
                              ensure_ascii=False).encode("utf-8")
            found.append(b"POST /v1/models/%s:predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: "
                         b"application/json\r\n"
                         b"content-length: %d\r\n\r\n%s" % (MODEL_NAME.encode(), len(body), body))
    return found


if __name__ == "__main__":
    sys.exit(main())
