"""Sections of a fine-tuning report besides its curves: confused classes and hardest examples."""
from typing import Any, List, Sequence

import numpy as np

from estimator.data.tasks import Task
from estimator.finetuning import predictions, scores
from estimator.finetuning.predictions import Part
from estimator.training.curves import Chart, pace_charts
from etl.reports.charts import Html, confusion_matrix
from etl.reports.page import Section, table

MAX_MATRIX = 30  # classes; beyond this, only the most confused pairs are shown
MAX_PAIRS, HARDEST = 30, 30

CHARTS = (Chart("Loss: cross-entropy in nats, for a regression the squared error", ("loss",), "loss"),
          Chart("Accuracy", ("eval_accuracy",), "share", "majority_accuracy"),
          Chart("F1, Matthews correlation, area under the ROC curve",
                ("eval_f1", "eval_matthews_correlation", "eval_roc_auc"), "value"),
          Chart("Correlation", ("eval_pearson", "eval_spearman"), "value"),
          *pace_charts("examples"))


def sections(task: Task, part: Part, outputs: np.ndarray) -> List[Section]:
    """Sections on a part with labels; `outputs` are those of `predictions.run_model`."""
    hardest = Section("Hardest examples", [
        "Examples whose gold label is least likely, or furthest off. Many of them have wrong labels.",
        table(["number", "text", "gold", "predicted", "loss"], _hardest(task, part, outputs))])
    if task.is_regression:
        return [hardest]
    counts = scores.confusion_matrix(part.label_ids, outputs.argmax(axis=1), len(task.labels))
    rows = [(label,) + tuple(row) for label, row in zip(task.labels, scores.per_class(counts))]
    return [Section("Classes", [_confused(task.labels, counts),
                                table(["class", "precision", "recall", "F1", "examples"], rows)]), hardest]


def _confused(labels: Sequence[str], counts: np.ndarray) -> Html:
    if len(labels) <= MAX_MATRIX:
        return confusion_matrix(labels, counts.tolist())
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [(labels[true], labels[predicted], int(wrong[true, predicted]))
             for true, predicted in zip(*np.unravel_index(order, wrong.shape)) if wrong[true, predicted]]
    return table(["gold", "predicted", "examples"], pairs, caption="The most confused classes.")


def _hardest(task: Task, part: Part, outputs: np.ndarray) -> List[Sequence[Any]]:
    """Rows of the table: the example's number, starting at 1, its text, both labels, its loss."""
    labels = part.label_ids
    losses = (labels - outputs[:, 0]) ** 2 if task.is_regression else scores.losses(labels, outputs)
    predicted = predictions.predicted_labels(task, outputs)
    rows: List[Sequence[Any]] = []
    for number in np.argsort(-losses, kind="stable")[:HARDEST]:
        example, found = part.examples[number], predicted[number]
        text = example.text_a if example.text_b is None else "%s ‖ %s" % (example.text_a, example.text_b)
        rows.append([int(number) + 1, text, str(example.label),
                     "%.4f" % found if task.is_regression else found, float(losses[number])])
    return rows
