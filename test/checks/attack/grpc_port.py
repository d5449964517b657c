"""Connections and calls that hold a gRPC port: idle, half-sent, slow, too many, malformed, floods, unread
answers, bombs of gzip and of headers, calls whose clients have gone; and the server's end meanwhile.

  python test/checks/attack/grpc_port.py
"""
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from target import Outcome, Server, end

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
PREDICT = "/tensorflow.serving.PredictionService/Predict"
CHECK = "/grpc.health.v1.Health/Check"
MESSAGE = 4 << 20


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header that is in no table (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(number(len(text)) + text for text in (name.encode(), value.encode()))


def number(value):
    if value < 127:
        return bytes([value])
    found, value = b"\x7f", value - 127
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def headers(stream, path=PREDICT, end=False, extra=b""):
    block = b"".join(literal(*pair) for pair in (
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers"),
        ("content-type", "application/grpc"))) + extra
    return frame(HEADERS, 4 | end, stream, block)


def message_head(size):
    return b"\0" + struct.pack(">I", size)


def connect(server, greet=True):
    sock = socket.create_connection(("127.0.0.1", server.grpc_port), timeout=10)
    if greet:
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return sock


def half_sent(stream, size=MESSAGE, sent=1000):
    """A call of which the beginning has come, in frames of at most 16 KiB."""
    body = message_head(size - 5) + b"\0" * (sent - 5)
    return headers(stream) + b"".join(frame(DATA, 0, stream, body[at:at + 16384])
                                      for at in range(0, len(body), 16384))


def predict_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "albert"
    for name in ("text_a", "text_b"):
        request.inputs[name].dtype = 7
        request.inputs[name].tensor_shape.dim.add(size=1)
        request.inputs[name].string_val.append(b"x")
    return request


def answers(server, seconds=10.0):
    """What a new client gets within so many seconds: of gRPC's health, of Predict, of /healthz."""
    found = []
    with grpc.insecure_channel("127.0.0.1:%d" % server.grpc_port,
                               options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for ask in (lambda: health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(),
                                                                      timeout=seconds),
                    lambda: prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
                        predict_request(), timeout=seconds),
                    lambda: urllib.request.urlopen("http://127.0.0.1:%d/healthz" % server.rest_port,
                                                   timeout=seconds).read()):
            start = time.perf_counter()
            try:
                ask()
                found.append("%.0f ms" % ((time.perf_counter() - start) * 1000))
            except (grpc.RpcError, OSError) as error:
                found.append(error.code().name if isinstance(error, grpc.RpcError) else type(error).__name__)
    return all(text.endswith("ms") for text in found), "health %s, Predict %s, /healthz %s" % tuple(found)


def send_window_by_window(sockets, wanted, seconds):
    """Sends each socket's `wanted` bytes as fast as HTTP/2's windows let it, reading what comes; returns the
    bytes sent.

    Half-sent calls need more than the first window of 64 KiB: the server's WINDOW_UPDATEs say how much.
    """
    selector = selectors.DefaultSelector()
    states = {}
    for sock in sockets:
        sock.setblocking(False)
        states[sock] = {"out": b"", "sent": 0, "window": 65535, "stream": {}, "in": b""}
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    total, end = 0, time.monotonic() + seconds
    payload = b"\0" * 16384
    while states and time.monotonic() < end:
        progressed = False
        for key, events in selector.select(0.2):
            sock, state = key.fileobj, states[key.fileobj]
            try:
                if events & selectors.EVENT_READ:
                    data = sock.recv(65536)
                    if not data:
                        raise OSError("closed")
                    read_windows(state, data)
                    progressed = True
                if events & selectors.EVENT_WRITE:
                    if not state["out"]:
                        state["out"] = next_frames(state, wanted, payload)
                    if state["out"]:
                        count = sock.send(state["out"])
                        state["out"] = state["out"][count:]
                        total += count
                        progressed = True
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(sock)
                sock.close()
                del states[sock]
        if not progressed:
            time.sleep(0.02)
    selector.close()
    return total


