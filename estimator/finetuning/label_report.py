"""Sections of the report on several labels: scores by label, examples of each kind of error, hardest
examples."""
from typing import Any, List, Sequence, Tuple

import numpy as np

from estimator.data.tasks import Example
from estimator.finetuning import label_scores
from estimator.training.curves import Chart, pace_charts
from etl.reports.charts import bar_chart
from etl.reports.page import Section, table

MOST_BARS = 100                                # labels; beyond this, only the table shows them
MOST_PAIRS, MOST_EXAMPLES, HARDEST = 30, 20, 30

CHARTS = (Chart("Loss; cross-entropy, sum over the labels, in nats", ("loss",), "loss"),
          Chart("F1 over all labels, and mean over the labels", ("eval_micro_f1", "eval_macro_f1"), "F1",
                "micro_f1_of_frequent"),
          Chart("Mean average precision", ("eval_mean_average_precision",), "value",
                "mean_average_precision_of_frequent"),
          Chart("Precision, recall, and sets of labels that are all right",
                ("eval_micro_precision", "eval_micro_recall", "eval_exact_match"), "share"),
          *pace_charts("examples"))


def sections(examples: Sequence[Example], names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray,
             thresholds: Sequence[float]) -> List[Section]:
    """Arrays as in `label_scores`; names and thresholds by label index."""
    chosen = label_scores.choose(probabilities, thresholds)
    by_label = label_scores.scores_by_label(labels, chosen)
    rows = [(name, score.precision, score.recall, score.f1, score.support, int(found), float(threshold))
            for name, score, found, threshold in zip(names, by_label, chosen.sum(axis=0), thresholds)]
    bars = [bar_chart(list(names), {"F1": [score.f1 for score in by_label]}, "F1")
            ] if len(names) <= MOST_BARS else []
    errors = [table(["number", "text", "label", "probability", "gold"],
                    _errors(examples, names, labels, probabilities, wrong, invented), caption=caption)
              for wrong, invented, caption in (
                  (labels & ~chosen, False, "Missed: labels of the data below their threshold, the least "
                   "likely first."),
                  (chosen & ~labels, True, "Invented: labels over their threshold that the data do not have, "
                   "the likeliest first. Many of them are missing in the data."))]
    losses = label_scores.losses(labels, probabilities)
    hardest = [[int(number) + 1, examples[number].text_a, _named(names, labels[number]),
                _named(names, chosen[number]), float(losses[number])]
               for number in np.argsort(-losses, kind="stable")[:HARDEST]]
    return [
        Section("Labels", [*bars, table(["label", "precision", "recall", "F1", "examples", "found",
                                         "threshold"], rows),
                           table(["missed", "in its place", "examples"], _confused(names, labels, chosen),
                                 caption="Labels that were missed where another was invented.")]),
        Section("Errors", errors),
        Section("Hardest examples", [
            "Examples whose labels are least likely all in all. Many of them have wrong labels.",
            table(["number", "text", "gold", "predicted", "loss"], hardest)])]


def _errors(examples: Sequence[Example], names: Sequence[str], labels: np.ndarray, probabilities: np.ndarray,
            wrong: np.ndarray, likeliest_first: bool) -> List[Sequence[Any]]:
    """Rows of the table: the example's number, starting at 1, its text, the wrong label, its probability, and
    the example's labels."""
    places = np.argwhere(wrong)
    values = probabilities[wrong]
    order = np.argsort(-values if likeliest_first else values, kind="stable")[:MOST_EXAMPLES]
    return [(int(number) + 1, examples[number].text_a, names[label], float(probabilities[number, label]),
             _named(names, labels[number])) for number, label in places[order]]


def _confused(names: Sequence[str], labels: np.ndarray, chosen: np.ndarray) -> List[Tuple[str, str, int]]:
    """Pairs of a missed and an invented label of the same examples, the most frequent first."""
    counts = (labels & ~chosen).astype(int).T.dot((chosen & ~labels).astype(int))
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_PAIRS]
    return [(names[missed], names[invented], int(counts[missed, invented]))
            for missed, invented in zip(*np.unravel_index(order, counts.shape)) if counts[missed, invented]]


def _named(names: Sequence[str], row: np.ndarray) -> str:
    return ", ".join(names[number] for number in np.flatnonzero(row))
