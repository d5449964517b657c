"""The flags of the server."""
import re
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from etl.common.command_line import flag

UNBATCHED_FOR_EACH_CORE = 4                    # as TensorFlow Serving's --rest_api_num_threads
MODEL_NAME = r"[^/:\x00-\x1f\x7f]+"            # others have no REST path, or would break lines of the log
# What of gRPC's arguments may be given: how long a connection lives, and how it is found dead. The others are
# bounds that the server sets itself.
CHANNEL_ARGUMENTS = tuple("grpc." + name for name in (
    "keepalive_time_ms", "keepalive_timeout_ms", "keepalive_permit_without_calls",
    "http2.max_pings_without_data", "http2.min_ping_interval_without_data_ms", "http2.max_ping_strikes",
    "http2.min_recv_ping_interval_without_data_ms", "max_connection_idle_ms", "max_connection_age_ms",
    "max_connection_age_grace_ms"))


@dataclass(frozen=True)
class ServerConfig:
    """The flags of this command; those that TensorFlow Serving also has are named as there."""
    model_base_path: str = flag("output/export", "folder of versions, as serving.export writes them")
    model_name: str = flag("albert", "name of the model in requests")
    model_config_file: Optional[str] = flag(None, "several models, or versions by policy and label, in place "
                                            "of those two: a ModelServerConfig as text")
    model_config_file_poll_wait_seconds: int = flag(0, "seconds between two looks at --model_config_file, "
                                                    "whose models are served when it has changed; 0 for one "
                                                    "look at the start")
    max_models_memory_mb: Optional[int] = flag(None, "estimated memory of all loaded versions; one that does "
                                               "not fit is not loaded (default: any)")
    allow_reload_config: bool = flag(True, "let gRPC clients replace the models (HandleReloadConfigRequest), "
                                     "from folders that other users cannot write to")
    port: int = flag(8500, "port for gRPC; 0 for any free one")
    rest_api_port: int = flag(8501, "port for REST and the page; 0 for any free one")
    host: str = flag("127.0.0.1", "address to listen on; 0.0.0.0 for access from other machines")
    rest_api_timeout_in_ms: int = flag(30000,
                                       "time limit of a REST request, from its head to the end of its answer")
    file_system_poll_wait_seconds: int = flag(1, "seconds between two scans for new versions; 0 for one scan "
                                              "at the start")
    load_timeout_seconds: int = flag(300, "time limit for loading and warming up a version; one that takes "
                                     "longer is not tried again until its files change")
    enable_batching: bool = flag(True, "run requests that arrive while the model is busy as one "
                                 "batch; without it each request runs on arrival, at most %d per "
                                 "core at once" % UNBATCHED_FOR_EACH_CORE)
    max_batch_size: int = flag(32, "maximum rows of a batch, and of a request")
    max_enqueued_batches: int = flag(32, "batches of a model that may wait, enough for what arrives while a "
                                      "new version loads; further requests are refused at once")
    num_batch_threads: int = flag(0, "batches that run at once, of all models; 0 for one per core")
    batching_parameters_file: Optional[str] = flag(None, "BatchingParameters as text; what it says wins over "
                                                   "the flags")
    tensorflow_intra_op_parallelism: int = flag(
        1, "threads within an operation; 0 for one per core, which pays when few clients use a large model")
    tensorflow_inter_op_parallelism: int = flag(0, "operations that run at once; 0 for one per core")
    max_text_bytes: int = flag(65536,
                               "maximum size of a text; tokens beyond max_seq_length are read, then cut off")
    max_body_bytes: int = flag(4194304, "maximum size of a request")
    max_inflight_body_bytes: int = flag(67108864, "size of all REST requests in flight, from their first "
                                        "bytes to their answers; beyond it the incomplete one that began "
                                        "first gets 503")
    max_connections: int = flag(1000, "REST connections; beyond them a silent one is closed, the "
                                "longest-idle or the slowest half-sent one")
    allowed_hosts: Tuple[str, ...] = flag((), "Host names that REST accepts besides addresses, this "
                                          "machine's names, names without a dot and names below .localhost, "
                                          ".internal and .cluster.local; * for any")
    max_ids_length: int = flag(512, "maximum token ids of a row; never more than the model has positions")
    max_message_fields: int = flag(16384, "maximum fields of a gRPC message, nested ones included; features "
                                   "and values of REST's examples")
    max_grpc_connections: int = flag(
        256, "gRPC connections; an idle one gives way to a new one; each takes 3 descriptors")
    max_grpc_bytes: int = flag(
        268435456, "size of all unanswered gRPC requests; beyond it the connection with the most is closed")
    max_grpc_calls: int = flag(1000,
                               "gRPC calls in flight; one whose request is incomplete gives way to a new one")
    grpc_receive_timeout_in_ms: int = flag(30000, "time limit for receiving the request of a gRPC call")
    grpc_channel_arguments: Optional[str] = flag(
        None, "gRPC's own arguments for the lifetime of connections, as "
        "grpc.max_connection_age_ms=60000,grpc.keepalive_time_ms=30000")
    monitoring_config_file: Optional[str] = flag(
        None, "MonitoringConfig in text format: whether there are metrics, and at which path")
    lame_duck_seconds: int = flag(0, "at shutdown, how long everything is still accepted and answered, while "
                                  "/readyz and gRPC's health say no and load balancers go elsewhere")
    drain_seconds: int = flag(30, "time limit for pending requests at shutdown, after that")
    version: bool = flag(False, "print the version of this program and exit")
    access_log: bool = flag(True, "write a JSON line for each request to standard output")

    def __post_init__(self) -> None:
        for name, least in (("port", 0), ("rest_api_port", 0), ("rest_api_timeout_in_ms", 1),
                            ("max_batch_size", 1), ("file_system_poll_wait_seconds", 0),
                            ("model_config_file_poll_wait_seconds", 0),
                            ("load_timeout_seconds", 1), ("max_enqueued_batches", 1),
                            ("num_batch_threads", 0), ("tensorflow_intra_op_parallelism", 0),
                            ("tensorflow_inter_op_parallelism", 0), ("max_text_bytes", 1),
                            ("max_body_bytes", 1), ("drain_seconds", 0), ("lame_duck_seconds", 0),
                            ("max_connections", 1),
                            ("max_inflight_body_bytes", self.max_body_bytes),
                            ("max_ids_length", 1), ("max_message_fields", 1), ("max_grpc_connections", 1),
                            ("max_grpc_bytes", 1), ("max_grpc_calls", 1), ("grpc_receive_timeout_in_ms", 1)):
            if getattr(self, name) < least:
                raise ValueError("%s must be at least %d, got %d" % (name, least, getattr(self, name)))
        for name in ("port", "rest_api_port"):
            if getattr(self, name) > 65535:
                raise ValueError("%s must be at most 65535, got %d" % (name, getattr(self, name)))
        if self.max_grpc_bytes < self.max_body_bytes:
            raise ValueError("max_grpc_bytes must be at least max_body_bytes, %d, got %d"
                             % (self.max_body_bytes, self.max_grpc_bytes))
        if self.max_models_memory_mb is not None and self.max_models_memory_mb < 1:
            raise ValueError("max_models_memory_mb must be at least 1, got %d" % self.max_models_memory_mb)
        if self.model_config_file_poll_wait_seconds and not self.model_config_file:
            raise ValueError("model_config_file_poll_wait_seconds is given without model_config_file")
        if self.batching_parameters_file and not self.enable_batching:
            raise ValueError("batching_parameters_file is given, and enable_batching is false")
        channel_arguments(self.grpc_channel_arguments)
        if not re.fullmatch(MODEL_NAME, self.model_name):
            raise ValueError("model_name must be a name without / and :, got %r" % self.model_name)


def channel_arguments(given: Optional[str]) -> Tuple[Tuple[str, int], ...]:
    """gRPC's arguments of --grpc_channel_arguments, by name. Raises ValueError for others, and for a value
    that is no number."""
    found: Dict[str, int] = {}
    for argument in given.split(",") if given else ():
        name, _, value = argument.strip().partition("=")
        if name not in CHANNEL_ARGUMENTS:
            raise ValueError("grpc_channel_arguments: wanted some of %s, got %r"
                             % (", ".join(CHANNEL_ARGUMENTS), name))
        if not re.fullmatch("-?[0-9]{1,9}", value):
            raise ValueError("grpc_channel_arguments: %s must be a whole number, got %r" % (name, value))
        found[name] = int(value)
    return tuple(found.items())
