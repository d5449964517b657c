"""What probes, clients and whoever ends it see of a server that starts, as the first process of its
namespace, as in a container.

  python test/checks/clients/start.py

As root, for the namespace.
"""
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from typing import List, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "attack")]
os.environ["grpc_proxy"] = ""

import grpc
from nginx import free_port
from target import FOLDER as TARGET_FOLDER
from target import ROOT, Outcome, export_model
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

# Seconds after the start. The first ones are within Python's own start: for them the signal is blocked, as by
# the Dockerfile, until there is a handler.
FIRST_MOMENTS, BLOCKING = (0.02, 0.05, 0.1), ("env", "--block-signal=TERM")
MOMENTS = (0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
PATIENCE_SECONDS = 120


class FirstProcess:
    """`serving.server` as process 1 of a namespace of its own, as a context."""

    def __init__(self, *wrapper: str) -> None:
        self._wrapper = wrapper
        self.rest_port, self.grpc_port = free_port(), free_port()

    def __enter__(self) -> "FirstProcess":
        self.begun = time.monotonic()
        self._unshare = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *self._wrapper, sys.executable, "-m",
             "serving.server", "--model_base_path", os.path.join(TARGET_FOLDER, "export"), "--port",
             str(self.grpc_port), "--rest_api_port", str(self.rest_port), "--access_log", "false"],
            cwd=ROOT, stdout=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self._unshare.kill()
        self._unshare.wait()

    def ask(self, method: str, path: str, body: str = "") -> int:
        """The status; 0 when nothing answers within a second."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=1)
        try:
            connection.request(method, path, body or None)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def call(self) -> str:
        """The name of a gRPC call's status."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "albert"
        with grpc.insecure_channel("127.0.0.1:%d" % self.grpc_port) as channel:
            try:
                model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=5)
                return "OK"
            except grpc.RpcError as error:
                return str(error.code().name)

    def end(self) -> Tuple[float, int]:
        """How long SIGTERM took to end it, and its exit status."""
        server = ""
        while not server:
            with open("/proc/%d/task/%d/children" % (self._unshare.pid, self._unshare.pid)) as stream:
                server = stream.read()
        begun = time.monotonic()
        os.kill(int(server), signal.SIGTERM)
        try:
            status = self._unshare.wait(30)
        except subprocess.TimeoutExpired:
            status = -1
        return time.monotonic() - begun, status


def main() -> int:
    outcome = Outcome()
    export_model(os.path.join(TARGET_FOLDER, "export"))
    probe(outcome)
    for moment in (*FIRST_MOMENTS, *MOMENTS):
        with FirstProcess(*BLOCKING if moment in FIRST_MOMENTS else ()) as server:
            time.sleep(moment)
            seconds, status = server.end()
            outcome.tell("SIGTERM %.2f s after the start" % moment, seconds < 2 and status == 0,
                         "exit status %d after %.2f s" % (status, seconds))
    return outcome.status()


def probe(outcome: Outcome) -> None:
    """Asks all the time from the start until the model answers."""
    with FirstProcess() as server:
        while not server.ask("GET", "/healthz"):
            time.sleep(0.01)
        first = time.monotonic() - server.begun
        outcome.tell("/healthz answers within a second", first < 1, "%.2f s" % first)
        body = json.dumps({"instances": [{"text_a": "北京", "text_b": ""}]})
        alive: List[int] = []
        predicted, calls, longest = set(), set(), 0.0
        while time.monotonic() < server.begun + PATIENCE_SECONDS:
            asked = time.monotonic()
            alive.append(server.ask("GET", "/healthz"))
            longest = max(longest, time.monotonic() - asked)
            predicted.add(server.ask("POST", "/v1/models/albert:predict", body))
            calls.add(server.call())
            if server.ask("GET", "/readyz") == 200:
                break
            time.sleep(0.02)
        ready = time.monotonic() - server.begun
        outcome.tell("/healthz goes on answering", set(alive) == {200},
                     "%d times until /readyz said yes after %.1f s, the longest took %.2f s"
                     % (len(alive), ready, longest))
        outcome.tell(":predict until then", predicted <= {503, 200} and 503 in predicted, str(predicted))
        outcome.tell("gRPC until then", calls <= {"UNAVAILABLE", "OK"} and "UNAVAILABLE" in calls, str(calls))
        outcome.tell("both then", (server.ask("POST", "/v1/models/albert:predict", body), server.call())
                     == (200, "OK"))


if __name__ == "__main__":
    raise SystemExit(main())
