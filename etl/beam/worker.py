"""A worker of a cluster: a process in which Beam calls our functions. Runs on each host that has a share in a build.

Two things start one: a task manager that is told to (--environment_type PROCESS), or a pool, which runs on each host and
starts workers as the task managers there ask for them (--environment_type EXTERNAL).

  etl-worker --listen 127.0.0.1:50000 --token_file token     # a pool; serves this host until it is stopped
"""
import hmac
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence

from etl.beam.cluster import ADDRESS, TOKEN_PARAM, read_token, switch_off_fork_handlers
from etl.common.command_line import UserError, flag, run

MAX_CALLS = 1000                               # at once; a task manager's take milliseconds, one for each of its slots


@dataclass(frozen=True)
class WorkerConfig:
    """The flags of `etl.beam.worker`."""
    listen: Optional[str] = flag(None, "HOST:PORT: be a pool there. Who may ask it can run what he likes: 127.0.0.1 is enough, "
                                 "since task managers ask on their own host; any other address needs token_file")
    token_file: Optional[str] = flag(None, "with listen: file with a secret; only builds with the same one in their "
                                     "worker_token_file get workers. It travels in clear")
    id: Optional[str] = flag(None, "be one worker: Beam's name for it; given by Beam or a pool")
    provision_endpoint: Optional[str] = flag(None, "where a worker learns what it is to do; given by Beam or a pool")

    def __post_init__(self) -> None:
        if bool(self.listen) == bool(self.id and self.provision_endpoint):
            raise ValueError("wants either listen, or both id and provision_endpoint")
        if self.listen and not ADDRESS.fullmatch(self.listen):
            raise ValueError("listen must be HOST:PORT, got %s" % self.listen)
        if self.token_file and not self.listen:
            raise ValueError("token_file is for listen")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.beam.worker", __doc__, WorkerConfig, serve, argv)


def serve(config: WorkerConfig) -> None:
    """Is what the flags say, until the end."""
    if config.provision_endpoint:
        work(str(config.id), config.provision_endpoint)
        return
    pool = start_pool(str(config.listen), read_token(config.token_file, "token_file") if config.token_file else None)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("Starting workers for who asks at %s:%d" % (str(config.listen).rsplit(":", 1)[0], pool.port), flush=True)
    try:
        stop.wait()
    finally:
        pool.stop()


def work(worker_id: str, provision_endpoint: str) -> None:
    """Asks what to do, and does it until the task manager hangs up; ends the process."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from apache_beam.runners.worker import sdk_worker_main
    from google.protobuf import json_format, text_format
    try:
        with grpc.insecure_channel(provision_endpoint) as channel:
            service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            info = service.GetProvisionInfo(beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", worker_id)],
                                            timeout=60).info
        os.environ.update(WORKER_ID=worker_id, PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
                          CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.control_endpoint),
                          LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.logging_endpoint))
        sdk_worker_main.main([])
    except BaseException:
        logging.getLogger("etl.beam.worker").exception("worker %s ends", worker_id)
        os._exit(1)                            # whatever its threads are at: nobody waits for it any more
    os._exit(0)


class Pool:
    """Worker processes of this host, and the server that task managers ask for them."""

    def __init__(self) -> None:
        self._workers: List["subprocess.Popen[bytes]"] = []
        self._lock = threading.Lock()
        self.server: Any = None
        self.port = 0

    def start(self, worker_id: str, provision_endpoint: str) -> None:
        """Starts a worker, which ends when its task manager hangs up."""
        command = [sys.executable, "-m", "etl.beam.worker", "--id", worker_id, "--provision_endpoint", provision_endpoint]
        with self._lock:
            self._workers = [worker for worker in self._workers if worker.poll() is None]    # leaves no zombies
            self._workers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))

    def stop(self) -> None:
        """Ends the server and all workers."""
        self.server.stop(None)
        with self._lock:
            for worker in self._workers:
                worker.kill()                  # what it leaves is a temporary file; a range without a marker is done anew
                worker.wait()


def start_pool(address: str, token: Optional[str] = None) -> Pool:
    """A pool that listens at HOST:PORT and, where there is a token, starts workers only for who has it.

    Raises UserError when it cannot listen there, or when others than this host's users reach it and there is no token.
    """
    hosts = _hosts_of(address)
    if not token and not all(map(_is_loopback, hosts)):
        raise UserError("--listen: %s is reached from other hosts, and who reaches it can run what he likes: listen at 127.0.0.1, or "
                        "give a secret with --token_file" % address)
    switch_off_fork_handlers()
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
    from apache_beam.utils.thread_pool_executor import UnboundedThreadPoolExecutor
    pool = Pool()

    class Service(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
        """The pool, in Beam's words."""

        def StartWorker(self, request: Any, context: Any) -> Any:
            if token and not hmac.compare_digest(request.params.get(TOKEN_PARAM, "").encode(), token.encode()):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "the pool wants the secret of its --token_file: the build's "
                              "--worker_token_file names none, or another one")
            try:
                pool.start(request.worker_id, request.provision_endpoint.url)
            except (OSError, ValueError) as error:             # the latter for a NUL in what it is called
                return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
            return beam_fn_api_pb2.StartWorkerResponse()

        def StopWorker(self, request: Any, context: Any) -> Any:
            """Does nothing: task managers number their workers alike, so the name may be that of another one's."""
            return beam_fn_api_pb2.StopWorkerResponse()

    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)       # else whoever sends no message writes a traceback
    # Without so_reuseport 0, a second pool on the port would take half of the first one's requests.
    server = grpc.server(UnboundedThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=MAX_CALLS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Service(), server)
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
    """The IP addresses of this host that HOST:PORT means: gRPC is given no name, which might mean another thing to it."""
    host, port = address.rsplit(":", 1)
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError):
        raise _cannot_listen(address)
    if int(port) > 65535:                      # gRPC would take the rest of a division
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
    return UserError("--listen: cannot listen at %s: in use, or not of this host" % address)


if __name__ == "__main__":
    raise SystemExit(main())
