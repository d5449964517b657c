"""A kind of fine-tuning: everything that differs between, for example, classes for a text and labels for its
tokens.

`finetuning` does the rest for every kind: examples → rows → batches → encoder → the kind's head → outputs →
its metrics.
"""
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from estimator.data.rows import Rows, RowsConfig
from estimator.data.tasks import Task
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
    """Functions. Examples are the kind's own, with `label`, None where it is not known, and `id` last;
    outputs are a model's for the examples of a part, whatever the kind has for them.

    Attributes:
      read_examples: takes the flags, the task and a part's name; returns its examples.
      check_flags: takes the flags, the task and its examples by part; raises UserError for flags that do not
        fit the kind.
      describe: takes the flags and the task; returns fields of ModelFolder.
      rows_config: takes the flags and the model's folder; returns how examples become rows.
      make_rows: takes examples and how they become rows.
      model_fn: takes a setting and the numbers of a training run; see `model_fn`.
      run_model: takes a setting, an Estimator, a part, a batch size and a checkpoint; returns outputs.
      score: takes a setting, a part and its outputs; returns metrics by name, eval_loss and the task's metric
        among them.
      results_line: takes task and metrics; returns them as text.
      write_predictions: takes a folder, a setting, a part and its outputs; returns the paths of the files.
      sections: takes a setting, a part and its outputs; returns the report's sections below the curves.
      charts: of the report.
      narrowed: takes the task and its examples by part; returns the task without what no example has.
      tell_rows: takes a setting and a part; prints what is to be said of its rows.
    """
    read_examples: Callable[[FinetuneConfig, Task, str], List[Any]]
    check_flags: Callable[[FinetuneConfig, Task, Dict[str, List[Any]]], None]
    describe: Callable[[FinetuneConfig, Task], Dict[str, Any]]
    rows_config: Callable[[FinetuneConfig, ModelFolder], RowsConfig]
    make_rows: Callable[[Sequence[Any], RowsConfig], Rows]
    model_fn: Callable[[Setting, TrainingConfig], ModelFn]
    run_model: Callable[[Setting, Any, Part, int, str], Any]
    score: Callable[[Setting, Part, Any], Results]
    results_line: Callable[[Task, Results], str]
    write_predictions: Callable[[str, Setting, Part, Any], List[str]]
    sections: Callable[[Setting, Part, Any], Sequence[Section]]
    charts: Tuple[Chart, ...]
    narrowed: Callable[[Task, Dict[str, List[Any]]], Task] = lambda task, examples: task
    tell_rows: Callable[[Setting, Part], None] = lambda setting, part: None
