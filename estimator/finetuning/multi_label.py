"""Several labels for a text: any number of them, each with a probability of its own."""
import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.data import label_lists
from estimator.data.rows import Rows, RowsConfig
from estimator.data.rows import make_rows as make_class_rows
from estimator.data.tasks import DEV, TEST, TRAIN, Example, Task
from estimator.finetuning import classes, label_report, label_scores, label_thresholds, predictions
from estimator.finetuning.flags import BALANCED, FinetuneConfig
from estimator.finetuning.kind import Kind, Setting
from estimator.finetuning.predictions import PREDICTIONS_FILE, Part, exact, json_lines, write_all
from estimator.model import heads, modeling
from estimator.model.kernels import Dropout
from estimator.model.kinds import MULTI_LABEL
from estimator.training import best_checkpoint, model_fn
from estimator.training.jobs import Results
from estimator.training.model_fn import Found, ModelFn, TrainingConfig
from estimator.weights.model_folder import ON_DEV, Labelling, ModelFolder
from etl.common.command_line import UserError
from etl.reports.page import Section


def read_examples(config: FinetuneConfig, task: Task, part: str) -> List[Example]:
    return label_lists.read_label_lists(task, str(config.data_dir), part, str(config.label_separator))


def check_flags(config: FinetuneConfig, task: Task, examples: Dict[str, List[Example]]) -> None:
    """Raises UserError for flags that do not fit the task."""
    config.check_task(task, label_scores.METRICS)
    classes.check_stride(config)
    classes.check_class_weights(config, task)
    if finds_thresholds(config) and not config.do_eval:
        raise UserError("--label_threshold %s needs --do_eval, which finds them" % ON_DEV)


