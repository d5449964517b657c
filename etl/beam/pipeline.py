"""The only file that knows Beam: one function over many small elements, on whatever runner.

Elements and results are small on purpose: the data itself goes from files to files (see docs/design.md). So the graph is
Create → Reshuffle → Map, and there is nothing for a runner to hold in memory.

With several workers or on a cluster, Beam runs in a process of its own, and this one only watches it: whatever Beam's threads
and workers say goes to a log, and all of them can be ended at once, when a worker dies (Beam would wait for it forever) or the
user has had enough.
"""
import contextlib
import functools
import glob
import json
import logging
import os
import pickle
import queue
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional, Sequence, Tuple

from etl.beam.cluster import external_environment, switch_off_fork_handlers
from etl.beam.worker import start_pool
from etl.beam.worker_sockets import listen_at_sockets, socket_folder
from etl.common.command_line import UserError, one_line

POLL_SECONDS = 1.0
GRACE_POLLS = 15                               # a worker also goes when a pipeline ends well, just before it says so
START_SECONDS = 180.0
CANCEL_SECONDS = 15.0                          # for an engine to take a job whose command has gone; and to take it back
MESSAGE_CHARS = 300                            # of an engine's complaint, which may be a page of Java

_MARK = re.compile("<etl (UserError|OSError)>(.*?)</etl>", re.DOTALL)


@dataclass(frozen=True)
class RunnerConfig:
    """Which Beam runner, and where it writes what it has to say.

    Attributes:
      num_workers: processes, of the DirectRunner.
      options: Beam's flags for the engine; there are none for the DirectRunner, and always some for others.
      shared_folder: a folder, made by this command, that every worker must see.
      socket_folder: where worker processes of the DirectRunner meet; `run_map` makes it.
    """
    runner: str
    num_workers: int
    log_path: str = os.devnull
    options: Tuple[str, ...] = ()
    shared_folder: Optional[str] = None
    socket_folder: Optional[str] = None


def run_map(label: str, function: Callable[[Any], None], elements: Sequence[Any], config: RunnerConfig) -> None:
    """Calls `function` (of an importable module, with picklable arguments) once or more for each element.

    Elements are plain values: they travel as JSON, which runs nothing when it is read, so a tuple arrives as a list.

    Raises UserError or OSError when a call raised one, with the same message, and OSError when a worker died or an engine gave up.
    """
    if not elements:
        return
    if config.num_workers > 1 or config.options:
        error = _run_apart((label, function, elements, config))
    else:
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)   # failures come back as exceptions; the rest is noise
        error = _run(label, function, elements, config)
    if error is not None:                      # each runner wraps what a worker raised in a class of its own
        marked = _MARK.search(str(error))
        if not marked and config.options:
            raise OSError("the job failed: %s. The same command goes on where this one stopped. What Beam said: %s"
                          % (one_line(error)[:MESSAGE_CHARS], config.log_path))
        if not marked:
            raise error
        raise {"UserError": UserError, "OSError": OSError}[marked.group(1)](marked.group(2))


def _run(label: str, function: Callable[[Any], None], elements: Sequence[Any], config: RunnerConfig,
         started: "Optional[queue.Queue[Any]]" = None) -> Optional[Exception]:
    """Runs the pipeline in this process. Returns the error, if there is one; puts what can cancel the job into `started`."""
    import apache_beam as beam                 # a second and 50 MB, which a process that only watches need not spend
    from apache_beam.options.pipeline_options import PipelineOptions
    encoded = [json.dumps(element).encode("ascii") for element in elements]    # a file name that is not UTF-8, too
    try:
        if config.options:
            flags = list(config.options) + ["--job_name=" + label]
            if "--environment_type=LOOPBACK" in flags:    # Beam's own has one process for all, and listens to the whole net
                flags += _start_workers_here()
            options = PipelineOptions(flags=flags)
        else:
            options = PipelineOptions(flags=[], direct_num_workers=config.num_workers)
        pipeline = beam.Pipeline(_process_runner(options, config) if config.num_workers > 1 else config.runner, options)
        _ = (pipeline
             | "List " + label >> beam.Create(encoded, reshuffle=False)
             | "Spread " + label >> beam.Reshuffle()
             | label >> beam.Map(functools.partial(_call, function, config.shared_folder)))
        result = pipeline.run()
        if started is not None:
            started.put(result)
        result.wait_until_finish()
    except Exception as error:
        if str(error).startswith("KeyboardInterrupt"):    # Beam gives Ctrl-C a class of its own
            raise KeyboardInterrupt from None
        return error
    return None


def _call(function: Callable[[Any], None], shared_folder: Optional[str], encoded_element: bytes) -> None:
    """Calls the function for its effect on files. All but our own mistakes is marked: only text comes back from a worker."""
    try:
        if shared_folder and not os.path.isdir(shared_folder):    # else a worker would make one of its own, on its own disk
            raise UserError("--output_dir: %s is not there for the worker on host %s; it must be on a file system that all "
                            "hosts share, under the same path" % (shared_folder, socket.gethostname()))
        function(json.loads(encoded_element.decode("ascii")))
    except (UserError, OSError) as error:
        kind = "UserError" if isinstance(error, UserError) else "OSError"
        message = one_line(error).encode("utf-8", "backslashreplace").decode("utf-8")    # a name in it need not be UTF-8
        if shared_folder and kind == "OSError":
            message += " (on host %s)" % socket.gethostname()
        raise RuntimeError("<etl %s>%s</etl>" % (kind, message)) from None