def read_windows(state, data):
    data = state["in"] + data
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        if len(data) < 9 + length:
            break
        kind, stream = data[3], int.from_bytes(data[5:9], "big")
        if kind == WINDOW_UPDATE:
            increment = int.from_bytes(data[9:13], "big")
            if stream:
                state["stream"][stream] = state["stream"].get(stream, 65535) + increment
            else:
                state["window"] += increment
        if kind == SETTINGS and not data[4] & 1:
            state["out"] += frame(SETTINGS, 1, 0) if not state["out"] else b""
        data = data[9 + length:]
    state["in"] = data


def next_frames(state, wanted, payload):
    """One frame of the call that has come least, of those in `wanted`: bytes by stream."""
    sent = state.setdefault("by_stream", {})
    for stream, size in wanted.items():
        if stream not in sent:
            sent[stream] = 5
            state["window"] -= 5
            return headers(stream) + frame(DATA, 0, stream, message_head(MESSAGE - 5))
        room = min(state["window"], state["stream"].get(stream, 65535) - sent[stream], size - sent[stream],
                   16384)
        if room > 0:
            sent[stream] += room
            state["window"] -= room
            return frame(DATA, 0, stream, payload[:room])
    return b""


def attack_idle_connections(outcome):
    with Server("grpc_idle", "--access_log", "false", limit_files=1024) as server:
        for name, greet in (("that say nothing", False), ("that greet", True)):
            sockets = []
            for _ in range(1500):
                try:
                    sockets.append(connect(server, greet))
                except OSError:
                    break
            held, detail = answers(server)
            descriptors = len(os.listdir("/proc/%d/fd" % server.process.pid))
            outcome.tell("%d idle connections %s, 1,024 descriptors" % (len(sockets), name), held,
                         "%s; %d descriptors" % (detail, descriptors))
            for sock in sockets:
                sock.close()


def attack_half_sent(outcome):
    with Server("grpc_half_sent", "--access_log", "false") as server:
        answers(server)
        for name, num_connections, wanted in (
                ("1,000 connections, one call of 4 MiB each", 1000, {1: MESSAGE - 1}),
                ("100 connections, 100 calls of 64 KiB each", 100,
                 {2 * index + 1: 65000 for index in range(100)}),
                ("1 connection, 100 calls of 4 MiB", 1,
                 {2 * index + 1: MESSAGE - 1 for index in range(100)})):
            before = server.megabytes()
            sockets = []
            for _ in range(num_connections):
                try:
                    sockets.append(connect(server))
                except OSError:
                    break
            sent = send_window_by_window(sockets, wanted, 12)
            more = server.megabytes(peak=True) - before
            held, detail = answers(server)
            outcome.tell("half-sent: " + name, held and more < 1000, "%.0f MB sent, %+.0f MB at most; %s"
                         % (sent / 1e6, more, detail))
            for sock in sockets:
                sock.close()


def attack_calls_in_number(outcome):
    """More calls than --max_grpc_calls, none of which has come whole."""
    with Server("grpc_calls", "--access_log", "false", "--max_grpc_calls", "200",
                "--grpc_receive_timeout_in_ms", "3000") as server:
        answers(server)
        for path in (PREDICT, CHECK):
            sockets = [connect(server) for _ in range(50)]
            for sock in sockets:
                sock.sendall(b"".join(headers(2 * index + 1, path) for index in range(100)))
            time.sleep(1)
            held, detail = answers(server)
            outcome.tell("5,000 calls to %s without a request" % path.rsplit("/")[-1], held, detail)
            for sock in sockets:
                sock.close()
        with connect(server) as sock:
            sock.sendall(half_sent(1))
            found, start = b"", time.monotonic()
            sock.settimeout(8)
            try:
                while (b"did not arrive completely" not in found.replace(b"%20", b" ")
                       and time.monotonic() - start < 8):
                    found += sock.recv(65536)
            except OSError:
                pass
            outcome.tell("a half-sent call ends after its time",
                         b"did not arrive completely" in found.replace(b"%20", b" "),
                         "%.1f s" % (time.monotonic() - start))


