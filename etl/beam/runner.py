"""Beam's pipeline, in this process: Create → Reshuffle → Map, on any runner.

Elements and results are small on purpose: the data itself goes from files to files (see docs/design.md), so
runners need no memory for it.
"""
import functools
import queue
import secrets
import shlex
import sys
from typing import Any, Callable, Optional, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineResult
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from etl.beam.cluster import RunnerConfig, external_environment
from etl.beam.worker_call import call, element_as_json
from etl.beam.worker_pool import start_pool
from etl.beam.worker_sockets import listen_at_sockets


def run_pipeline(label: str, function: Callable[[Any], None], elements: Sequence[Any], config: RunnerConfig,
                 started: "Optional[queue.Queue[PipelineResult]]" = None) -> Optional[Exception]:
    """Runs the pipeline to its end. Returns the error, if any; puts the running job into `started`."""
    try:
        options = _pipeline_options(label, config)
        pipeline = beam.Pipeline(_process_runner(options, config) if config.num_workers > 1
                                 else config.runner, options)
        _ = (pipeline
             | "List " + label >> beam.Create([element_as_json(element) for element in elements],
                                              reshuffle=False)
             | "Spread " + label >> beam.Reshuffle()
             | label >> beam.Map(functools.partial(call, function, config.shared_folder)))
        result = pipeline.run()
        if started is not None:
            started.put(result)
        result.wait_until_finish()
    except Exception as error:
        if str(error).startswith("KeyboardInterrupt"):    # Beam has its own class for Ctrl-C
            raise KeyboardInterrupt from None
        return error
    return None


def _pipeline_options(label: str, config: RunnerConfig) -> PipelineOptions:
    if not config.options:
        return PipelineOptions(flags=[], direct_num_workers=config.num_workers)
    flags = list(config.options) + ["--job_name=" + label]
    # Beam's own has one process for all, and listens on all addresses
    if "--environment_type=LOOPBACK" in flags:
        flags += _start_workers_here()
    return PipelineOptions(flags=flags)


def _start_workers_here() -> Sequence[str]:
    """Starts a pool in this process for an engine on this host; returns Beam's flags for it.

    Other users of the host can reach its port, too: a token for this run keeps them out.
    """
    token = secrets.token_hex(32)
    pool = start_pool("127.0.0.1:0", token)
    return ["--environment_type=EXTERNAL",
            "--environment_config=" + external_environment("127.0.0.1:%d" % pool.port, token)]


def _process_runner(options: PipelineOptions, config: RunnerConfig) -> FnApiRunner:
    """The DirectRunner's mode multi_processing, but over sockets, and with quotes: there, a space in Python's
    path would end the command."""
    listen_at_sockets(str(config.socket_folder))
    command = "%s -m etl.beam.worker_sockets" % shlex.quote(sys.executable)
    provision = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=JobServiceHandle.encode_pipeline_options(options.get_all_options()))
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command),
                       provision_info=ExtendedProvisionInfo(provision))
