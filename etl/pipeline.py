"""The only file that knows Beam: one function over many small elements, on whatever runner.

Elements and results are small on purpose: the data itself goes from files to files (see docs/design.md). So the graph is Create → Reshuffle →
ParDo, and there is nothing for a runner to hold in memory.
"""
import atexit
import glob
import logging
import os
import re
import signal
import threading
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence, Set

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from etl.command_line import UserError, one_line

POLL_SECONDS = 1.0
GRACE_POLLS = 5                                # workers also go when a pipeline ends well, just before it says so

_MARK = re.compile("<user error>(.*?)</user error>", re.DOTALL)


@dataclass(frozen=True)
class RunnerConfig:
    """Which Beam runner, and how many processes when it is the DirectRunner."""
    runner: str
    num_workers: int


class Apply(beam.DoFn):
    """Calls a function for its effect on files. A user's mistake is marked, since only text comes back from a worker."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        self._function = function

    def process(self, element: Any) -> None:
        try:
            self._function(element)
        except (UserError, OSError) as error:
            raise RuntimeError("<user error>%s</user error>" % one_line(error))


def run_map(label: str, function: Callable[[Any], None], elements: Sequence[Any], config: RunnerConfig) -> None:
    """Calls `function` (of an importable module, with picklable arguments) once or more for each element.

    Raises UserError when a call raised UserError or OSError, with the same message.
    """
    if not elements:
        return
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)   # failures come back as exceptions; the rest is noise
    pipeline = beam.Pipeline(runner=config.runner, options=_options(config))
    _ = (pipeline
         | "List " + label >> beam.Create(elements, reshuffle=False)
         | "Spread " + label >> beam.Reshuffle()
         | label >> beam.ParDo(Apply(function)))
    if config.num_workers > 1:
        error = _run_watched(pipeline)
    else:
        error = _run(pipeline)
    if error is not None:                      # each runner wraps what a worker raised in a class of its own
        marked = _MARK.search(str(error))
        if not marked:
            raise error
        raise UserError(marked.group(1))


def _run(pipeline: beam.Pipeline) -> Optional[Exception]:
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:
        return error
    return None


def _run_watched(pipeline: beam.Pipeline) -> Optional[Exception]:
    """Runs the pipeline in a thread and watches its worker processes: when one is killed, the DirectRunner waits forever.

    Raises UserError when a worker died.
    """
    outcome: List[Optional[Exception]] = []
    known = _children()
    thread = threading.Thread(target=lambda: outcome.append(_run(pipeline)), daemon=True)
    thread.start()
    workers: Set[int] = set()
    polls_since_death = 0
    while thread.is_alive() and polls_since_death < GRACE_POLLS:
        thread.join(POLL_SECONDS)
        alive = _children() - known
        workers |= alive
        polls_since_death = polls_since_death + 1 if workers - alive else 0
    if not thread.is_alive():
        return outcome[0]
    for child in _children() - known:
        _kill_tree(child)
    atexit.register(os._exit, 1)               # Beam's threads would keep the process from ending
    raise UserError("a worker process died: killed, or out of memory. The same command goes on where this one stopped; "
                    "fewer --direct_num_workers need less memory")


def _kill_tree(process: int) -> None:
    for child in _children(process):
        _kill_tree(child)
    os.kill(process, signal.SIGKILL)


def _children(parent: Optional[int] = None) -> Set[int]:
    """Running child processes, by default of this one; nothing where there is no /proc."""
    parent = parent or os.getpid()
    found = set()
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, "rb") as stream:
                state, its_parent = stream.read().rsplit(b")", 1)[1].split()[:2]
        except OSError:                        # it ended while we looked
            continue
        if int(its_parent) == parent and state != b"Z":
            found.add(int(path.split("/")[2]))
    return found


def _options(config: RunnerConfig) -> PipelineOptions:
    # Only "multi_processing" and "in_memory": the DirectRunner's threads lose elements in Beam 2.48.
    mode = "multi_processing" if config.num_workers > 1 else "in_memory"
    return PipelineOptions(flags=[], direct_num_workers=config.num_workers, direct_running_mode=mode)