def attack_malformed(outcome):
    with Server("grpc_malformed", "--access_log", "false") as server, grpc.insecure_channel(
            "127.0.0.1:%d" % server.grpc_port, options=[("grpc.max_send_message_length", -1)]) as channel:
        answers(server)
        before = os.path.getsize(server.log_path)
        codes = set()
        services = {"tensorflow.serving.PredictionService": ("Predict", "Classify", "GetModelMetadata"),
                    "tensorflow.serving.ModelService": ("GetModelStatus",),
                    "grpc.health.v1.Health": ("Check",)}
        for service, methods in services.items():
            for method in methods:
                for body in (b"\xff", b"\x0a\x05", b"\x0a\x03\x0a\x01\xff", b"\x12\xff\xff\xff\xff\x0f",
                             b"\x0b" * 200) * 20:
                    codes.add(code_of(channel, "/%s/%s" % (service, method), body))
        outcome.tell("malformed requests", codes == {"INVALID_ARGUMENT"}, ", ".join(sorted(codes)))
        bad = bytes.fromhex("121a0a180a0c0a130a110a06746578745f610a088080808080808080")
        for method in ("Classify", "Regress", "MultiInference"):
            codes = {code_of(channel, "/tensorflow.serving.PredictionService/" + method, body)
                     for body in (bad, b"\x12\x04\x0a\x02\x0a\x05") * 300}
            outcome.tell("malformed examples of " + method, codes == {"INVALID_ARGUMENT"},
                         ", ".join(sorted(codes)))
        request = predict_request()
        request.model_spec.signature_name = "examples"
        for name in ("text_a", "text_b"):
            del request.inputs[name]
        request.inputs["examples"].dtype = 7
        request.inputs["examples"].tensor_shape.dim.add(size=1)
        codes = {code_of(channel, PREDICT, request.SerializeToString()) for _ in range(20)}
        outcome.tell("texts without values", codes == {"INVALID_ARGUMENT"}, ", ".join(sorted(codes)))
        with connect(server) as sock:
            for stream in range(1, 1001, 2):
                sock.sendall(
                    headers(stream, extra=literal("grpc-timeout", "x") + literal("grpc-encoding", "zz"))
                    + frame(DATA, 1, stream, message_head(0)))
                time.sleep(0.002)
        codes = {code_of(channel, path, b"x")
                 for path in ("/x/y", "/", "x", "/" + "x" * 6000, "/grpc.health.v1.Health/X") * 40}
        outcome.tell("methods that are none", codes <= {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "UNKNOWN"},
                     ", ".join(sorted(codes)))
        codes = {code_of(channel, PREDICT, b"\0" * (MESSAGE + 1))}
        outcome.tell("a message too large", codes == {"RESOURCE_EXHAUSTED"}, ", ".join(codes))
        with urllib.request.urlopen("http://127.0.0.1:%d/monitoring/prometheus/metrics"
                                    % server.rest_port) as answer:
            lines = answer.read().count(b"serving_request_seconds_count")
        written = os.path.getsize(server.log_path) - before
        outcome.tell("what they leave", written < 1000 and lines < 20 and answers(server)[0],
                     "%d bytes of log, %d series of metrics" % (written, lines))


def attack_unread(outcome):
    """Clients that open no window for their answers, which then wait in the server."""
    window = frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0")
    status = b"\x0a\x08\x0a\x06albert"
    metadata = status + b"\x12\x0dsignature_def"
    for name, connections, calls, path, body in (
            ("300 connections, one answer each", 300, 1, "/tensorflow.serving.ModelService/GetModelStatus",
             status), ("250 connections, 127 answers each", 250, 127,
                       "/tensorflow.serving.PredictionService/GetModelMetadata", metadata)):
        with Server("grpc_unread", "--access_log", "false") as server:
            answers(server)
            before = server.megabytes()
            sockets = []
            for _ in range(connections):
                sockets.append(connect(server, greet=False))
                try:
                    sockets[-1].sendall(PREFACE + window + b"".join(headers(2 * index + 1, path) + frame(
                        DATA, 1, 2 * index + 1, message_head(len(body)) + body) for index in range(calls)))
                except OSError:
                    pass
            time.sleep(20 if calls > 1 else 3)
            held, detail = answers(server)
            more = server.megabytes(peak=True) - before
            seconds, _ = end(server.process, 40)
            outcome.tell("unread: " + name, held and more < 600 and seconds < 12,
                         "%+.0f MB at most; %s; ended in %.1f s" % (more, detail, seconds))
            for sock in sockets:
                sock.close()


