"""Serves exported models by TensorFlow Serving's interfaces: gRPC, and REST with a page to try the model at /.

  python -m serving.server
  python -m serving.server --model_base_path output/lcqmc_export --model_name lcqmc --host 0.0.0.0

The newest version in --model_base_path answers; one that appears later takes over without a failed request. What is asked
while the model is busy runs together. SIGTERM and Ctrl-C answer what has been asked, then end the server.

  curl -d '{"instances": [{"text_a": "手机没信号怎么办", "text_b": "手机搜不到网络怎么处理"}]}' \\
      http://127.0.0.1:8501/v1/models/albert:predict

  /v1/models/NAME                       state, :predict, :classify, /metadata, as TensorFlow Serving
  /healthz, /readyz                     for whatever restarts the process, or sends it requests
  /monitoring/prometheus/metrics        latencies, batch sizes, queue, rejections, versions, memory
  /openapi.json                         the description of the REST interface
"""
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any, Callable, Coroutine, Optional, Sequence, Tuple

from etl.common.command_line import UserError, flag, run
from serving.service import descriptors
from serving.service.line_log import LineLog, LineLogHandler, output_apart, relayed_errors

UNBATCHED_FOR_EACH_CORE = 4                    # as TensorFlow Serving's --rest_api_num_threads
LOG = logging.getLogger("serving")
GARBAGE_OBJECTS = 20000                         # made between two looks for unreachable ones; Python would look after 700


