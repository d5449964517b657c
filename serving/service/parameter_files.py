"""TensorFlow Serving's parameter files: batching and monitoring."""
import dataclasses
import logging
from typing import Any, Optional

from etl.common.command_line import UserError
from serving.service import text_messages
from serving.service.flags import ServerConfig
from serving.service.monitoring import METRICS_PATH

BATCHING_FLAGS = ("max_batch_size", "max_enqueued_batches", "num_batch_threads")
BATCHING_WITHOUT_EFFECT = {
    "batch_timeout_micros": "no batch waits to fill up", "allowed_batch_sizes": "batches are not padded",
    "pad_variable_length_inputs": "rows of other lengths run in other batches",
    "thread_pool_name": "there is one pool"}
OWN_PATHS = ("/", "/healthz", "/readyz", "/model.json", "/openapi.json")
LOG = logging.getLogger("serving")


def with_batching_parameters(config: ServerConfig) -> ServerConfig:
    """The flags, overridden by --batching_parameters_file. Logs parameters that have no effect. Raises
    UserError for an unreadable file or invalid values."""
    path = config.batching_parameters_file
    if not path:
        return config
    found: Any = text_messages.new("BatchingParameters")
    text_messages.read(path, found, "--batching_parameters_file")
    given = {field.name: value for field, value in found.ListFields()}
    for name in sorted(BATCHING_WITHOUT_EFFECT.keys() & given.keys()):
        LOG.warning("--batching_parameters_file: %s: %s has no effect: %s", path, name,
                    BATCHING_WITHOUT_EFFECT[name])
    try:
        return dataclasses.replace(config, **{name: given[name].value for name in BATCHING_FLAGS
                                              if name in given})
    except ValueError as error:
        raise UserError("--batching_parameters_file: %s: %s" % (path, error))


def metrics_path(path: Optional[str]) -> Optional[str]:
    """The path of the metrics, from --monitoring_config_file; None if it turns them off. Raises UserError for
    an unreadable file or an invalid path."""
    if not path:
        return METRICS_PATH
    config: Any = text_messages.new("MonitoringConfig")
    text_messages.read(path, config, "--monitoring_config_file")
    prometheus = config.prometheus_config
    if not prometheus.enable:
        return None
    where: str = prometheus.path or METRICS_PATH
    if not where.startswith("/") or where.startswith("/v1/") or set("{}?# ") & set(where):
        raise UserError("--monitoring_config_file: %s: path must begin with /, not with /v1/, and have none "
                        "of {}?# and blanks, got %r" % (path, where))
    if where in OWN_PATHS:
        raise UserError("--monitoring_config_file: %s: path %s is the server's own" % (path, where))
    return where
