"""A worker of a cluster: a process in which Beam calls our functions. Runs on each host that takes part in a
build.

It is started by a task manager (--environment_type PROCESS), or by a pool, which runs on each host and starts
workers when the task managers there request them (--environment_type EXTERNAL).

  etl-worker --listen 127.0.0.1:50000 --token_file token     # a pool; serves this host until it is stopped
"""
import signal
import threading
from dataclasses import dataclass
from typing import Optional, Sequence

from etl.beam.cluster import ADDRESS, read_token, prepare_grpc
from etl.common.command_line import flag, run


@dataclass(frozen=True)
class WorkerConfig:
    """The flags of `etl.beam.worker`."""
    listen: Optional[str] = flag(None, "HOST:PORT: run a pool there. Anyone who reaches it can run any code: "
                                 "127.0.0.1 is enough, since task managers connect from their own host; any "
                                 "other address needs token_file")
    token_file: Optional[str] = flag(None, "with listen: file with a secret; only builds with the same "
                                     "secret in their worker_token_file get workers. It is sent unencrypted")
    id: Optional[str] = flag(None, "run one worker under this name; set by Beam or a pool")
    provision_endpoint: Optional[str] = flag(None,
                                             "where a worker gets its instructions; set by Beam or a pool")

    def __post_init__(self) -> None:
        if bool(self.listen) == bool(self.id and self.provision_endpoint):
            raise ValueError("give either listen, or both id and provision_endpoint")
        if self.listen and not ADDRESS.fullmatch(self.listen):
            raise ValueError("listen must be HOST:PORT, got %s" % self.listen)
        if self.token_file and not self.listen:
            raise ValueError("token_file is for listen")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.beam.worker", __doc__, WorkerConfig, serve, argv)


def serve(config: WorkerConfig) -> None:
    """Runs a worker or a pool, until it ends."""
    prepare_grpc()
    if config.provision_endpoint:
        # Beam takes a second, which --help and errors in flags should not
        from etl.beam.worker_process import work
        work(str(config.id), config.provision_endpoint)
        return
    token = read_token(config.token_file, "token_file") if config.token_file else None
    from etl.beam.worker_pool import start_pool
    pool = start_pool(str(config.listen), token)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("Starting workers on request at %s:%d" % (str(config.listen).rsplit(":", 1)[0], pool.port),
          flush=True)
    try:
        stop.wait()
    finally:
        pool.stop()


if __name__ == "__main__":
    raise SystemExit(main())
