"""One class, or one number, for a text or a pair of texts."""
from typing import Any, Dict, List, Sequence

import numpy as np

from estimator.data import tasks
from estimator.data.rows import RowsConfig, make_rows
from estimator.data.tasks import TRAIN, Example, Task
from estimator.finetuning import predictions, report, scores
from estimator.finetuning.predictions import Part
from estimator.finetuning.flags import BALANCED, FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.model.kinds import CLASSES
from estimator.training import model_fn
from estimator.training.model_fn import ModelFn, TrainingConfig
from estimator.training.jobs import Results
from estimator.weights.model_folder import ModelFolder
from etl.common.command_line import UserError
from etl.reports.page import Section


def check_flags(config: FinetuneConfig, task: Task, examples: Dict[str, List[Example]]) -> None:
    """Raises UserError for flags that do not fit the task."""
    config.check_task(task, scores.metrics_of(len(task.labels), task.pairs_per_question))
    pairs = any(example.text_b is not None for found in examples.values() for example in found[:1])
    if config.doc_stride and pairs:
        raise UserError("--doc_stride is for tasks with one text; %s has pairs" % task.name)
    check_stride(config)
    if config.class_weights and task.is_regression:
        raise UserError("--class_weights: %s has no classes" % task.name)
    check_class_weights(config, task)


def check_stride(config: FinetuneConfig) -> None:
    """Raises UserError for a --doc_stride that skips words."""
    most = (config.max_seq_length or 0) - 2
    if config.doc_stride and config.doc_stride > most:
        raise UserError("--doc_stride must be at most --max_seq_length - 2, which is %d, or words are "
                        "skipped; got %d" % (most, config.doc_stride))


def check_class_weights(config: FinetuneConfig, task: Task) -> None:
    """Raises UserError for weights that are no numbers, or of another number than the labels."""
    if config.class_weights not in ((), (BALANCED,)) and len(given_weights(config)) != len(task.labels):
        raise UserError("--class_weights: task %s has %d labels, got %d weights"
                        % (task.name, len(task.labels), len(config.class_weights)))


def class_weights(config: FinetuneConfig, task: Task, label_ids: Sequence[int]) -> List[float]:
    """A weight per class; [] if all are equal. Balanced: n / (classes · n of the class)."""
    if config.class_weights == (BALANCED,):
        counts = [max(1, list(label_ids).count(number)) for number in range(len(task.labels))]
        return [len(label_ids) / (len(counts) * count) for count in counts]
    return given_weights(config)


def given_weights(config: FinetuneConfig) -> List[float]:
    """The numbers of --class_weights. Raises UserError for what is none."""
    try:
        weights = [float(weight) for weight in config.class_weights]
    except ValueError:
        weights = [-1.0]
    if any(not 0 <= weight < float("inf") for weight in weights) or (weights and not any(weights)):
        raise UserError("--class_weights must be %s, or numbers of at least 0, not all of them 0; got %s"
                        % (BALANCED, " ".join(config.class_weights)))
    return weights


def make_model_fn(setting: Setting, numbers: TrainingConfig) -> ModelFn:
    """The classifier's."""
    label_ids = setting.parts[TRAIN].rows.label_ids.tolist() if TRAIN in setting.parts else []
    weights = class_weights(setting.config, setting.task, label_ids) if label_ids else []
    return model_fn.classifier_model_fn(setting.folder.config, numbers, len(setting.task.labels), weights)


def run_model(setting: Setting, estimator: Any, part: Part, batch_size: int, checkpoint: str) -> np.ndarray:
    """float64 [examples, classes], for a regression [examples, 1]."""
    return predictions.run_model(estimator, part.rows, batch_size, setting.seq_length, checkpoint)


def read_examples(config: FinetuneConfig, task: Task, part: str) -> List[Example]:
    return tasks.read_examples(task, config.data_dir, part)


def describe(config: FinetuneConfig, task: Task) -> Dict[str, Any]:
    """What the model's folder says of it."""
    return {"kind": CLASSES, "labels": task.labels}


def rows_config_of(config: FinetuneConfig, folder: ModelFolder) -> RowsConfig:
    return RowsConfig(folder.tokenizer, folder.max_seq_length, config.doc_stride, folder.labels)


def score(setting: Setting, part: Part, outputs: np.ndarray) -> Results:
    return predictions.score(setting.task, part, outputs)


def write_predictions(folder: str, setting: Setting, part: Part, outputs: np.ndarray) -> List[str]:
    return predictions.write_predictions(folder, setting.task, part, outputs)


def sections(setting: Setting, part: Part, outputs: np.ndarray) -> Sequence[Section]:
    return report.sections(setting.task, part, outputs)


CLASS_KIND = Kind(
    read_examples=read_examples,
    check_flags=check_flags,
    describe=describe,
    rows_config=rows_config_of,
    make_rows=make_rows,
    model_fn=make_model_fn,
    run_model=run_model,
    score=score,
    results_line=predictions.results_line,
    write_predictions=write_predictions,
    sections=sections,
    charts=report.CHARTS)