def attack_bombs(outcome):
    with Server("grpc_bombs", "--access_log", "false") as server:
        answers(server)
        for name, bits in (("gzip", 31), ("deflate", 15)):
            before = server.megabytes()
            compressor = zlib.compressobj(9, zlib.DEFLATED, bits)
            data = b"".join([compressor.compress(bytes(1 << 20)) for _ in range(1000)] + [compressor.flush()])
            found = [send_compressed(server, name, data) for _ in range(3)]
            more = server.megabytes(peak=True) - before
            outcome.tell("1,000 MB as %.1f MB of %s" % (len(data) / 1e6, name),
                         more < 60 and all(found) and answers(server)[0],
                         "%+.0f MB, %s" % (more, "refused" if all(found) else "not refused"))
        entry = b"\x40\x03abc" + number(3900) + b"v" * 3900
        for name, extra in (("an entry of 3.9 KB, 11,000 times", entry + b"\xbe" * 11000),
                            ("15,000 of the static table", b"\x82" * 15000),
                            ("an entry of two bytes, 15,000 times", b"\x40\x01a\x01b" + b"\xbe" * 15000),
                            ("names and values without bytes", b"\0\0\0" * 5000)):
            tell_flood(outcome, "headers: " + name, server, lambda stream: headers(stream, extra=extra),
                       seconds=5, asked_after=3, max_megabytes=100)


def send_compressed(server, encoding, data):
    """Whether a request is refused for what it would become."""
    with connect(server) as sock:
        sock.settimeout(10)
        sock.sendall(headers(1, extra=literal("grpc-encoding", encoding)))
        body, windows, found = b"\1" + struct.pack(">I", len(data)) + data, {0: 65535, 1: 65535}, b""
        try:
            while b"larger than max" not in found:
                size = min(16384, len(body), *windows.values())
                if size:
                    sock.sendall(frame(DATA, size == len(body), 1, body[:size]))
                    body = body[size:]
                    windows = {stream: room - size for stream, room in windows.items()}
                    continue
                came = sock.recv(65536)
                if not came:
                    return False
                found += came
                while (len(found) >= 9 and len(found) >= 9 + int.from_bytes(found[:3], "big")
                       and b"larger than max" not in found):
                    end = 9 + int.from_bytes(found[:3], "big")
                    if found[3] == WINDOW_UPDATE:
                        windows[found[8]] += int.from_bytes(found[9:13], "big")
                    found = found[end:]
        except OSError:
            return False
        return True


