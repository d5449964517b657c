"""Scores of sets of labels, over all examples at once, in NumPy; thresholds that are found on examples.

`labels` and `chosen` are bool [n, labels], what is right and what was found; `probabilities` are float
[n, labels].
"""
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from estimator.finetuning.scores import ClassScores

METRICS = ("micro_f1", "macro_f1", "mean_average_precision", "exact_match", "loss")
DEFAULT_THRESHOLD = 0.5


def results_of(labels: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float]) -> Dict[str, Any]:
    """All METRICS by name, and precision and recall over all labels."""
    chosen = choose(probabilities, thresholds)
    micro, by_label = micro_scores(labels, chosen), scores_by_label(labels, chosen)
    return {"micro_f1": micro.f1, "micro_precision": micro.precision, "micro_recall": micro.recall,
            "macro_f1": float(np.mean([score.f1 for score in by_label])),
            "mean_average_precision": mean_average_precision(labels, probabilities),
            "exact_match": float(np.mean((labels == chosen).all(axis=1))),
            "loss": cross_entropy(labels, probabilities)}


def choose(probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """The labels whose probability reaches their threshold."""
    chosen: np.ndarray = probabilities >= np.array(thresholds)
    return chosen


def scores_by_label(labels: np.ndarray, chosen: np.ndarray) -> List[ClassScores]:
    """The scores of each label; what is undefined is 0, as in scikit-learn."""
    counts = zip((labels & chosen).sum(axis=0), labels.sum(axis=0), chosen.sum(axis=0))
    return [_scores_of(int(hits), int(right), int(found)) for hits, right, found in counts]


def micro_scores(labels: np.ndarray, chosen: np.ndarray) -> ClassScores:
    """The scores of all pairs of an example and a label."""
    return _scores_of(int((labels & chosen).sum()), int(labels.sum()), int(chosen.sum()))


def _scores_of(hits: int, right: int, found: int) -> ClassScores:
    return ClassScores(hits / max(1, found), hits / max(1, right), 2 * hits / max(1, right + found), right)


def mean_average_precision(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `average_precision` over the labels that some example has; 0 if there is none."""
    present = labels.any(axis=0)
    found = [average_precision(labels[:, number], probabilities[:, number])
             for number in np.flatnonzero(present)]
    return float(np.mean(found)) if found else 0.0


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Σ (Rₖ - Rₖ₋₁) Pₖ over the distinct scores, from the highest on: precision P and recall R of what has
    at least that score (scikit-learn's average_precision_score). At least one of `labels`, bool [n], is
    true."""
    ends, _, hits = _cuts(labels, scores)
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> List[float]:
    """`best_threshold` of each label."""
    return [best_threshold(labels[:, number], probabilities[:, number]) for number in range(labels.shape[1])]


def best_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold that gives the highest F1 of one label, of several that nearest to 0.5; 0.5 where no
    example has the label. It stands halfway between two scores, so that rounding changes no decision.

    `([True, False, True], [0.9, 0.5, 0.3])` → 0.15.
    """
    if not labels.any():
        return DEFAULT_THRESHOLD
    ends, ordered, hits = _cuts(labels, scores)
    f1 = 2 * hits / (ends + 1 + hits[-1])
    halfway = (ordered[ends] + np.append(ordered, 0.0)[ends + 1]) / 2
    best = halfway[f1 == f1.max()]
    return float(np.float32(best[np.abs(best - DEFAULT_THRESHOLD).argmin()]))


def _cuts(labels: np.ndarray, scores: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where one may cut: the place of the last example of each distinct score, from the highest on; all
    scores in that order; the labels up to each cut."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ends, ordered, np.cumsum(labels[order])[ends]


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `losses`."""
    return float(np.mean(losses(labels, probabilities)))


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Sum over the labels of -log of the probability of what is right, in nats: float64 [n]."""
    right = np.where(labels, probabilities, 1 - probabilities).astype(np.float64)
    found: np.ndarray = -np.log(np.maximum(right, np.finfo(np.float64).tiny)).sum(axis=1)
    return found


def most_frequent(labels: np.ndarray) -> np.ndarray:
    """The set of labels that serves all texts best without reading them: as many of the most frequent ones as
    give the highest micro F1, bool [labels]. `[[1, 0], [1, 0], [0, 1]]` → `[1, 0]`."""
    counts = labels.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    hits, sizes = np.cumsum(counts[order]), np.arange(1, len(order) + 1)
    best = int(np.argmax(2 * hits / (sizes * len(labels) + labels.sum())))
    found: np.ndarray = np.isin(np.arange(len(order)), order[:best + 1])
    return found
