import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from sklearn import metrics

from estimator.finetuning import label_scores
from estimator.finetuning.scores import ClassScores

LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
PROBABILITIES = np.array([[.9, .2, .1], [.4, .8, .6], [.6, .1, .2], [.3, .5, .4]])


def test_scores_of_four_texts():
    found = label_scores.results_of(LABELS, PROBABILITIES, [0.5, 0.5, 0.5])
    assert found == {
        "micro_f1": pytest.approx(2 * 3 / 9), "micro_precision": pytest.approx(3 / 5),
        "micro_recall": pytest.approx(3 / 4), "macro_f1": pytest.approx((0.5 + 1 + 0) / 3),
        "mean_average_precision": pytest.approx(((1 + 2 / 3) / 2 + 1) / 2), "exact_match": 0.5,
        "loss": pytest.approx(3 * 0.44125, abs=1e-4)}
    chosen = label_scores.choose(PROBABILITIES, [0.5, 0.5, 0.5])
    assert label_scores.scores_by_label(LABELS, chosen)[2] == ClassScores(0.0, 0.0, 0.0, 0)


def test_thresholds():
    assert label_scores.best_threshold(np.array([True, False, True]),
                                       np.array([0.9, 0.5, 0.3])) == pytest.approx(0.15)
    assert label_scores.best_threshold(np.array([False, False]), np.array([0.9, 0.1])) == 0.5
    # equal scores stay together; of equally good cuts the one nearest to 0.5
    assert label_scores.best_threshold(np.array([True, True, False]),
                                       np.array([0.8, 0.8, 0.1])) == pytest.approx(0.45)
    assert label_scores.best_threshold(np.array([True, False]), np.array([0.7, 0.7])) == pytest.approx(0.35)


def test_the_most_frequent_labels():
    labels = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert label_scores.most_frequent(labels).tolist() == [True, True, False]
    assert label_scores.most_frequent(np.array([[1, 0], [1, 0], [0, 1]], bool)).tolist() == [True, False]


@settings(max_examples=300, deadline=None)
@given(strategies.integers(1, 12), strategies.integers(2, 5), strategies.integers(0, 2**32 - 1))
def test_as_scikit_learn_has_it(num_examples, num_labels, seed):
    rng = np.random.RandomState(seed)
    labels = rng.rand(num_examples, num_labels) < 0.4
    probabilities = rng.randint(0, 8, labels.shape) / 8      # many are equal
    thresholds = rng.randint(1, 8, num_labels) / 8
    found, chosen = label_scores.results_of(labels, probabilities, thresholds), probabilities >= thresholds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")        # of undefined scores, which are 0
        for average in ("micro", "macro"):
            assert found[average + "_f1"] == pytest.approx(metrics.f1_score(labels, chosen, average=average))
        assert found["micro_precision"] == pytest.approx(
            metrics.precision_score(labels, chosen, average="micro"))
        assert found["micro_recall"] == pytest.approx(metrics.recall_score(labels, chosen, average="micro"))
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(labels, chosen))
    present = labels.any(axis=0)
    if present.any():
        assert found["mean_average_precision"] == pytest.approx(metrics.average_precision_score(
            labels[:, present], probabilities[:, present], average="macro"))


@settings(max_examples=100, deadline=None)
@given(strategies.integers(1, 12), strategies.integers(0, 2**32 - 1))
def test_no_threshold_is_better_than_the_best(num_examples, seed):
    rng = np.random.RandomState(seed)
    labels, scores = rng.rand(num_examples, 1) < 0.4, rng.randint(0, 8, (num_examples, 1)) / 8 + 0.01

    def f1(threshold):
        return label_scores.scores_by_label(labels, scores >= threshold)[0].f1
    best = label_scores.best_threshold(labels[:, 0], scores[:, 0])
    assert f1(best) == max(f1(threshold) for threshold in np.arange(0, 1.01, 1 / 16))