def attack_leaving(outcome):
    """Clients that do not wait for their answers: ordinary ones with short deadlines, and those that are
    cut off."""
    with Server("grpc_leaving", "--access_log", "false", "--max_grpc_calls", "20") as server:
        answers(server)
        before, late = os.path.getsize(server.log_path), []
        threads = [threading.Thread(target=call_briefly, args=(server, late)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        body = predict_request().SerializeToString()
        for is_whole in (0, 1):                # the half-sent ones give way to each other
            for _ in range(100):
                with connect(server) as sock:
                    sock.sendall(b"".join(headers(stream) + frame(
                        DATA, is_whole, stream, message_head(len(body)) + body[:len(body) - 1 + is_whole])
                                          for stream in range(1, 61, 2)))
                    time.sleep(0.01)
        time.sleep(1)
        held, detail = answers(server)
        written = os.path.getsize(server.log_path) - before
        outcome.tell("%d deadlines that passed, 6,000 calls cut off" % len(late), held and not written,
                     "%d bytes of log; %s" % (written, detail))


def call_briefly(server, late):
    request = predict_request()
    request.inputs["text_a"].string_val[0] = b"x" * 10000
    with grpc.insecure_channel("127.0.0.1:%d" % server.grpc_port,
                               options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for index in range(250):
            try:
                prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(
                    request, timeout=0.002 * (1 + index % 10))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    late.append(index)


def code_of(channel, path, body):
    try:
        channel.unary_unary(path)(body, timeout=20)
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


def attack_floods(outcome):
    with Server("grpc_floods", "--access_log", "false") as server:
        answers(server)
        floods = {
            "rapid reset": lambda stream: headers(stream) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08"),
            "pings": lambda stream: frame(PING, 0, 0, b"x" * 8),
            "settings": lambda stream: frame(SETTINGS, 0, 0),
            "window updates": lambda stream: frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
            "data of one byte": lambda stream: headers(1) if stream == 1 else frame(DATA, 0, 1, b"x"),
            "empty data": lambda stream: frame(DATA, 0, 1),
            "unknown frames": lambda stream: frame(99, 0, 0, b"x"),
            "priorities": lambda stream: frame(PRIORITY, 0, stream, b"\0\0\0\0\x01"),
            "headers without end": lambda stream: frame(CONTINUATION, 0, 1,
                                                        b"x" * 100) if stream > 1 else frame(HEADERS, 0, 1),
            "large headers": lambda stream: headers(stream, extra=literal("x", "x" * 15000)),
            "calls without end": lambda stream: headers(stream)}
        for name, make in floods.items():
            tell_flood(outcome, "flood of " + name, server, make, seconds=3, asked_after=2, max_megabytes=300)


def tell_flood(outcome, name, server, make, seconds, asked_after, max_megabytes):
    """Four threads send frames for so many seconds; meanwhile another client asks."""
    before, ending, sent = server.megabytes(), time.monotonic() + seconds, [0]
    threads = [threading.Thread(target=flood, args=(server, make, ending, sent)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(asked_after)
    held, detail = answers(server)
    for thread in threads:
        thread.join()
    more = server.megabytes(peak=True) - before
    outcome.tell(name, held and more < max_megabytes, "%d sent, %+.0f MB; %s" % (sent[0], more, detail))


def flood(server, make, ending, sent):
    while time.monotonic() < ending:
        try:
            with connect(server) as sock:
                sock.settimeout(0.5)
                stream = 1
                while time.monotonic() < ending:
                    sock.sendall(b"".join(make(stream + 2 * index) for index in range(50)))
                    stream += 100
                    sent[0] += 50
        except OSError:                        # closed, or not read any longer
            time.sleep(0.01)


CALLER = """
import sys, threading, time
import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
counts, lost = [0, 0], []
channel = grpc.insecure_channel("127.0.0.1:" + sys.argv[1])
ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
request = get_model_status_pb2.GetModelStatusRequest()
request.model_spec.name = "albert"
def call():
    while True:
        try:
            ask(request, timeout=20)
            counts[0] += 1
        except grpc.RpcError as error:
            if "connect" in error.details().lower():     # never reached the server
                counts[1] += 1
                return
            lost.append("%s: %s" % (error.code().name, error.details()))
            return
ask(request, timeout=20)
print("calls", flush=True)
threads = [threading.Thread(target=call) for _ in range(16)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("%d answered, %d refused, %d lost %s" % (*counts, len(lost), lost[:2]), flush=True)
"""


def attack_end(outcome):
    for _ in range(2):
        with Server("grpc_end", "--access_log", "false") as server:
            stalled = [connect(server, greet) for greet in (True, False)]
            watching = connect(server)
            watching.sendall(headers(1, "/grpc.health.v1.Health/Watch") + frame(DATA, 1, 1, message_head(0)))
            caller = subprocess.Popen([sys.executable, "-W", "ignore", "-c", CALLER, str(server.grpc_port)],
                                      stdout=subprocess.PIPE, cwd=os.path.dirname(server.log_path))
            caller.stdout.readline()
            time.sleep(1)
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            found = caller.communicate(timeout=60)[0].decode().strip()
            try:
                status = server.process.wait(20)
            except subprocess.TimeoutExpired:
                status = "still alive"
            outcome.tell("SIGTERM while 16 threads call", " 0 lost" in found and status == 0,
                         "%s; exit status %s after %.1f s" % (found, status, time.monotonic() - start))
            for sock in (*stalled, watching):
                sock.close()


def main() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 8192 else 8192, hard))
    outcome = Outcome()
    attacks = (attack_idle_connections, attack_half_sent, attack_calls_in_number, attack_malformed,
               attack_floods, attack_unread, attack_bombs, attack_leaving, attack_end)
    for attack in attacks:
        if len(sys.argv) < 2 or attack.__name__[7:] in sys.argv[1:]:
            attack(outcome)
    return outcome.status()


if __name__ == "__main__":
    raise SystemExit(main())