@dataclass(frozen=True)
class ServerConfig:
    """The flags of this command; those that TensorFlow Serving has, too, have its names."""
    model_base_path: str = flag("output/export", "folder of versions, as serving.export writes them")
    model_name: str = flag("albert", "name of the model in requests")
    port: int = flag(8500, "for gRPC; 0 for any free one")
    rest_api_port: int = flag(8501, "for REST and the page; 0 for any free one")
    host: str = flag("127.0.0.1", "address to listen at; others than this machine reach 0.0.0.0")
    rest_api_timeout_in_ms: int = flag(30000, "longest time of a REST request, from its head to the end of its answer")
    file_system_poll_wait_seconds: int = flag(1, "between two looks for new versions")
    load_timeout_seconds: int = flag(300, "for loading and warming up a version; one that takes longer is given up until its "
                                     "files change")
    enable_batching: bool = flag(True, "whether what is asked while the model is busy runs together; without it each request "
                                 "runs when it comes, at most %d for each core at once" % UNBATCHED_FOR_EACH_CORE)
    max_batch_size: int = flag(32, "rows of a batch, and of a request")
    max_enqueued_batches: int = flag(8, "batches that may wait; a request beyond them is refused at once")
    num_batch_threads: int = flag(0, "batches that run at once; 0 for one for each core")
    tensorflow_intra_op_parallelism: int = flag(1, "threads within an operation; 0 for one for each core, which pays where few "
                                                "clients ask a large model")
    tensorflow_inter_op_parallelism: int = flag(0, "operations that run at once; 0 for one for each core")
    max_text_bytes: int = flag(65536, "of each text; what is beyond max_seq_length tokens is read, then left out")
    max_body_bytes: int = flag(4194304, "of each request")
    max_inflight_body_bytes: int = flag(67108864, "of all REST requests together, from their first bytes to their answers; beyond them "
                                        "the one that has been coming longest gets 503")
    max_connections: int = flag(1000, "of REST; beyond them the one that is idle longest is closed, or the slowest half-sent one")
    allowed_hosts: Tuple[str, ...] = flag((), "names by which REST may be asked, beside addresses, this machine's names, those without "
                                          "a dot and those below .localhost, .internal and .cluster.local; * for any")
    max_ids_length: int = flag(512, "token ids of each row; a model with fewer positions takes no more than it has")
    max_message_fields: int = flag(16384, "fields of a gRPC message, those within it included; features and values of REST's examples")
    max_grpc_connections: int = flag(256, "one that is idle gives way to a new one; each takes 3 descriptors")
    max_grpc_bytes: int = flag(268435456, "of gRPC requests that are not answered yet, together; beyond them the connection with the "
                               "most is closed")
    max_grpc_calls: int = flag(1000, "calls under way; one whose request has not come whole gives way to a new one")
    grpc_receive_timeout_in_ms: int = flag(30000, "until the request of a gRPC call must have come whole")
    drain_seconds: int = flag(30, "what is asked when the server is told to end gets this long to be answered")
    access_log: bool = flag(True, "whether each request is a JSON line on standard output")

    def __post_init__(self) -> None:
        for name, least in (("port", 0), ("rest_api_port", 0), ("rest_api_timeout_in_ms", 1), ("max_batch_size", 1),
                            ("file_system_poll_wait_seconds", 1), ("load_timeout_seconds", 1), ("max_enqueued_batches", 1),
                            ("num_batch_threads", 0), ("tensorflow_intra_op_parallelism", 0),
                            ("tensorflow_inter_op_parallelism", 0), ("max_text_bytes", 1), ("max_body_bytes", 1),
                            ("drain_seconds", 0), ("max_connections", 1), ("max_inflight_body_bytes", self.max_body_bytes),
                            ("max_ids_length", 1), ("max_message_fields", 1), ("max_grpc_connections", 1),
                            ("max_grpc_bytes", 1), ("max_grpc_calls", 1), ("grpc_receive_timeout_in_ms", 1)):
            if getattr(self, name) < least:
                raise ValueError("%s must be at least %d, got %d" % (name, least, getattr(self, name)))
        for name in ("port", "rest_api_port"):
            if getattr(self, name) > 65535:
                raise ValueError("%s must be at most 65535, got %d" % (name, getattr(self, name)))
        if self.max_grpc_bytes < self.max_body_bytes:
            raise ValueError("max_grpc_bytes must be at least max_body_bytes, %d, got %d" % (self.max_body_bytes, self.max_grpc_bytes))
        if not self.model_name or "/" in self.model_name:      # no path of the REST interface would lead to it
            raise ValueError("model_name must be a name without /, got %r" % self.model_name)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.server", __doc__, ServerConfig, serve, argv)


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError for a port that is taken and for a folder without a model."""
    errors = log_without_waiting()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")    # else its core has lines to say of odd calls, which anybody may send
    try:
        import uvloop
        uvloop.install()
        with output_apart() as output:
            asyncio.run(serve_until_told(config, output))
    except ImportError as error:
        raise UserError("%s is not installed: pip install this project with [serve]" % error.name)
    finally:
        errors.close()


async def serve_until_told(config: ServerConfig, output: int) -> None:
    """Starts both interfaces, and ends them when the process is told to. `output` is the descriptor of standard output."""
    import grpc                                # all of these take two seconds: --help need not wait
    from serving.service import browsers
    from serving.service.batching import Batcher
    from serving.service.grpc_relay import RelayLimits
    from serving.service.grpc_service import GrpcLimits, GrpcServer
    from serving.service.http_app import HttpApp, HttpLimits
    from serving.service.http_server import HttpServer
    from serving.service.inference import Inference
    from serving.service.inflight import Inflight
    from serving.service.limits import Limits
    from serving.service.monitoring import Monitor
    from serving.service.versions import Versions

    num_connections = connections_that_fit(config)
    rest_socket = bind(config.host, config.rest_api_port, "rest_api_port")
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_event_loop().add_signal_handler(number, ending.set)
    monitor = Monitor(config.access_log, output)
    versions = Versions(config.model_base_path, config.model_name, model_loader(config), monitor, config.load_timeout_seconds)
    look_for_less_garbage()
    if not await unless_set(ending, versions.load_first()):
        return
    cores = os.cpu_count() or 1
    batch_size, threads = ((config.max_batch_size, config.num_batch_threads or cores) if config.enable_batching else
                           (1, UNBATCHED_FOR_EACH_CORE * cores))
    batcher = Batcher(batch_size, config.max_enqueued_batches * config.max_batch_size, threads, monitor)
    inference = Inference(versions, batcher, Limits(config.max_batch_size, config.max_text_bytes, config.max_ids_length,
                                                    config.max_message_fields))
    inflight = Inflight(config.max_inflight_body_bytes, monitor.rejections.labels("bytes_in_flight").inc)
    app = HttpApp(inference, monitor, HttpLimits(config.max_body_bytes, config.rest_api_timeout_in_ms / 1000),
                  browsers.own_names(config.allowed_hosts, config.host))
    rest_server = HttpServer(app, rest_socket, inflight, num_connections.rest)
    host = "[%s]" % config.host if ":" in config.host else config.host            # of IPv6, as it stands before a port
    grpc_socket = bind(config.host, config.port, "port")
    grpc.aio.init_grpc_aio()                   # else it shuts down when Python has already taken its modules away
    grpc_server = GrpcServer(
        inference, monitor, grpc_socket,
        GrpcLimits(config.max_body_bytes, config.max_grpc_calls, config.grpc_receive_timeout_in_ms / 1000),
        RelayLimits(num_connections.grpc, config.max_grpc_bytes))
    await grpc_server.start()
    looking = asyncio.ensure_future(versions.look_every(config.file_system_poll_wait_seconds))
    await rest_server.start()
    monitor.output.write(b"Serving %s: REST and page at http://%s:%d, gRPC at %s:%d\n" % (
        config.model_name.encode(), host.encode(), rest_socket.getsockname()[1], host.encode(), grpc_server.port))
    await ending.wait()
    monitor.output.write(b"Ending: what has been asked is answered first\n")
    looking.cancel()
    app.draining = True
    await asyncio.gather(grpc_server.stop(config.drain_seconds), rest_server.stop(config.drain_seconds))
    monitor.output.close()


def log_without_waiting() -> LineLog:
    """Has Python's logging write to standard error without ever waiting for who reads that."""
    errors, root = LineLog(2), logging.getLogger()
    handler = LineLogHandler(errors)
    handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.handlers = [handler]
    return errors


