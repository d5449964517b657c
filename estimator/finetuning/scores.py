"""Scores of predictions, over all examples at once, in NumPy.

Labels are class ids, int [n], or numbers in a regression; `probabilities` are float [n, classes].
"""
import math
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

METRICS = ("accuracy", "f1", "macro_f1", "micro_f1", "mean_average_precision", "matthews_correlation",
           "roc_auc", "choice_accuracy", "pearson", "spearman", "exact_match", "loss")


def metrics_of(num_labels: int, choices: int = 1) -> Sequence[str]:
    """The METRICS of a task; num_labels 0 is a regression."""
    if num_labels == 0:
        return ("pearson", "spearman", "loss")
    return (("accuracy", "macro_f1", "matthews_correlation", "loss")
            + (("f1", "roc_auc") if num_labels == 2 else ()) + (("choice_accuracy",) if choices > 1 else ()))


def classification(labels: np.ndarray, probabilities: np.ndarray, choices: int = 1) -> Dict[str, Any]:
    """A classifier's metrics by name, those of `metrics_of`."""
    num_labels = probabilities.shape[1]
    predictions = probabilities.argmax(axis=1)
    counts = confusion_matrix(labels, predictions, num_labels)
    found: Dict[str, Any] = {
        "accuracy": accuracy(labels, predictions), "loss": cross_entropy(labels, probabilities),
        "macro_f1": float(np.mean([row.f1 for row in per_class(counts)])),
        "matthews_correlation": matthews(counts)}
    if num_labels == 2:
        found["f1"] = per_class(counts)[1].f1
        found["roc_auc"] = roc_auc(labels, probabilities[:, 1])
    if choices > 1:
        found["choice_accuracy"] = choice_accuracy(labels, probabilities[:, 1], choices)
    return found


def regression(labels: np.ndarray, predictions: np.ndarray) -> Dict[str, Any]:
    """A regression's metrics by name; the loss is the mean squared error."""
    return {"pearson": pearson(labels, predictions), "spearman": spearman(labels, predictions),
            "loss": float(np.mean((labels - predictions) ** 2))}


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of equal labels."""
    return float(np.mean(labels == predictions))


def majority_accuracy(labels: np.ndarray) -> float:
    """Accuracy of always predicting the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_labels: int) -> np.ndarray:
    """Counts, int64 [true class, predicted class]."""
    return np.bincount(labels * num_labels + predictions,
                       minlength=num_labels ** 2).reshape(num_labels, num_labels)


class ClassScores(NamedTuple):
    """Scores of one class; undefined ones are 0."""
    precision: float
    recall: float
    f1: float
    support: int                               # examples of this class


def per_class(counts: np.ndarray) -> List[ClassScores]:
    """The scores of each class from a confusion matrix; f1 is the harmonic mean of precision and recall."""
    found = []
    for hits, true, predicted in zip(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)):
        found.append(ClassScores(float(hits / max(1, predicted)), float(hits / max(1, true)),
                                 float(2 * hits / max(1, true + predicted)), int(true)))
    return found


def matthews(counts: np.ndarray) -> float:
    """Correlation of true and predicted classes, in [-1, 1], from a confusion matrix; 0 when either
    is constant.

    Matthews' coefficient, for any number of classes (Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006).
    """
    true, predicted, total = (counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float),
                              float(counts.sum()))
    scale = math.sqrt((total ** 2 - true @ true) * (total ** 2 - predicted @ predicted))
    return float((np.trace(counts) * total - true @ predicted) / scale) if scale else 0.0


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """How often an example of class 1 has a higher score than one of class 0, ties counting half; 0.5 if a
    class is absent.

    The Mann-Whitney statistic from ranks (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747).
    """
    positives = int(np.sum(labels == 1))
    negatives = len(labels) - positives
    if not (positives and negatives):
        return 0.5
    rank_sum = ranks(scores)[labels == 1].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def choice_accuracy(labels: np.ndarray, scores: np.ndarray, choices: int) -> float:
    """Share of questions whose highest score is the right answer's; `choices` examples in a row are
    one question."""
    return accuracy(labels.reshape(-1, choices).argmax(axis=1), scores.reshape(-1, choices).argmax(axis=1))


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Linear correlation, in [-1, 1]; 0 when either is constant."""
    x, y = labels - np.mean(labels, dtype=np.float64), predictions - np.mean(predictions, dtype=np.float64)
    scale = math.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / scale) if scale else 0.0


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Correlation of ranks, in [-1, 1]; 0 when either is constant."""
    return pearson(ranks(labels), ranks(predictions))


def ranks(values: np.ndarray) -> np.ndarray:
    """1 for the lowest, float64 [n]; equal values share the mean of their ranks. `[5, 7, 5]` → `[1.5,
    3, 1.5]`."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log of the right class's probability, in nats."""
    return float(np.mean(losses(labels, probabilities)))


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """-log of the right class's probability, in nats: float64 [n]."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(right, np.finfo(np.float64).tiny))


def mean_and_deviation(values: Sequence[float]) -> str:
    """`0.7132 ± 0.0041`: mean and sample standard deviation; for one value, only the value."""
    if len(values) == 1:
        return "%.4f" % values[0]
    return "%.4f ± %.4f" % (np.mean(values), np.std(values, ddof=1))
