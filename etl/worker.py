"""A worker of a cluster: a process in which Beam calls our functions. Runs on each host that has a share in a build.

Two things start one: a task manager that is told to (--environment_type PROCESS), or a pool, which runs on each host and
starts workers as the task managers there ask for them (--environment_type EXTERNAL).

  etl-worker --listen 127.0.0.1:50000        # a pool; serves this host until it is stopped
"""
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence

from etl.cluster import ADDRESS, switch_off_fork_handlers
from etl.command_line import UserError, flag, run


@dataclass(frozen=True)
class WorkerConfig:
    """The flags of `etl.worker`."""
    listen: Optional[str] = flag(None, "HOST:PORT: be a pool there. Who reaches it can run what he likes: 127.0.0.1 is enough, "
                                 "since task managers ask on their own host")
    id: Optional[str] = flag(None, "be one worker: Beam's name for it; given by Beam or a pool")
    provision_endpoint: Optional[str] = flag(None, "where a worker learns what it is to do; given by Beam or a pool")

    def __post_init__(self) -> None:
        if bool(self.listen) == bool(self.id and self.provision_endpoint):
            raise ValueError("wants either listen, or both id and provision_endpoint")
        if self.listen and not ADDRESS.fullmatch(self.listen):
            raise ValueError("listen must be HOST:PORT, got %s" % self.listen)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.worker", __doc__, WorkerConfig, serve, argv)


def serve(config: WorkerConfig) -> None:
    """Is what the flags say, until the end."""
    if config.provision_endpoint:
        work(str(config.id), config.provision_endpoint)
        return
    pool = start_pool(str(config.listen))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("Starting workers for who asks at %s" % config.listen, flush=True)
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
        logging.getLogger("etl.worker").exception("worker %s ends", worker_id)
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
        command = [sys.executable, "-m", "etl.worker", "--id", worker_id, "--provision_endpoint", provision_endpoint]
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


def start_pool(address: str) -> Pool:
    """A pool that listens at HOST:PORT. Raises UserError when it cannot."""
    switch_off_fork_handlers()
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
    from apache_beam.utils.thread_pool_executor import UnboundedThreadPoolExecutor
    pool = Pool()

    class Service(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
        """The pool, in Beam's words."""

        def StartWorker(self, request: Any, context: Any) -> Any:
            try:
                pool.start(request.worker_id, request.provision_endpoint.url)
            except OSError as error:
                return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
            return beam_fn_api_pb2.StartWorkerResponse()

        def StopWorker(self, request: Any, context: Any) -> Any:
            """Does nothing: task managers number their workers alike, so the name may be that of another one's."""
            return beam_fn_api_pb2.StopWorkerResponse()

    # Without so_reuseport 0, a second pool on the port would take half of the first one's requests.
    server = grpc.server(UnboundedThreadPoolExecutor(), options=[("grpc.so_reuseport", 0)])
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Service(), server)
    try:
        pool.port = server.add_insecure_port(address)
    except RuntimeError:
        pool.port = 0
    if not pool.port:
        raise UserError("--listen: cannot listen at %s: in use, or not of this host" % address)
    pool.server = server
    server.start()
    return pool


if __name__ == "__main__":
    raise SystemExit(main())
