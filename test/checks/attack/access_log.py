"""Attacks the logs: whoever should read standard output or standard error does not, goes away, or has
no room.

  python test/checks/attack/access_log.py
"""
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import target

REQUESTS = 20000  # their lines are more than a pipe and the server's own bound hold
LONG_PATH = "/" + "x" * 1000
END_SECONDS = 10
CALLS = 1000
# A tf.Example whose feature has a name that is no UTF-8, as libprotobuf says on standard error, and more of
# gRPC's own words than a pipe holds.
CLASSIFY, BAD = ("/tensorflow.serving.PredictionService/Classify",
                 bytes.fromhex("121a0a180a0c0a130a110a06746578745f610a088080808080808080"))
TALKATIVE = {"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "api,http,channel"}


def start(environment=(), **streams):
    """A server with such streams, its port; standard output must be a pipe or a file that can be read."""
    target.export_model(os.path.join(target.FOLDER, "export"))
    return subprocess.Popen([sys.executable, "-m", "serving.server", "--model_base_path",
                             os.path.join(target.FOLDER, "export"), "--port", "0", "--rest_api_port", "0"],
                            cwd=target.ROOT,
                            env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="2", **dict(environment)), **streams)


def port_of(line):
    return int(re.search(rb"http://\S+?:(\d+)", line).group(1))


def ask(port, path, seconds=10):
    try:
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path), timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def ask_many(port, path, count):
    """Over one connection; how many were answered."""

    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
    answered = 0
    with socket.create_connection(("127.0.0.1", port),
                                  timeout=10) as connection, connection.makefile("rb") as stream:
        try:
            for _ in range(count):
                connection.sendall(request)
                length = 0
                for header in iter(stream.readline, b"\r\n"):
                    if not header:
                        return answered
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                stream.read(length)
                answered += 1
        except OSError:
            pass
    return answered


def lost_lines(port):
    found = re.search(rb"^serving_lost_log_lines_total (\S+)", ask(port, "/monitoring/prometheus/metrics")[1],
                      re.M)
    return float(found.group(1)) if found else -1.0


def attack(outcome, name, process, port, wants_lost):
    try:
        answered = ask_many(port, LONG_PATH, REQUESTS if wants_lost else 500)
        health, lost = ask(port, "/healthz")[0], lost_lines(port)
        seconds, status = target.end(process, END_SECONDS)
        held = answered == (REQUESTS if wants_lost
                            else 500) and health == 200 and status == 0 and (lost > 0) == wants_lost
        outcome.tell(name, held, "%d answered, /healthz %s, %d lines lost, SIGTERM: status %s after %.1f s"
                     % (answered, health, lost, status, seconds))
    finally:
        process.kill()
        process.wait()


def call_many(port):
    """How many calls of gRPC with a body that libraries complain of were answered."""
    answered = 0
    with grpc.insecure_channel("127.0.0.1:%d" % port) as channel:
        for _ in range(CALLS):
            try:
                channel.unary_unary(CLASSIFY)(BAD, timeout=5)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    return answered
            answered += 1
    return answered


def main() -> int:
    outcome = target.Outcome()
    process = start(stdout=subprocess.PIPE)
    attack(outcome, "standard output that nobody reads", process, port_of(process.stdout.readline()),
           wants_lost=True)

    process = start(stdout=subprocess.PIPE)
    port = port_of(process.stdout.readline())
    process.stdout.close()
    attack(outcome, "standard output whose reader has gone", process, port, wants_lost=True)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)     # full before the server's first word
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)
    process = start(stdout=subprocess.PIPE, stderr=writing)
    line = process.stdout.readline()
    attack(outcome, "standard error that nobody reads", process, port_of(line), wants_lost=False)
    os.close(reading)
    os.close(writing)

    process = start(TALKATIVE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = process.stdout.readline()
    answered = call_many(int(line.rsplit(b":", 1)[1]))
    outcome.tell("libraries that write to standard error that nobody reads", answered == CALLS,
                 "%d of %d calls answered" % (answered, CALLS))
    attack(outcome, "and REST meanwhile", process, port_of(line), wants_lost=False)

    path = os.path.join(target.FOLDER, "access.log")
    with open(path, "wb") as log:
        process = start(stdout=log)
        while not os.path.getsize(path):
            time.sleep(0.1)
    with open(path, "rb") as log:
        port = port_of(log.readline())
    ask_many(port, "/healthz", 3000)
    seconds, status = target.end(process, END_SECONDS)
    with open(path, "rb") as log:
        lines = log.read().splitlines()
    times = [float(found) for found in re.findall(rb'"time":([0-9.]+)', b"\n".join(lines))]
    outcome.tell("a log that is read is whole and in order",
                 len(times) == 3000 and times == sorted(times) and lines[-1].startswith(b"Shutting down")
                 and status == 0, "%d of 3000 lines, status %s after %.1f s" % (len(times), status, seconds))
    os.remove(path)
    return outcome.status()


if __name__ == "__main__":
    raise SystemExit(main())
