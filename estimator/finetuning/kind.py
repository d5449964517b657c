"""A kind of fine-tuning: everything that differs between, for example, classes for a text and labels for its
tokens.

`finetuning` does the rest for every kind: examples → rows → batches → encoder → the kind's head → outputs →
its metrics.
"""
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from estimator.data.tasks import Example, Task
from estimator.finetuning.predictions import Part
from estimator.finetuning.flags import FinetuneConfig
from estimator.npu import devices
from estimator.training.curves import Chart
from estimator.training.jobs import Results
from estimator.training.model_fn import ModelFn, TrainingConfig
from estimator.weights.model_folder import ModelFolder
from etl.reports.page import Section


class Setting(NamedTuple):
    """Everything known about a fine-tuning run before it begins.

    Attributes:
      config: the flags, with all defaults filled in.
      folder: the files beside its checkpoints.
      parts: examples and rows by the part's name, for the parts that the flags ask for.
      seq_length: the length to which all batches are padded; None: each to its longest row.
    """
    config: FinetuneConfig
    task: Task
    device: devices.Device
    folder: ModelFolder
    parts: Dict[str, Part]
    seq_length: Optional[int]


class Kind(NamedTuple):
    """Functions; outputs are a model's for the examples of a part, [examples, …].

    Attributes:
      check_flags: takes the flags, the task and its examples by part; raises UserError for flags that do not
        fit the kind.
      model_fn: takes a setting and the numbers of a training run; see `model_fn`.
      run_model: takes a setting, an Estimator, a part, a batch size and a checkpoint; returns outputs.
      score: takes task, part and outputs; returns metrics by name.
      results_line: takes task and metrics; returns them as text.
      write_predictions: takes a folder, task, part and outputs; returns the paths of the files.
      sections: takes task, part and outputs; returns the report's sections below the curves.
      charts: of the report.
      is_exported: takes a task; returns whether serving.export supports such a model.
    """
    check_flags: Callable[[FinetuneConfig, Task, Dict[str, List[Example]]], None]
    model_fn: Callable[[Setting, TrainingConfig], ModelFn]
    run_model: Callable[[Setting, Any, Part, int, str], np.ndarray]
    score: Callable[[Task, Part, np.ndarray], Results]
    results_line: Callable[[Task, Results], str]
    write_predictions: Callable[[str, Task, Part, np.ndarray], List[str]]
    sections: Callable[[Task, Part, np.ndarray], Sequence[Section]]
    charts: Tuple[Chart, ...]
    is_exported: Callable[[Task], bool]