def narrowed(task: Task, examples: Dict[str, List[Example]]) -> Task:
    """A task without labels of its own has those of its files, in the order in which they come, the training
    file's first; prints their number."""
    if task.labels:
        return task
    every = [example for part in examples.values() for example in part]
    found = label_lists.found_labels(every)
    if not 2 <= len(found) <= max(2, len(every) // 2):
        raise UserError("task %s: %d labels in %d examples: wanted at least 2, and examples for each; name "
                        "the column of labels by --columns, and what separates them by --label_separator"
                        % (task.name, len(found), len(every)))
    print("Labels found: %d: %s" % (len(found), ", ".join(found)))
    return dataclasses.replace(task, labels=found)


def describe(config: FinetuneConfig, task: Task) -> Dict[str, Any]:
    """What the model's folder says of it."""
    return {"kind": MULTI_LABEL, "labels": task.labels, "labelling": Labelling(str(config.label_threshold))}


def rows_config_of(config: FinetuneConfig, folder: ModelFolder) -> RowsConfig:
    return RowsConfig(folder.tokenizer, folder.max_seq_length, config.doc_stride, folder.labels,
                      kind=MULTI_LABEL)


def make_rows(examples: Sequence[Example], rows_config: RowsConfig) -> Rows:
    """The rows of classes; label_ids are float32 [rows, labels], 1 for each label of the example."""
    rows = make_class_rows([example._replace(label=None) for example in examples], rows_config)
    return rows._replace(label_ids=multi_hot(examples, rows_config.labels)[rows.example_numbers])


def multi_hot(examples: Sequence[Example], names: Sequence[str]) -> np.ndarray:
    """float32 [examples, labels]: 1 for each label that an example has."""
    index, found = {name: number for number, name in enumerate(names)}, np.zeros((len(examples), len(names)),
                                                                                np.float32)
    for number, example in enumerate(examples):
        found[number, [index[name] for name in example.label or ()]] = 1
    return found


def tell_rows(setting: Setting, part: Part) -> None:
    """Says how many labels a text has, and how many texts have none."""
    if not part.has_labels:
        print("%s: %d texts, whose labels are not known" % (part.name, len(part.examples)))
        return
    counts = part.label_ids.sum(axis=1)
    print("%s: %d texts with %.2f labels each, at most %d; %d without one"
          % (part.name, len(counts), counts.mean(), counts.max(), (counts == 0).sum()))


def positive_weights(config: FinetuneConfig, labels: np.ndarray) -> List[float]:
    """A weight for the loss of the examples that have a label, by label; [] if all are 1. Balanced: the
    examples without it by those with it, so that both weigh the same."""
    if config.class_weights == (BALANCED,):
        counts = labels.sum(axis=0)
        return [float(weight) for weight in (len(labels) - counts) / np.maximum(counts, 1)]
    return classes.given_weights(config)


def make_model_fn(setting: Setting, numbers: TrainingConfig) -> ModelFn:
    """A probability for each label."""
    weights = positive_weights(setting.config, setting.parts[TRAIN].label_ids) if (
        TRAIN in setting.parts) else []

    def head(config: AlbertConfig, encoder_output: modeling.EncoderOutput, features: Mapping[str, tf.Tensor],
             dropout: Optional[Dropout]) -> Found:
        found = heads.multi_label(config, encoder_output, len(setting.task.labels), features["label_ids"],
                                  tf.constant(weights, tf.float32) if weights else None, dropout)
        return Found(found.loss, {}, {"outputs": found.probabilities})
    return model_fn.finetuning_model_fn(setting.folder.config, numbers, head)


def finds_thresholds(config: FinetuneConfig) -> bool:
    """Whether this run finds the model's thresholds on its dev examples."""
    return bool(config.do_train) and config.label_threshold == ON_DEV


def thresholds_of(setting: Setting, part: Part, outputs: np.ndarray) -> List[float]:
    """By label index. After training they are found on the dev examples where that is wanted; else they are
    the model's."""
    is_dev = DEV in setting.parts and part.examples is setting.parts[DEV].examples
    if finds_thresholds(setting.config) and is_dev:
        return label_scores.best_thresholds(part.label_ids > 0, outputs)
    given, folder = Labelling(str(setting.config.label_threshold)), setting.config.output_dir
    model = dataclasses.replace(setting.folder, labelling=given)
    return label_thresholds.of_model(best_checkpoint.choose(folder, "output_dir"), model)


def score(setting: Setting, part: Part, outputs: np.ndarray) -> Results:
    """All numbers of a part with labels and, where the training texts are known, those of giving every text
    their most frequent labels."""
    labels = part.label_ids > 0
    found = label_scores.results_of(labels, outputs, thresholds_of(setting, part, outputs))
    results: Results = {"eval_" + name: value for name, value in found.items()}
    results.update(num_examples=len(part.examples), num_labels=int(labels.sum()))
    if TRAIN in setting.parts:
        frequent = label_scores.most_frequent(setting.parts[TRAIN].label_ids > 0)
        same = np.repeat([frequent.astype(float)], len(labels), axis=0)
        of_frequent = label_scores.results_of(labels, same, [label_scores.DEFAULT_THRESHOLD] * len(frequent))
        results.update({name + "_of_frequent": of_frequent[name]
                        for name in ("micro_f1", "macro_f1", "mean_average_precision")})
    return results


def results_line(task: Task, results: Results) -> str:
    """`1498 dev texts with 1657 labels: eval_micro_f1 0.8123  eval_macro_f1 0.7210  …`."""
    parts = ["%s %.4f" % (name, results[name])
             for name in ("eval_micro_f1", "eval_macro_f1", "eval_mean_average_precision", "eval_exact_match",
                          "eval_loss")]
    if "micro_f1_of_frequent" in results:
        parts.append("micro F1 of the most frequent labels %.4f" % results["micro_f1_of_frequent"])
    return "%d dev texts with %d labels: %s" % (results["num_examples"], results["num_labels"],
                                                "  ".join(parts))


def write_predictions(folder: str, setting: Setting, part: Part, outputs: np.ndarray) -> List[str]:
    """Writes an object for each text; for dev the thresholds found on it, beside the checkpoint; for test
    parts lines of id and labels. Returns the paths."""
    names, thresholds = setting.task.labels, thresholds_of(setting, part, outputs)
    chosen = label_scores.choose(outputs, thresholds)
    lines = [{"text_a": example.text_a, "gold": None if example.label is None else list(example.label),
              "predicted": [names[number] for number in np.flatnonzero(found)],
              "probabilities": {name: float(exact(value)) for name, value in zip(names, row)}}
             for example, found, row in zip(part.examples, chosen, outputs)]
    written = {part.prefix + PREDICTIONS_FILE: json_lines(lines)}
    if part.name.startswith(TEST):
        written[predictions.submission_name(setting.task, part)] = json_lines(
            [{"id": number if example.id is None else example.id, "label": line["predicted"]}
             for number, (example, line) in enumerate(zip(part.examples, lines))])
    paths = write_all(folder, written)
    if part.name == DEV and finds_thresholds(setting.config):
        checkpoint = best_checkpoint.choose(folder, "output_dir")
        paths.append(label_thresholds.write(checkpoint, setting.folder, thresholds))
    return paths


def sections(setting: Setting, part: Part, outputs: np.ndarray) -> Sequence[Section]:
    """Below the curves: F1 by label, examples of each kind of error."""
    return label_report.sections(part.examples, setting.task.labels, part.label_ids > 0, outputs,
                                 thresholds_of(setting, part, outputs))


MULTI_LABEL_KIND = Kind(
    read_examples=read_examples,
    check_flags=check_flags,
    narrowed=narrowed,
    describe=describe,
    rows_config=rows_config_of,
    make_rows=make_rows,
    tell_rows=tell_rows,
    model_fn=make_model_fn,
    run_model=classes.run_model,
    score=score,
    results_line=results_line,
    write_predictions=write_predictions,
    sections=sections,
    charts=label_report.CHARTS)