def _start_workers_here() -> Sequence[str]:
    """Starts a pool in this process for an engine on this host; returns Beam's flags for it.

    Other users of the host reach its port, too: a token of this run's own keeps them out.
    """
    token = secrets.token_hex(32)
    pool = start_pool("127.0.0.1:0", token)
    return ["--environment_type=EXTERNAL", "--environment_config=" + external_environment("127.0.0.1:%d" % pool.port, token)]


def _process_runner(options: Any, config: RunnerConfig) -> Any:
    """The DirectRunner's mode multi_processing, but over sockets, and with quotes: there, a blank in Python's path ends the command."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import SubprocessSDKEnvironment
    listen_at_sockets(str(config.socket_folder))
    command = "%s -m etl.beam.worker_sockets" % shlex.quote(sys.executable)
    provision = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=JobServiceHandle.encode_pipeline_options(options.get_all_options()))
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command), provision_info=ExtendedProvisionInfo(provision))


def _run_apart(request: Tuple[Any, ...]) -> Optional[Exception]:
    """Runs the pipeline in another process, in a session of its own, so that Ctrl-C reaches this one alone."""
    config: RunnerConfig = request[-1]
    if config.options:
        return _watch_apart(request)
    with socket_folder() as folder:            # of this process, which outlives all that are killed
        return _watch_apart((*request[:-1], replace(config, socket_folder=folder)))


def _watch_apart(request: Tuple[Any, ...]) -> Optional[Exception]:
    """Starts the other process, gives it the request, and ends it; returns the pipeline's error, if there is one."""
    log_path = request[-1].log_path
    with open(log_path, "ab", opener=_open_for_owner) as log:
        process = subprocess.Popen([sys.executable, "-c", "from etl.beam.pipeline import answer; answer()"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    try:
        pickle.dump(request, process.stdin)    # the pipe stays open: its end tells the process that this one is gone
        process.stdin.flush()
        if request[-1].options:
            select.select([process.stdout], [], [])    # workers are the engine's to watch
        else:
            _watch(process, request[-1])
        reply = process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise EOFError
        message = json.loads(reply.decode("ascii"))
        return None if message is None else RuntimeError(message)
    except (BrokenPipeError, EOFError):
        raise OSError("the process that runs Beam died: killed, or out of memory. The same command goes on where this one "
                      "stopped. What it said: %s" % log_path)
    except KeyboardInterrupt:
        if request[-1].options:
            process.stdin.close()              # tells it to cancel the job, and to go
            process.stdin = None
            select.select([process.stdout], [], [], 2 * CANCEL_SECONDS)
        raise
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _open_for_owner(path: str, flags: int) -> int:
    """Of a new log no other user can read what engines tell: a job's options, with the token of its pool."""
    return os.open(path, flags, 0o600)


def answer() -> None:
    """The other process: runs the pipeline that stdin names and says on stdout how it went; ends with its parent."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                              # what anything prints goes to the log
    switch_off_fork_handlers()                 # Beam starts workers, or the job server
    request = pickle.load(sys.stdin.buffer)
    config: RunnerConfig = request[-1]
    started: "queue.Queue[Any]" = queue.Queue()
    if config.options:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        if config.options:                     # a job on a cluster does not end with who submitted it
            with contextlib.suppress(Exception):
                job = started.get(timeout=CANCEL_SECONDS)      # it may be on its way there: only then is it known
                logging.info("The command has gone: its job is cancelled")
                job.cancel()
        if config.socket_folder:
            shutil.rmtree(config.socket_folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with reply:
        label, function, elements, _ = request
        error = _run(label, function, elements, config, started)
        reply.write(json.dumps(None if error is None else str(error)).encode("ascii") + b"\n")


def _watch(process: "subprocess.Popen[bytes]", config: RunnerConfig) -> None:
    """Returns when the process has something to say. Raises OSError when one of its workers died, or none has started.

    Beam starts all workers at once. One that dies within a second may never be seen, so they are counted, not known by name.
    At a pipeline's end they go one after the other, which is no death as long as there are fewer from look to look.
    """
    begin = time.time()
    seen = False
    alive = polls_with_fewer = 0
    while not select.select([process.stdout], [], [], POLL_SECONDS)[0]:
        before, alive = alive, _count_children(process.pid)
        seen = seen or alive > 0
        polls_with_fewer = polls_with_fewer + 1 if seen and alive < config.num_workers and alive == before else 0
        if polls_with_fewer == GRACE_POLLS:
            raise OSError("a worker process died: killed, or out of memory. The same command goes on where this one stopped; "
                          "fewer --direct_num_workers need less memory. What the workers said: %s" % config.log_path)
        if not seen and time.time() - begin > START_SECONDS and os.path.isdir("/proc/self"):
            raise OSError("no worker process has started within %d seconds. What Beam said: %s" % (START_SECONDS, config.log_path))


def _count_children(parent: int) -> int:
    """Running child processes of a process; 0 where there is no /proc."""
    count = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as stream:
                state, its_parent = stream.read().rsplit(b")", 1)[1].split()[:2]
        except OSError:                        # it ended while we looked
            continue
        count += int(its_parent) == parent and state != b"Z"
    return count
