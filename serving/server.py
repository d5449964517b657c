"""Serves an exported model with TensorFlow Serving's interfaces: gRPC, and REST with a page at / to try
the model.

  python -m serving.server
  python -m serving.server --model_base_path output/lcqmc_export --model_name lcqmc --host 0.0.0.0

The newest version in --model_base_path serves; one that appears later takes over without a failed request.
--model_config_file is for several models, or several versions of one.
Requests that arrive while the model is busy run as one batch. While the server starts, /healthz answers, and
all else is 503. On SIGTERM and Ctrl-C it goes on for --lame_duck_seconds, in which /readyz says no, finishes
pending requests, then exits.

  curl -d '{"instances": [{"text_a": "手机没信号怎么办", "text_b": "手机搜不到网络怎么处理"}]}' \\
      http://127.0.0.1:8501/v1/models/albert:predict

  /v1/models/NAME                       state, :predict, :classify, :regress, /metadata, as TensorFlow Serving
  /healthz, /readyz                     liveness and readiness probes
  /monitoring/prometheus/metrics        latencies, batch sizes, queue, rejections, versions, memory
  /openapi.json                         the description of the REST interface
"""
import os
import signal
import sys

if __name__ == "__main__":
    # Until an event loop handles them, and before any other import: for a container's first process the
    # system drops signals without handlers, and Python's own SIGINT is an exception, raised in any library.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))        # see the Dockerfile

from typing import Optional, Sequence

from albert_config import VERSION
from etl.common.command_line import UserError, run
from serving.service import process
from serving.service.early_answers import EarlyAnswers
from serving.service.flags import ServerConfig
from serving.service.line_log import relayed_errors


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("serving.server", __doc__, ServerConfig, serve, argv)


def serve(config: ServerConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises UserError for a port that is taken and for a folder without
    a model."""
    if config.version:
        print("chinese-albert %s, with the interfaces of TensorFlow Serving 1.15" % VERSION)
        return
    # before the libraries are imported, which keep what they find
    with process.outputs_apart() as output:
        rest_socket = process.bind(config.host, config.rest_api_port, "rest_api_port")
        process.listen(rest_socket, "rest_api_port")
        grpc_socket = process.bind(config.host, config.port, "port")
        with EarlyAnswers(rest_socket) as early:
            try:
                from serving.service import running    # takes two seconds: neither --help nor a probe waits
            except ImportError as error:
                raise UserError("%s is not installed: pip install this project with [serve]" % error.name)
            running.serve(config, output, rest_socket, grpc_socket, early.end)


if __name__ == "__main__":
    # At once: the libraries' exit handlers would wait for hanging threads, such as a load on a dead mount.
    with relayed_errors():                     # also before the libraries are imported
        status = main()
        sys.stderr.flush()                     # os._exit does not
    os._exit(status)
