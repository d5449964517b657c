"""nginx in front of two servers that are restarted in turn under load: no request may be lost.

  python test/checks/clients/nginx.py

Twice: nginx asks the other server when one cannot answer, as docs/operations.md has it; and it does not, but
whoever runs it reads /readyz and takes a server off its list, as Kubernetes does. REST below a path, where
the page must work, too, and gRPC. nginx is the one on PATH, or Debian's, unpacked below output/.
"""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from typing import Dict, Iterator, List, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "attack")]
os.environ["grpc_proxy"] = ""

import grpc
from target import FOLDER as TARGET_FOLDER
from target import ROOT, Outcome, export_model
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

FOLDER = os.path.join(ROOT, "output", "check_clients", "nginx")
PATH = "/nlp/"
NUM_REQUESTS, NUM_CLIENTS, RATE = 2000, 4, 50.0  # of REST; requests a second, of all clients together
PATIENCE_SECONDS = 120
LAME_DUCK_SECONDS = 2
RETRIES = ("proxy_next_upstream error timeout http_503 non_idempotent; "
           "grpc_next_upstream error timeout non_idempotent;")
NO_RETRIES = "proxy_next_upstream off; grpc_next_upstream off;"
CONFIG = """
daemon off; pid nginx.pid; worker_processes 1; error_log error.log warn;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream rest { %(rest)s keepalive 16; }
  upstream grpc { %(grpc)s }
  %(retries)s
  server {
    listen 127.0.0.1:%(rest_port)d;
    location %(path)s { proxy_pass http://rest/; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
  server { listen 127.0.0.1:%(grpc_port)d http2; location / { grpc_pass grpc://grpc; } }
}
"""


def main() -> int:
    outcome = Outcome()
    os.makedirs(FOLDER, exist_ok=True)
    export_model(os.path.join(TARGET_FOLDER, "export"))
    program = nginx_program()
    for name, retries in (("that asks the other server", RETRIES),
                          ("whose list follows /readyz", NO_RETRIES)):
        servers = [Server(), Server()]
        with Nginx(program, servers, retries) as nginx, contextlib.ExitStack() as running:
            for server in servers:
                running.callback(server.kill)
                server.start()
            if retries == RETRIES:
                check_page(nginx, outcome)
            else:
                running.enter_context(nginx.following_readiness())
            said, num_restarts = restarted_under_load(nginx, servers)
        for interface, answers in said.items():
            lost = [answer for answer in answers if answer != "good"]
            outcome.tell("%s behind an nginx %s, %d restarts" % (interface, name, num_restarts),
                         bool(answers) and not lost and num_restarts >= 2, "%d of %d lost%s" % (
                             len(lost), len(answers), ": %s" % dict(Counter(lost)) if lost else ""))
    return outcome.status()


def nginx_program() -> str:
    """The path of nginx. Debian's package is unpacked, not installed, which would start it."""
    unpacked = os.path.join(FOLDER, "usr", "sbin", "nginx")
    if shutil.which("nginx"):
        return str(shutil.which("nginx"))
    if not os.path.exists(unpacked):
        # without a sandbox: its user cannot write here
        subprocess.run("apt-get download -qq -o APT::Sandbox::User=root nginx && dpkg -x nginx_*.deb .",
                       shell=True, cwd=FOLDER, check=True)
    return unpacked


