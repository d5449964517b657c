"""A fine-tuned model's predictions for all examples of a part: outputs, their scores, and prediction files.

  predictions.jsonl        dev: one object per example, with text, gold label, prediction and
                           probabilities
  test_results.tsv         probabilities by class index, one line per example; a regression's value
  test_predictions.jsonl   as predictions.jsonl
  <task>_predict.json      {"id": …, "label": …} per line, under the name that CLUE requires, for its tasks
"""
import json
import os
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from estimator.data import input_fn
from estimator.data.rows import Rows
from estimator.data.tasks import DEV, TEST, Example, Task
from estimator.finetuning import scores
from etl.common import files

PREDICTIONS_FILE = "predictions.jsonl"


class Part(NamedTuple):
    """The examples of one part, as read and as input for the model."""
    name: str                                  # such as "dev"
    examples: List[Any]                        # of the task's kind
    rows: Rows

    @property
    def label_ids(self) -> np.ndarray:
        """[examples]: class ids, or a regression's values."""
        return self.rows.label_ids[self.rows.first_rows]

    @property
    def prefix(self) -> str:
        """Of its prediction files."""
        return "" if self.name == DEV else self.name + "_"

    @property
    def has_labels(self) -> bool:
        return all(example.label is not None for example in self.examples)


def collect(estimator: Any, rows: Rows, batch_size: int, seq_length: Optional[int],
            checkpoint: str) -> Iterator[Tuple[np.ndarray, Dict[str, np.ndarray]]]:
    """Numbers of units, and the model's outputs for them by name, batch by batch; each unit comes once.

    Args:
      estimator: of `finetuning_model_fn`.
      rows: of all examples.
      batch_size, seq_length: as in `input_fn.evaluate_on_rows`.
      checkpoint: prefix.
    """
    order, done = input_fn.evaluation_order(rows, seq_length), 0
    for batch in estimator.predict(input_fn.evaluate_on_rows(rows, batch_size, seq_length),
                                   checkpoint_path=checkpoint, yield_single_examples=False):
        is_real = batch["is_real_example"] == 1
        numbers = order[done:done + int(is_real.sum())]
        done += len(numbers)
        yield numbers, {name: values[is_real] for name, values in batch.items() if name != "is_real_example"}


def run_model(estimator: Any, rows: Rows, batch_size: int, seq_length: Optional[int],
              checkpoint: str) -> np.ndarray:
    """The outputs of `classifier_model_fn`, for an example of several windows their mean: float64 [examples,
    classes]; arguments as in `collect`."""
    found = list(collect(estimator, rows, batch_size, seq_length, checkpoint))
    outputs = np.empty([len(rows.lengths), found[0][1]["outputs"].shape[1]])
    for numbers, batch in found:
        outputs[numbers] = batch["outputs"]
    return np.add.reduceat(outputs, rows.first_rows) / rows.rows_of_examples[:, np.newaxis]


def score(task: Task, part: Part, outputs: np.ndarray) -> Dict[str, Any]:
    """All metrics of a part with labels by name: `eval_accuracy`; for a part other than dev,
    `eval_mismatched_accuracy`."""
    labels = part.label_ids
    if task.is_regression:
        found = scores.regression(labels, outputs[:, 0])
    else:
        found = scores.classification(labels, outputs, task.pairs_per_question)
        found["majority_accuracy"] = scores.majority_accuracy(labels)
    found["num_examples"] = len(part.examples)
    suffix = part.name[len(DEV):].lstrip("_")
    named = {}
    for name, value in found.items():
        own = name if name in ("num_examples", "majority_accuracy") else "eval_" + name
        named["%s_%s" % (own, suffix) if suffix else own] = value
    return named


def results_line(task: Task, results: Dict[str, Any]) -> str:
    """`7 dev examples: eval_accuracy 0.5714 (majority class 0.5714)  eval_loss 0.6931`,
    the task's own metric first."""
    names = ["eval_" + task.metric] + [
        name for name in ("eval_accuracy", "eval_roc_auc", "eval_spearman", "eval_loss")
        if name in results and name != "eval_" + task.metric]
    parts = ["%s %.4f%s" % (name, results[name], " (majority class %.4f)" % results["majority_accuracy"]
                            if name == "eval_accuracy" else "") for name in names]
    return "%d dev examples: %s" % (results["num_examples"], "  ".join(parts))


def predicted_labels(task: Task, outputs: np.ndarray) -> List[Any]:
    """The label of each example; in a regression a number."""
    if task.is_regression:
        return [float(value) for value in outputs[:, 0]]
    return [task.labels[index] for index in outputs.argmax(axis=1)]


def write_predictions(folder: str, task: Task, part: Part, outputs: np.ndarray) -> List[str]:
    """Writes the part's files (see the top of this file), and returns their paths."""
    lines = [_prediction(task, example, label, row)
             for example, label, row in zip(part.examples, predicted_labels(task, outputs), outputs)]
    written = {part.prefix + PREDICTIONS_FILE: json_lines(lines)}
    if part.name.startswith(TEST):
        table = "".join("\t".join(exact(value) for value in row) + "\n" for row in outputs)
        written = {part.name + "_results.tsv": table, **written,
                   submission_name(task, part): json_lines(submission_lines(task, part.examples, outputs))}
    return write_all(folder, written)


def write_all(folder: str, texts: Mapping[str, str]) -> List[str]:
    """Writes files by name; returns their paths."""
    paths = [os.path.join(folder, name) for name in texts]
    for path, text in zip(paths, texts.values()):
        files.write_text(path, text)
    return paths


def submission_name(task: Task, part: Part) -> str:
    name = task.submission or "%s_predict.json" % task.name.replace("-", "_")
    return part.name[len(TEST):].lstrip("_") + ("_" if part.name != TEST else "") + name


def submission_lines(task: Task, examples: Sequence[Example], outputs: np.ndarray) -> List[Dict[str, Any]]:
    """`{"id": 0, "label": "1"}` for each example; for multiple choice, one per question, labelled with the
    best choice."""
    labels = predicted_labels(task, outputs)
    if task.pairs_per_question > 1:
        labels = [str(best) for best in outputs[:, 1].reshape(-1, task.pairs_per_question).argmax(axis=1)]
        examples = examples[::task.pairs_per_question]
    return [{"id": number if example.id is None else _plain_id(example.id), "label": label}
            for number, (example, label) in enumerate(zip(examples, labels))]


def _plain_id(value: object) -> object:
    """Ids from columns become numbers, too, unless that would change how they are written: `007`."""
    is_number = isinstance(value, str) and value.isdecimal() and str(int(value)) == value
    return int(str(value)) if is_number else value


def _prediction(task: Task, example: Example, label: Any, row: np.ndarray) -> Dict[str, Any]:
    found = {"text_a": example.text_a, "text_b": example.text_b, "gold": example.label, "predicted": label}
    if not task.is_regression:
        found["probabilities"] = {name: float(exact(value)) for name, value in zip(task.labels, row)}
    return found


def exact(value: float) -> str:
    """A number in as few digits as tell it from every other float32: `0.1`, `1.1920929e-07`."""
    return str(np.float32(value))


def json_lines(values: Sequence[Any]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
