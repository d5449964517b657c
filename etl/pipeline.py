"""The only file that knows Beam: one function over many small elements, on whatever runner.

Elements and results are small on purpose: the data itself goes from files to files (see docs/design.md). So the graph is Create → Reshuffle →
ParDo, and there is nothing for a runner to hold in memory.
"""
import re
from dataclasses import dataclass
from typing import Any, Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from etl.command_line import UserError

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
            raise RuntimeError("<user error>%s</user error>" % error)


def run_map(label: str, function: Callable[[Any], None], elements: Sequence[Any], config: RunnerConfig) -> None:
    """Calls `function` (of an importable module, with picklable arguments) once or more for each element.

    Raises UserError when a call raised UserError or OSError, with the same message.
    """
    if not elements:
        return
    try:
        with beam.Pipeline(runner=config.runner, options=_options(config)) as pipeline:
            _ = (pipeline
                 | "List " + label >> beam.Create(elements, reshuffle=False)
                 | "Spread " + label >> beam.Reshuffle()
                 | label >> beam.ParDo(Apply(function)))
    except Exception as error:                 # each runner wraps what a worker raised in a class of its own
        marked = _MARK.search(str(error))
        if not marked:
            raise
        raise UserError(marked.group(1)) from None


def _options(config: RunnerConfig) -> PipelineOptions:
    # Only "multi_processing" and "in_memory": the DirectRunner's threads lose elements in Beam 2.48.
    mode = "multi_processing" if config.num_workers > 1 else "in_memory"
    return PipelineOptions(flags=[], direct_num_workers=config.num_workers, direct_running_mode=mode)
