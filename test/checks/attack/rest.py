"""Attacks REST: framing tricks, what memory may be made to hold, idle connections, pages of others, and the
end under load.

  python test/checks/attack/rest.py           # three minutes;  --ends 20  for more ends
"""
import argparse
import asyncio
import contextlib
import gzip
import json
import resource
import select
import socket
import struct
import threading
import time

import target

PREDICT = b"/v1/models/albert:predict"
BODY = '{"instances": [{"text_a": "手机没信号怎么办", "text_b": ""}]}'.encode("utf-8")
GOOD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PREDICT, len(BODY), BODY)
BEHIND = b"GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"  # what a trick wants to be read as a request of its own
MIB = 1 << 20


def post(*fields, body=b"", line=b"POST %s HTTP/1.1" % PREDICT, host=b"Host: x"):
    return b"\r\n".join([line, host, *fields, b"",
                         body]) if host else b"\r\n".join([line, *fields, b"", body])


GZIPPED = gzip.compress(BEHIND)
CHUNKED, LENGTH = b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(BEHIND)
TRICKS = {
    "chunk ends with XX": post(CHUNKED, body=b"2\r\n{}XX0\r\n\r\n"),
    "chunk ends with LF": post(CHUNKED, body=b"2\r\n{}\n0\r\n\r\n"),
    "chunk ends with CR CR": post(CHUNKED, body=b"2\r\n{}\r\r0\r\n\r\n"),
    "chunk too long": post(CHUNKED, body=b"1\r\n{}\r\n0\r\n\r\n"),
    "chunk size 0x2": post(CHUNKED, body=b"0x2\r\n{}\r\n0\r\n\r\n"),
    "chunk size +2": post(CHUNKED, body=b"+2\r\n{}\r\n0\r\n\r\n"),
    "chunk size -1": post(CHUNKED, body=b"-1\r\n{}\r\n0\r\n\r\n"),
    "chunk size of 17 digits": post(CHUNKED, body=b"1" + b"0" * 16 + b"\r\n"),
    "chunk size with a space": post(CHUNKED, body=b"2 \r\n{}\r\n0\r\n\r\n"),
    "chunk size 2_0": post(CHUNKED, body=b"2_0\r\n"),
    "LF in an extension": post(CHUNKED, body=b"2;a\nb\r\n{}\r\n0\r\n\r\n"),
    "CR in an extension": post(CHUNKED, body=b"2;a\rb\r\n{}\r\n0\r\n\r\n"),
    "size line ends with LF": post(CHUNKED, body=b"2\n{}\r\n0\r\n\r\n"),
    "trailer without colon": post(CHUNKED, body=b"0\r\nx\r\n\r\n"),
    "folded trailer": post(CHUNKED, body=b"0\r\nx: a\r\n b\r\n\r\n"),
    "NUL in a trailer": post(CHUNKED, body=b"0\r\nx: \0\r\n\r\n"),
    "both lengths": post(CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    "both lengths, turned": post(LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 0", LENGTH), "two equal lengths": post(LENGTH, LENGTH),
    "a list of lengths": post(LENGTH + b", 4"), "length +5": post(b"Content-Length: +5"),
    "length -5": post(b"Content-Length: -5"), "length 5 5": post(b"Content-Length: 5 5"),
    "length 0x5": post(b"Content-Length: 0x5"), "no length": post(b"Content-Length:"),
    "length 1_0": post(b"Content-Length: 1_0"), "length of 30 digits": post(b"Content-Length: " + b"9" * 30),
    "length, space, colon": post(b"Content-Length : 5"), "length, tab, colon": post(b"Content-Length\t: 5"),
    "length after a vertical tab": post(b"\x0bContent-Length: 5"),
    "length after CR": post(b"x: y\rContent-Length: 5"), "length after LF": post(b"x: y\nContent-Length: 5"),
    "length after NUL": post(b"x: y\0Content-Length: 5"), "xchunked": post(b"Transfer-Encoding: xchunked"),
    "identity": post(b"Transfer-Encoding: identity"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked"), "chunked in two": post(CHUNKED, CHUNKED),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity"),
    '"chunked"': post(b'Transfer-Encoding: "chunked"'),
    "chunked after a vertical tab": post(b"Transfer-Encoding:\x0bchunked"),
    "chunked, space, colon": post(b"Transfer-Encoding : chunked"),
    "chunked;q=1": post(b"Transfer-Encoding: chunked;q=1"), "no encoding": post(b"Transfer-Encoding:"),
    "chunked in HTTP/1.0": post(CHUNKED, line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"),
    "folded": post(b"x: a", b" Content-Length: 5"), "folded length": post(b"Content-Length:", b" 5"),
    "two hosts": post(b"Host: y"), "no host": post(host=None), "host, space, colon": post(host=b"Host : x"),
    "absolute target": post(line=b"GET http://y/ HTTP/1.1"), "authority": post(line=b"CONNECT y:80 HTTP/1.1"),
    "HTTP/2.0": post(line=b"PRI * HTTP/2.0"),
    "HTTP/1.2": post(line=b"GET / HTTP/1.2"), "HTTP/0.9": b"GET /\r\n\r\n",
    "two spaces": post(line=b"GET  / HTTP/1.1"), "tab": post(line=b"GET\t/ HTTP/1.1"),
    "NUL in the target": post(line=b"GET /\0 HTTP/1.1"), "no colon": post(b"x"), "no name": post(b": x"),
    "space in a name": post(b"x y: z"), "NUL in a value": post(b"x: \0"), "DEL in a name": post(b"x\x7f: y"),
    "bare LF": post().replace(b"\r\n", b"\n"),
    "blank lines": b"\r\n" * 5 + post(), "LF before": b"\n" + post(), "space before": b" " + post(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "many fields": post(*[b"x: y"] * 200), "129 KiB in a head": post(b"x: " + b"y" * 131000),
}
HARMLESS = {
    "a path in UTF-8": post(line="GET /v1/models/模 HTTP/1.1".encode()),
    "a gzipped body": post(b"Content-Encoding: gzip", b"Content-Length: %d" % len(GZIPPED), body=GZIPPED),
    "upgrade": post(b"Upgrade: h2c", b"Connection: Upgrade", LENGTH, body=BEHIND),
    "GET with a body": post(LENGTH, body=BEHIND, line=b"GET /healthz HTTP/1.1"),
    "chunks that hold a request": post(CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(BEHIND), BEHIND)),
    "extension and trailer": post(CHUNKED, body=b"2;a=\"b\"\r\n{}\r\n0\r\nx: y\r\n\r\n"),
    "two blank lines": b"\r\n\r\n" + post(b"Content-Length: 2", body=b"{}"),}


def ask(port, data, seconds=5.0, half_close=False):
    """All that comes back until the server closes or says nothing for so long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while True:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
        except OSError:
            pass
    return answer


def statuses(answer):
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def framing(server, outcome):
    fallen = []
    for name, trick in TRICKS.items():
        got = statuses(ask(server.rest_port, trick + BEHIND))
        if len(got) != 1 or not 400 <= got[0] < 500 or got[0] == 404:
            fallen.append("%s %s" % (name, got))
    for name, request in HARMLESS.items():
        got = ask(server.rest_port, request + GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        if len(statuses(got)) != 2 or statuses(got)[-1] != 200:       # a third is for what is behind
            fallen.append("%s %s" % (name, statuses(got)))
    outcome.tell("framing tricks are refused, and nothing behind them is answered", not fallen,
                 "%d tried%s" % (len(TRICKS) + len(HARMLESS), "".join("; " + each for each in fallen)))


def flood(server, outcome, name, before, piece, limit_mb, num_connections=1, seconds=8, most=400 * MIB):
    """Sends `before` and then `piece` again and again; the server must grow by less than `limit_mb`, and
    answer others."""
    start, sent, end = server.megabytes(), 0, time.monotonic() + seconds
    connections = [socket.create_connection(("127.0.0.1", server.rest_port), timeout=0.5)
                   for _ in range(num_connections)]
    for connection in connections:
        connection.sendall(before)
    while connections and time.monotonic() < end and sent < most:
        for connection in list(connections):
            try:
                connection.sendall(piece)
                sent += len(piece)
            except OSError:
                connections.remove(connection)
    ready, grown = server.is_ready(), server.megabytes() - start
    for connection in connections:
        connection.close()
    outcome.tell(name, ready and grown < limit_mb, "%.0f MB sent, +%.0f MB, others %s"
                 % (sent / 1e6, grown, "answered" if ready else "NOT answered"))


def half_sent(server, outcome, name, request, num_connections, limit_mb):
    """So many connections that each send all of `request` but its last byte, while others ask."""
    start, highest, others = server.megabytes(), 0.0, []

    async def attack():
        nonlocal highest
        writers = []

        async def send():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.rest_port)
                writers.append(writer)
                writer.write(request[:-1])
                await asyncio.wait_for(writer.drain(), 30)
            except (OSError, asyncio.TimeoutError):
                pass
        sending = [asyncio.ensure_future(send()) for _ in range(num_connections)]
        for _ in range(80):
            await asyncio.sleep(0.1)
            highest = max(highest, server.megabytes())
            if len(others) < 20:
                others.append(
                    await asyncio.get_event_loop().run_in_executor(None, ask_once, server.rest_port))
        for task in sending:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
    asyncio.run(attack())
    good = others.count(200)
    outcome.tell(name, good == len(others) and highest - start < limit_mb,
                 "%d connections of %.1f MB: +%.0f MB at most, %d of %d others answered"
                 % (num_connections, len(request) / 1e6, highest - start, good, len(others)))


SLOW = {                                       # what each connection sends at first, and then again and again
    "a body that drips": (post(b"Content-Length: 100000"), b" "),
    "a head that drips": (b"GET / HTTP/1.1\r\nHost: x\r\nx: ", b"y"),
    "a chunk's size that drips": (post(CHUNKED, body=b"1;"), b"x"),
    "a body that drips behind its answer": (post(b"Content-Length: 100000", line=b"POST /none HTTP/1.1"),
                                            b" "),
    "a body that never comes": (post(b"Content-Length: 100000"), b""),
    "answers that nobody reads": (post(line=b"GET /model.json HTTP/1.1") * 3,
                                  post(line=b"GET /model.json HTTP/1.1") * 300),
}


def drip(server, outcome, name, first, further, num_connections=1200, seconds=8):
    """More connections than the server has room for, none of which is silent or goes; those it closes
    come again."""
    connections, asked, good, slowest, end = {}, 0, 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        for number in range(num_connections):
            try:
                if number in connections:
                    connections[number].send(further)
                else:
                    connection = socket.create_connection(("127.0.0.1", server.rest_port), timeout=5)
                    connection.setblocking(False)
                    connection.send(first)
                    connections[number] = connection
            except BlockingIOError:
                pass
            except OSError:
                connections.pop(number, connection).close()
        for _ in range(3):
            start = time.monotonic()
            good += server.is_ready() + (ask_once(server.rest_port) == 200)
            asked += 2
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.1)
    for connection in connections.values():
        connection.close()
    outcome.tell("%d connections with %s" % (num_connections, name), good == asked,
                 "%d of %d others answered, the slowest after %.1f s" % (good, asked, slowest))


def ask_once(port):
    got = statuses(ask(port, GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), seconds=20))
    return got[0] if got else 0


class Client(threading.Thread):
    """Asks all the time over one kept connection, as a load balancer does; opens another after
    `Connection: close`."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.answered, self.lost, self.refused = port, 0, [], 0
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            except OSError:                    # nothing was asked
                self.refused += 1
                return
            with connection, connection.makefile("rb") as stream:
                if not self.ask_all(connection, stream):
                    return

    def ask_all(self, connection, stream):
        while not self.stopping:
            connection.setblocking(False)
            try:
                if connection.recv(1, socket.MSG_PEEK) == b"":
                    return True                # it was closed while nothing was asked
            except BlockingIOError:
                pass
            except OSError:
                return True
            connection.settimeout(60)
            try:
                connection.sendall(GOOD)
                line = stream.readline()
                if not line:
                    raise OSError("no answer")
                headers = {}
                for header in iter(stream.readline, b"\r\n"):
                    name, _, value = header.partition(b":")
                    headers[name] = value.strip()
                stream.read(int(headers[b"content-length"]))
            except OSError as error:
                self.lost.append(str(error))
                return True
            if int(line.split()[1]) == 200:
                self.answered += 1
            else:
                self.lost.append(line.decode())
            if headers.get(b"connection") == b"close":
                return True
        return False


class Pipeline(threading.Thread):
    """Sends five requests in one piece, each time over a new connection, until there is none to be had."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.lost = port, []
        self.start()

    def run(self):
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            except OSError:
                return
            with connection:
                connection.sendall(GOOD * 5)
                answers = b""
                try:
                    piece = connection.recv(65536)
                    while piece:
                        answers += piece
                        piece = answers.count(b"HTTP/1.1 ") < 5 and connection.recv(65536)
                except OSError as error:
                    self.lost.append(str(error))
                if answers.count(b"HTTP/1.1 ") < 5:
                    self.lost.append("%d of 5 in one piece were answered" % answers.count(b"HTTP/1.1 "))


def idle(outcome, limit_files):
    """2,000 connections that say nothing, on a server that may have few descriptors, while others ask."""
    with target.Server("http_idle", "--access_log", "false", limit_files=limit_files) as server:
        clients = [Client(server.rest_port) for _ in range(20)]
        connections = []
        for _ in range(2000):
            connections.append(socket.create_connection(("127.0.0.1", server.rest_port), timeout=20))
        time.sleep(2)
        fresh, ready = ask_once(server.rest_port), server.is_ready()
        for client in clients:
            client.stopping = True
        for client in clients:
            client.join(60)
        lost = [each for client in clients for each in client.lost]
        for connection in connections:
            connection.close()
        outcome.tell("2,000 idle connections%s" % (", %d descriptors" % limit_files if limit_files else ""),
                     not lost and ready and fresh == 200, "%d answers meanwhile, %d lost%s; a new one got %s"
                     % (sum(client.answered for client in clients), len(lost),
                        "".join(": " + each for each in lost[:1]), fresh))


def browsers(server, outcome):
    def status(*fields, host=b"127.0.0.1", line=b"POST %s HTTP/1.1" % PREDICT):
        return statuses(ask(server.rest_port, post(b"Connection: close", b"Content-Length: %d" % len(BODY),
                                                   *fields, body=BODY, host=b"Host: " + host, line=line)))[:1]
    form, typed = b"Content-Type: application/x-www-form-urlencoded", b"Content-Type: application/json"
    other, own = b"Origin: http://evil.example", b"Origin: http://127.0.0.1"
    wanted = [(status(form), 200), (status(), 200), (status(own, form), 200), (status(other, typed), 200),
              (status(other, form), 415), (status(other, b"Content-Type: text/plain"), 415),
              (status(b"Origin: null"), 415), (status(b"Sec-Fetch-Site: cross-site"), 415),
              (status(host=b"evil.example"), 403), (status(host=b"127.0.0.1.evil.example"), 403),
              (status(host=b"localhost:8501"), 200),
              (status(host=b"[::1]:8501"), 200), (status(host=b"evil.example", line=b"GET / HTTP/1.1"), 403),
              (status(other, typed, line=b"OPTIONS %s HTTP/1.1" % PREDICT), 400)]
    wrong = ["%s for %d" % pair for pair in wanted if pair[0] != [pair[1]]]
    outcome.tell("hosts, origins and types", not wrong, "%d tried %s" % (len(wanted), "; ".join(wrong)))
    answers = [ask(server.rest_port, post(b"Connection: close", line=line)).lower()
               for line in (b"GET / HTTP/1.1", b"GET /healthz HTTP/1.1", b"GET /none HTTP/1.1", b"GET /bad")]
    safe = ["nosniff" in answer.decode() and (b"frame-ancestors 'none'" in answer or b" 400 bad" in answer)
            for answer in answers]
    outcome.tell("no sniffing, no frames", all(safe), "of %d answers, %d say so" % (len(answers), sum(safe)))


def closing(server, outcome):
    answers = [ask(server.rest_port, GOOD * count, half_close=True) for count in (1, 1, 1, 5)]
    outcome.tell("who only listens gets every answer",
                 all(statuses(answer) == [200] * count for answer, count in zip(answers, (1, 1, 1, 5))),
                 str([statuses(answer) for answer in answers]))


def computed_rows(server):
    text = ask(server.rest_port, post(b"Connection: close",
                                      line=b"GET /monitoring/prometheus/metrics HTTP/1.1")).decode()
    return sum(float(line.split()[1]) for line in text.split("\r\n\r\n", 1)[1].split("\n")
               if line.startswith("serving_batch_rows_sum"))


def leaving(outcome):
    """Clients that close for good are not computed for, although they look as if they only listened."""
    with target.Server("http_leaving", "--access_log", "false", "--max_text_bytes", "1000000",
                       "--num_batch_threads", "1", "--max_batch_size", "32", "--max_enqueued_batches", "32",
                       "--max_inflight_body_bytes", str(128 * MIB)) as server, \
            contextlib.ExitStack() as stack:
        texts = json.dumps({"signature_name": "encode", "inputs": {"text_a": ["北" * 40000] * 32,
                                                                   "text_b": [""] * 32}}, ensure_ascii=False)
        slow = post(b"Content-Length: %d" % len(texts.encode()), body=texts.encode())
        busy = [stack.enter_context(socket.create_connection(("127.0.0.1", server.rest_port), timeout=60))
                for _ in range(12)]            # a batch each, one after another
        before = computed_rows(server)
        for connection in busy:
            connection.sendall(slow)
        time.sleep(0.3)
        for how in ("close", "reset"):
            for _ in range(10):
                connection = socket.create_connection(("127.0.0.1", server.rest_port))
                if how == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(GOOD)
                time.sleep(0.02)
                connection.close()
        waits = not select.select(busy[-1:], (), (), 0)[0]
        assert waits, "the model was not busy for long enough to tell anything"
        busy[-1].recv(1)
        computed = computed_rows(server) - before - 12 * 32
        outcome.tell("who goes for good is not computed for", computed == 0, "%d of 20 were" % computed)


def ends(outcome, count, num_clients=50):
    answered, lost, slow = 0, [], 0.0
    for number in range(count):
        with target.Server("http_end", "--access_log", "false") as server:
            clients = [Client(server.rest_port) for _ in range(num_clients)]
            pipelines = [Pipeline(server.rest_port) for _ in range(2)]
            kept = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(20)]
            time.sleep(0.5 + 0.05 * number)
            slow = max(slow, target.end(server.process, 60)[0])
            for client in clients:
                client.stopping = True
                client.join(60)
                answered += client.answered
                lost += client.lost
            for pipeline in pipelines:
                pipeline.join(60)
                lost += pipeline.lost
            for connection in kept:
                connection.close()
    outcome.tell("SIGTERM under load", not lost and slow < 10 and answered > 0,
                 "%d ends with %d clients: %d answers, %d lost%s; at most %.1f s"
                 % (count, num_clients, answered, len(lost), "".join(": " + each for each in lost[:1]), slow))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ends", type=int, default=4)
    ends_wanted = parser.parse_args().ends
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    outcome = target.Outcome()
    with target.Server("http", "--access_log", "false") as server:
        framing(server, outcome)
        browsers(server, outcome)
        closing(server, outcome)
        line = b"x: " + b"y" * 60000 + b"\r\n"
        flood(server, outcome, "a head without end", b"GET / HTTP/1.1\r\nHost: x\r\n", line, 20)
        flood(server, outcome, "a head without end behind a request in the same piece",
              GOOD + b"GET / HTTP/1.1\r\nHost: x\r\n", line, 20)
        flood(server, outcome, "a head without end behind a blank line", b"\r\nGET / HTTP/1.1\r\nHost: x\r\n",
              line, 20)
        flood(server, outcome, "blank lines without end", b"\r\n", b"\r\n" * 30000, 20)
        flood(server, outcome, "trailers without end", post(CHUNKED, body=b"0\r\n"), line, 20)
        flood(server, outcome, "small trailers without end", post(CHUNKED, body=b"0\r\n"),
              b"x: y\r\n" * 10000, 20)
        flood(server, outcome, "an extension without end", post(CHUNKED, body=b"2;"), b"y" * 60000, 20)
        flood(server, outcome, "chunks of one byte", post(CHUNKED), b"1\r\n \r\n" * 10000, 20)
        flood(server, outcome, "chunks of eight bytes", post(CHUNKED), b"8\r\n        \r\n" * 5000, 40)
        flood(server, outcome, "pipelined requests, nobody reads", b"", GOOD * 300, 30)
        flood(server, outcome, "pipelined requests on 100 connections", b"",
              b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2000, 150, 100)
        flood(server, outcome, "a body for a path that has none",
              post(b"Content-Length: 999999999999", line=b"GET /healthz HTTP/1.1"), b"y" * 60000, 20)
    big = post(b"Content-Length: %d" % (4 * MIB), body=b" " * (4 * MIB))
    with target.Server("http_bodies", "--access_log", "false") as server:
        half_sent(server, outcome, "half-sent bodies", big, 1000, 250)
        half_sent(server, outcome, "half-sent heads", post(b"x: " + b"y" * 65000)[:-2], 1000, 150)
        outcome.tell("the server lives", server.is_alive() and server.is_ready(),
                     "%.0f MB at most" % server.megabytes(peak=True))
    for name, (first, further) in SLOW.items():
        with target.Server("http_slow", "--access_log", "false") as server:
            drip(server, outcome, name, first, further)
    leaving(outcome)
    idle(outcome, 0)
    idle(outcome, 1024)
    ends(outcome, ends_wanted)
    return outcome.status()


if __name__ == "__main__":
    raise SystemExit(main())
