"""A pool of workers on a host of a cluster: starts one whenever a task manager asks for it."""
import hmac
import ipaddress
import logging
import socket
import subprocess
import sys
import threading
from typing import Any, List, Optional

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.utils.thread_pool_executor import UnboundedThreadPoolExecutor

from etl.beam.cluster import TOKEN_PARAM
from etl.common.command_line import UserError

MAX_CALLS = 1000  # at once; a task manager makes one short call per slot


class Pool:
    """Worker processes of this host, and the server through which task managers request them."""

    def __init__(self) -> None:
        self._workers: List["subprocess.Popen[bytes]"] = []
        self._lock = threading.Lock()
        self.server: Any = None
        self.port = 0

    def start(self, worker_id: str, provision_endpoint: str) -> None:
        """Starts a worker, which ends when its task manager closes the connection."""
        command = [sys.executable, "-m", "etl.beam.worker", "--id", worker_id, "--provision_endpoint",
                   provision_endpoint]
        with self._lock:
            self._workers = [worker for worker in self._workers if worker.poll() is None]  # leaves no zombies
            self._workers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))

    def stop(self) -> None:
        """Stops the server and all workers."""
        self.server.stop(None)
        with self._lock:
            for worker in self._workers:
                worker.kill()  # it leaves a temporary file; a range without a marker is built again
                worker.wait()


class _Service(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's interface to the pool."""

    def __init__(self, pool: Pool, token: Optional[str]) -> None:
        self._pool, self._token = pool, token

    def StartWorker(self, request: Any, context: Any) -> beam_fn_api_pb2.StartWorkerResponse:
        if self._token and not hmac.compare_digest(request.params.get(TOKEN_PARAM, "").encode(),
                                                   self._token.encode()):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the pool requires the secret in its "
                          "--token_file; the build's --worker_token_file has none or a different one")
        try:
            self._pool.start(request.worker_id, request.provision_endpoint.url)
        except (OSError, ValueError) as error:                 # the latter for a NUL in its name
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> beam_fn_api_pb2.StopWorkerResponse:
        """Does nothing: all task managers use the same worker names, so it may be another one's worker."""
        return beam_fn_api_pb2.StopWorkerResponse()


def start_pool(address: str, token: Optional[str] = None) -> Pool:
    """A pool that listens on HOST:PORT and, if there is a token, starts workers only for clients that have
    it.

    `prepare_grpc` must have been called before this file was imported.

    Raises UserError if it cannot listen there, or if it is reachable from other hosts and there is no token.
    """
    hosts = _hosts_of(address)
    if not token and not all(map(_is_loopback, hosts)):
        raise UserError("--listen: %s is reachable from other hosts, and anyone who reaches it can run any "
                        "code: listen on 127.0.0.1, or give a secret with --token_file" % address)
    pool = Pool()
    # otherwise bytes that are not a message log a traceback
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    # Without so_reuseport 0, a second pool on the port would receive half of the first one's requests.
    server = grpc.server(UnboundedThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)],
                         maximum_concurrent_rpcs=MAX_CALLS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(_Service(pool, token), server)
    pool.port = int(address.rsplit(":", 1)[1])
    try:
        for host in hosts:
            pool.port = server.add_insecure_port(("[%s]:%d" if ":" in host else "%s:%d") % (host, pool.port))
    except RuntimeError:
        raise _cannot_listen(address)
    pool.server = server
    server.start()
    return pool


def _hosts_of(address: str) -> List[str]:
    """The IP addresses of this host for HOST:PORT: gRPC is not given a name, which it might resolve
    differently."""
    host, port = address.rsplit(":", 1)
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError):
        raise _cannot_listen(address)
    if int(port) > 65535:                      # gRPC would take the remainder
        raise _cannot_listen(address)
    hosts = [str(name[0]) for family, _, _, _, name in found if _is_here(family, name[0])]
    if not hosts:
        raise _cannot_listen(address)
    return sorted(set(hosts))


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.split("%")[0]).is_loopback      # fe80::1%eth0


def _is_here(family: int, host: str) -> bool:
    """Whether this host has the address: `localhost` may mean ::1 where there is no IPv6."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            return True
    except OSError:
        return False


def _cannot_listen(address: str) -> UserError:
    return UserError("--listen: cannot listen on %s: in use, or not an address of this host" % address)
