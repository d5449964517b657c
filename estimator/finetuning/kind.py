"""What a kind of fine-tuning is: all that differs between classes for a text and, say, labels for its tokens.

`finetuning` does the rest for every kind: examples → rows → batches → encoder → the kind's head → outputs →
its numbers.
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
    """All that is known of one fine-tuning before it begins.

    Attributes:
      config: the flags, without gaps.
      folder: what stands beside its checkpoints.
      parts: examples and rows by the part's name, of those parts that the flags want.
      seq_length: what all batches are padded to; None: each to its longest.
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
      check_flags: of the flags, the task and its examples by part; raises UserError for what does not fit
        the kind.
      model_fn: of a setting and the numbers of a training; see `model_fn`.
      run_model: of a setting, an Estimator, a part, the size of a batch and a checkpoint: outputs.
      score: of task, part and outputs: numbers by name.
      results_line: of task and numbers: what one reads of them.
      write_predictions: of a folder, task, part and outputs: paths of the files.
      sections: of task, part and outputs: what the report shows below the curves.
      charts: of the report.
      is_exported: of a task: whether serving.export takes such a model.
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