def connections_that_fit(config: ServerConfig) -> descriptors.Connections:
    """How many connections each interface may have, which is said where it is fewer than wanted."""
    limit = descriptors.raise_limit()
    found = descriptors.share(limit, config.max_connections, config.max_grpc_connections)
    if found.rest < config.max_connections:
        LOG.warning("--max_connections %d and --max_grpc_connections %d do not fit into %d descriptors (ulimit -n): %d and %d",
                    config.max_connections, config.max_grpc_connections, limit, *found)
    return found


async def unless_set(event: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Whether `coroutine` came to its end before `event` was set, which cancels it. Raises what it raises."""
    working, waiting = asyncio.ensure_future(coroutine), asyncio.ensure_future(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False


def look_for_less_garbage() -> None:
    """Has Python look for unreachable objects among those that come from now on, and less often.

    The libraries are 170,000 objects: a full collection walks over all of them, for 70 ms in which nothing else happens, and comes the
    more often the more is asked. What a request leaves behind, its references free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)


def model_loader(config: ServerConfig) -> Callable[[str], Any]:
    """What makes a warmed-up model of a version's folder."""
    import tensorflow.compat.v1 as tf
    from serving.saved_model import SavedModel
    from serving.service import replay
    threads = tf.ConfigProto(intra_op_parallelism_threads=config.tensorflow_intra_op_parallelism,
                             inter_op_parallelism_threads=config.tensorflow_inter_op_parallelism)

    def load(folder: str) -> SavedModel:
        model = SavedModel(folder, threads)
        try:
            replay.replay(folder, model)
        except BaseException:
            model.close()                      # it is tried again whenever its files change
            raise
        return model
    return load


def bind(host: str, port: int, name: str) -> socket.socket:
    """A listening socket. Raises UserError, naming the flag, when there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
        return listening
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError("--host: %s: %s: no address of this machine" % (host, reason))
        advice = "; give another, or 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise UserError("--%s: %s:%d: %s%s" % (name, host, port, reason, advice))


if __name__ == "__main__":
    # At once: threads that hang, in a load on a dead mount say, would be waited for by the libraries' own endings.
    with relayed_errors():                     # before the libraries are there, which would keep what they found
        status = main()
    os._exit(status)