class Server:
    """A server at ports that stay the same over its restarts."""

    def __init__(self) -> None:
        self.rest_port, self.grpc_port = free_port(), free_port()
        self._process: "subprocess.Popen[bytes]"

    def start(self) -> None:
        """Returns when it is ready."""
        with open(os.path.join(FOLDER, "server.log"), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.server", "--model_base_path",
                 os.path.join(TARGET_FOLDER, "export"), "--port", str(self.grpc_port), "--rest_api_port",
                 str(self.rest_port), "--lame_duck_seconds", str(LAME_DUCK_SECONDS), "--access_log", "false"],
                cwd=ROOT, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready():
            if time.monotonic() > end or self._process.poll() is not None:
                raise SystemExit("a server did not start; see %s" % FOLDER)
            time.sleep(0.1)

    def restart(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_SECONDS)
        self.start()

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Nginx:
    """nginx before `servers`, as a context.

    Attributes:
      rest_port, grpc_port: at which it listens.
    """

    def __init__(self, program: str, servers: List[Server], retries: str) -> None:
        self.rest_port, self.grpc_port = free_port(), free_port()
        self._command = [program, "-p", FOLDER, "-e", "error.log", "-c", "nginx.conf"]
        self._servers, self._retries = servers, retries

    def __enter__(self) -> "Nginx":
        self._write(self._servers)
        self._process = subprocess.Popen(self._command)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @contextlib.contextmanager
    def following_readiness(self) -> Iterator[None]:
        """While the block runs, the servers that nginx asks are those that say they are ready."""
        ended = threading.Event()

        def follow() -> None:
            listed = self._servers
            while not ended.wait(0.25):
                ready = [server for server in self._servers if server.is_ready()]
                if ready and ready != listed:
                    self._write(ready)
                    self._process.send_signal(signal.SIGHUP)
                    listed = ready
        following = threading.Thread(target=follow)
        following.start()
        try:
            yield
        finally:
            ended.set()
            following.join()

    def _write(self, servers: List[Server]) -> None:
        lists = {name: " ".join("server 127.0.0.1:%d max_fails=0;" % getattr(server, name + "_port")
                                for server in servers) for name in ("rest", "grpc")}
        with open(os.path.join(FOLDER, "nginx.conf"), "w") as stream:
            stream.write(CONFIG % dict(lists, retries=self._retries, path=PATH, rest_port=self.rest_port,
                                       grpc_port=self.grpc_port))


def restarted_under_load(nginx: Nginx, servers: List[Server]) -> Tuple[Dict[str, List[str]], int]:
    """The answers of each interface, and how often a server was restarted meanwhile."""
    said: Dict[str, List[str]] = {"REST": [], "gRPC": []}
    all_asked = threading.Event()
    asking = [threading.Thread(target=ask_rest, args=(nginx.rest_port, said["REST"]))
              for _ in range(NUM_CLIENTS)]
    calling = threading.Thread(target=ask_grpc, args=(nginx.grpc_port, said["gRPC"], all_asked))
    for thread in (*asking, calling):
        thread.start()
    num_restarts = 0
    while any(thread.is_alive() for thread in asking):
        servers[num_restarts % 2].restart()
        num_restarts += 1
    all_asked.set()
    calling.join()
    return said, num_restarts


def ask_rest(port: int, said: List[str]) -> None:
    """Sends this client's part of the requests, each on a connection of its own, at an even pace."""
    body = json.dumps({"instances": [{"text_a": "北京", "text_b": "你好"}]})
    due = time.monotonic()
    for _ in range(NUM_REQUESTS // NUM_CLIENTS):
        due += NUM_CLIENTS / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", PATH + "v1/models/albert:predict", body)
            answer = connection.getresponse()
            answer.read()
            said.append("good" if answer.status == 200 else str(answer.status))
        except (OSError, http.client.HTTPException) as error:
            said.append(repr(error))
        finally:
            connection.close()


def ask_grpc(port: int, said: List[str], ended: threading.Event) -> None:
    """Calls until `ended` is set, ten times a second."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "albert"
    with grpc.insecure_channel("127.0.0.1:%d" % port) as channel:
        ask = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        while not ended.wait(0.1):
            try:
                ask(request, timeout=PATIENCE_SECONDS)
                said.append("good")
            except grpc.RpcError as error:
                said.append("%s: %s" % (error.code().name, error.details()))


def check_page(nginx: Nginx, outcome: Outcome) -> None:
    """Whether what the page asks for, by a path below nginx's, is there."""
    url = "http://127.0.0.1:%d%s" % (nginx.rest_port, PATH)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        paths = re.findall(r'call\(["`]([^"`$]+)', answer.read().decode())
    found = {}
    for path in paths:
        whole = urllib.parse.urljoin(url, path)
        if path.endswith("json"):
            with opener.open(whole) as answer:
                found[path] = answer.status == 200
        else:                                  # what follows is the model's name
            found[path] = whole.startswith(url)
    outcome.tell("the page below %s" % PATH, len(found) == 2 and all(found.values()), ", ".join(paths))


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
