"""Assembles the whole server, starts it, and shuts it down on a signal."""
import asyncio
import functools
import socket
from typing import Any, Callable, Coroutine, Sequence

import grpc
import tensorflow.compat.v1 as tf
import uvloop

from etl.common.cores import usable_cores
from serving.saved_model import SavedModel
from serving.service import browsers, parameter_files, process, replay
from serving.service.batching import Batcher, BatchThreads
from serving.service.flags import UNBATCHED_FOR_EACH_CORE, ServerConfig, channel_arguments
from serving.service.grpc_relay import RelayLimits
from serving.service.grpc_service import GrpcLimits, GrpcOptions, GrpcServer
from serving.service.http_app import HttpApp, HttpLimits
from serving.service.http_server import HttpServer
from serving.service.inference import Inference
from serving.service.inflight import Inflight
from serving.service.limits import Limits
from serving.service.model_configs import from_flags
from serving.service.model_memory import ModelMemory
from serving.service.models import Models
from serving.service.monitoring import Monitor
from serving.service.versions import Versions


def serve(config: ServerConfig, output: int, rest_socket: socket.socket, grpc_socket: socket.socket,
          on_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError for a port that is taken and for a folder without
    a model.

    `output` is the descriptor of standard output. The sockets are bound; `on_ready` is called when both
    interfaces answer.
    """
    uvloop.install()
    asyncio.run(serve_until_told(config, output, rest_socket, grpc_socket, on_ready))


async def serve_until_told(config: ServerConfig, output: int, rest_socket: socket.socket,
                           grpc_socket: socket.socket, on_ready: Callable[[], None]) -> None:
    """Loads a model, starts both interfaces, and shuts them down on a signal, which may come at any time."""
    config = parameter_files.with_batching_parameters(config)
    metrics_path = parameter_files.metrics_path(config.monitoring_config_file)
    model_configs = from_flags(config)
    connections = process.connections_that_fit(config)
    ending = set_by_signals()
    monitor = Monitor(config.access_log, output)
    models = make_models(config, monitor)
    process.look_for_less_garbage()
    if not await unless_set(ending, models.load(model_configs)):
        return
    inference = Inference(models, Limits(
        config.max_batch_size, config.max_text_bytes, config.max_ids_length, config.max_message_fields))
    rest_app = HttpApp(inference, monitor,
                       HttpLimits(config.max_body_bytes, config.rest_api_timeout_in_ms / 1000),
                       browsers.own_names(config.allowed_hosts, config.host), metrics_path)
    inflight = Inflight(config.max_inflight_body_bytes, monitor.rejections.labels("bytes_in_flight").inc)
    rest_server = HttpServer(rest_app, rest_socket, inflight, connections.rest)
    grpc_server = make_grpc_server(config, inference, monitor, grpc_socket, connections.grpc)
    process.listen(grpc_socket, "port")
    await grpc_server.start()
    await rest_server.start()
    on_ready()
    monitor.output.write(address_line(models.names, config.host, rest_socket, grpc_server.port))
    if config.model_config_file_poll_wait_seconds:
        models.follow(functools.partial(from_flags, config), model_configs,
                      config.model_config_file_poll_wait_seconds)
    await ending.wait()
    rest_app.draining = True
    grpc_server.say_not_serving()
    await asyncio.sleep(config.lame_duck_seconds)      # until balancers have noticed
    monitor.output.write(b"Shutting down; finishing pending requests\n")
    models.stop_looking()
    await asyncio.gather(grpc_server.stop(config.drain_seconds), rest_server.stop(config.drain_seconds))
    monitor.output.close()


def set_by_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    event = asyncio.Event()
    for number in process.ENDING_SIGNALS:
        asyncio.get_event_loop().add_signal_handler(number, event.set)
    return event


async def unless_set(event: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Whether `coroutine` finished before `event` was set, which cancels it. Raises what it raises."""
    working, waiting = asyncio.ensure_future(coroutine), asyncio.ensure_future(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False


def model_loader(config: ServerConfig) -> Callable[[str], SavedModel]:
    """A function that loads and warms up the model in a version's folder."""
    threads = tf.ConfigProto(intra_op_parallelism_threads=config.tensorflow_intra_op_parallelism,
                             inter_op_parallelism_threads=config.tensorflow_inter_op_parallelism)

    def load(folder: str) -> SavedModel:
        model = SavedModel(folder, threads)
        try:
            replay.replay(folder, model)
        except BaseException:
            model.close()                      # loading is retried whenever the files change
            raise
        return model
    return load


def make_models(config: ServerConfig, monitor: Monitor) -> Models:
    load, memory = model_loader(config), ModelMemory(config.max_models_memory_mb)
    return Models(lambda model: Versions(model, load, monitor, config.load_timeout_seconds, memory),
                  queue_maker(config, monitor), config.file_system_poll_wait_seconds)


def queue_maker(config: ServerConfig, monitor: Monitor) -> Callable[[str], Batcher]:
    """What makes a model's queue. Without batching, a batch is one row, and several run on each core."""
    cores = usable_cores()
    max_rows, threads = (
        (config.max_batch_size, config.num_batch_threads or cores) if config.enable_batching else
        (1, UNBATCHED_FOR_EACH_CORE * cores))
    max_enqueued_rows = config.max_enqueued_batches * config.max_batch_size
    batch_threads = BatchThreads(threads)
    return lambda name: Batcher(max_rows, max_enqueued_rows, batch_threads, monitor, name)


def make_grpc_server(config: ServerConfig, inference: Inference, monitor: Monitor, listening: socket.socket,
                     max_connections: int) -> GrpcServer:
    """Takes no call before it is started."""
    grpc.aio.init_grpc_aio()  # otherwise it shuts down after Python has unloaded its modules
    return GrpcServer(
        inference, monitor, listening,
        GrpcLimits(config.max_body_bytes, config.max_grpc_calls, config.grpc_receive_timeout_in_ms / 1000),
        RelayLimits(max_connections, config.max_grpc_bytes),
        GrpcOptions(channel_arguments(config.grpc_channel_arguments), config.allow_reload_config))


def address_line(names: Sequence[str], host: str, rest_socket: socket.socket, grpc_port: int) -> bytes:
    # an IPv6 address needs brackets before a port
    host = "[%s]" % host if ":" in host else host
    return ("Serving %s: REST and page at http://%s:%d, gRPC at %s:%d\n" % (
        ", ".join(names) or "no model", host, rest_socket.getsockname()[1], host, grpc_port)).encode()
