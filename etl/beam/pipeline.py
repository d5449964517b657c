"""One function over many small elements, on any runner: starts Beam, monitors it, and reports the outcome.

With several workers or on a cluster, Beam runs in a separate process: the output of Beam's threads and
workers goes to a log, and all of them can be killed at once, when a worker dies (Beam would wait for it
forever) or the user interrupts.
"""
import contextlib
import glob
import json
import logging
import os
import pickle
import queue
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any, Callable, Optional, Sequence, Tuple

from etl.beam.cluster import RunnerConfig, prepare_grpc
from etl.beam.socket_folder import socket_folder
from etl.beam.worker_call import error_of_worker
from etl.common.command_line import one_line

POLL_SECONDS = 1.0
GRACE_POLLS = 15  # workers also exit when a pipeline succeeds, just before it reports that
START_SECONDS = 180.0
CANCEL_SECONDS = 15.0               # for an engine to accept, and to cancel, a job whose command has ended
MESSAGE_CHARS = 300                 # of an engine's error, which may be a page of Java


def run_map(label: str, function: Callable[[Any], None], elements: Sequence[Any],
            config: RunnerConfig) -> None:
    """Calls `function` (of an importable module, with picklable arguments) once or more for each element.

    Elements are plain values: they are sent as JSON, which executes nothing when parsed, so a tuple arrives
    as a list.

    Raises UserError or OSError if a call raised one, with the same message, and OSError if a worker died or
    an engine gave up.
    """
    if not elements:
        return
    if config.num_workers > 1 or config.options:
        error = _run_apart((label, function, elements, config))
    else:
        # failures come back as exceptions; the rest is noise
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        error = _run(label, function, elements, config)
    if error is None:
        return
    raised = error_of_worker(error)
    if raised:
        raise raised
    if config.options:
        raise OSError("the job failed: %s. Run the same command again to resume the build. Beam's log: %s"
                      % (one_line(error)[:MESSAGE_CHARS], config.log_path))
    raise error


def _run(*request: Any) -> Optional[Exception]:
    """Runs the pipeline in this process, see `runner.run_pipeline`."""
    # Beam takes a second and 50 MB, which a process that only monitors can save
    from etl.beam.runner import run_pipeline
    return run_pipeline(*request)


def _run_apart(request: Tuple[Any, ...]) -> Optional[Exception]:
    """Runs the pipeline in another process, in its own session, so that Ctrl-C reaches only this one."""
    config: RunnerConfig = request[-1]
    if config.options:
        return _watch_apart(request)
    with socket_folder() as folder:            # of this process, which outlives all that are killed
        return _watch_apart((*request[:-1], replace(config, socket_folder=folder)))


def _watch_apart(request: Tuple[Any, ...]) -> Optional[Exception]:
    """Starts the other process, sends it the request, and ends it; returns the pipeline's error, if any."""
    log_path = request[-1].log_path
    with open(log_path, "ab", opener=_open_for_owner) as log:
        process = subprocess.Popen([sys.executable, "-c", "from etl.beam.pipeline import answer; answer()"],
                                   stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    try:
        # the pipe stays open: its end tells the process that this one is gone
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        if request[-1].options:
            select.select([process.stdout], [], [])    # the engine monitors the workers
        else:
            _watch(process, request[-1])
        reply = process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise EOFError
        message = json.loads(reply.decode("ascii"))
        return None if message is None else RuntimeError(message)
    except (BrokenPipeError, EOFError):
        raise OSError("the process that runs Beam died: killed, or out of memory. Run the same command again "
                      "to resume the build. Its log: %s" % log_path)
    except KeyboardInterrupt:
        if request[-1].options:
            process.stdin.close()              # tells it to cancel the job and exit
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
    """The other process: runs the pipeline given on stdin and reports the outcome on stdout; ends with its
    parent."""
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                              # all output goes to the log
    prepare_grpc()                             # Beam starts workers, or the job server
    request = pickle.load(sys.stdin.buffer)
    config: RunnerConfig = request[-1]
    started: "queue.Queue[Any]" = queue.Queue()
    if config.options:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        if config.options:  # a job on a cluster does not end with the process that submitted it
            with contextlib.suppress(Exception):
                job = started.get(timeout=CANCEL_SECONDS)  # it may be on its way there: only then is it known
                logging.info("The command has ended: cancelling its job")
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
    """Returns when the process has output. Raises OSError if one of its workers died, or none has started.

    Beam starts all workers at once. One that dies within a second may never be seen, so they are counted, not
    identified. At a pipeline's end they exit one after the other, which is normal as long as there are fewer
    at each check.
    """
    begin = time.time()
    seen = False
    alive = polls_with_fewer = 0
    while not select.select([process.stdout], [], [], POLL_SECONDS)[0]:
        before, alive = alive, _count_children(process.pid)
        seen = seen or alive > 0
        polls_with_fewer = (polls_with_fewer + 1 if seen and alive < config.num_workers and alive == before
                            else 0)
        if polls_with_fewer == GRACE_POLLS:
            raise OSError("a worker process died: killed, or out of memory. Run the same command again to "
                          "resume the build; fewer --direct_num_workers need less memory. Log of the "
                          "workers: %s" % config.log_path)
        if not seen and time.time() - begin > START_SECONDS and os.path.isdir("/proc/self"):
            raise OSError("no worker process has started within %d seconds. Beam's log: %s"
                          % (START_SECONDS, config.log_path))


def _count_children(parent: int) -> int:
    """Number of running child processes of a process; 0 without /proc."""
    count = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as stream:
                state, its_parent = stream.read().rsplit(b")", 1)[1].split()[:2]
        except OSError:                        # it ended in the meantime
            continue
        count += int(its_parent) == parent and state != b"Z"
    return count
