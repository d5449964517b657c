import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator.finetuning import scores


def test_a_classifier_of_two():
    labels = np.array([1, 1, 1, 0, 0, 0])
    right = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1])                  # predicts 1 1 0 1 0 0
    found = scores.classification(labels, np.stack([1 - right, right], axis=1))
    assert found == pytest.approx({
        "accuracy": 4 / 6, "f1": 2 / 3, "macro_f1": 2 / 3, "matthews_correlation": 1 / 3, "roc_auc": 8 / 9,
        "loss": -(math.log(.9) + math.log(.8) + math.log(.3) + math.log(.4) + math.log(.8) + math.log(.9))
        / 6})
    assert set(found) == set(scores.metrics_of(2))


def test_a_classifier_of_three():
    counts = scores.confusion_matrix(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    assert [tuple(row) for row in scores.per_class(counts)] == [
        (1 / 2, 1 / 2, 1 / 2, 2), (pytest.approx(2 / 3), 1, pytest.approx(4 / 5), 2),
        (1, 1 / 2, pytest.approx(2 / 3), 2)]
    # covariances: 4·6 − 12 = 12; scale: sqrt((36 − 12) (36 − (4 + 9 + 1)))
    assert scores.matthews(counts) == pytest.approx(12 / math.sqrt(24 * 22))
    assert set(scores.classification(np.array([0, 2]), np.eye(3)[[0, 1]])) == set(scores.metrics_of(3))


def test_classes_that_never_occur():
    assert tuple(scores.per_class(np.array([[2, 0], [0, 0]]))[1]) == (0, 0, 0, 0)
    assert scores.matthews(np.array([[2, 1], [0, 0]])) == 0
    assert scores.roc_auc(np.array([1, 1]), np.array([0.1, 0.2])) == 0.5


def test_ranks_and_roc_auc_with_ties():
    assert scores.ranks(np.array([5, 7, 5])).tolist() == [1.5, 3, 1.5]
    # pairs (1 against 0): .5>.1, .5=.5, .9>.1, .9>.5
    assert scores.roc_auc(np.array([1, 0, 0, 1]), np.array([0.5, 0.1, 0.5, 0.9])) == pytest.approx(3.5 / 4)


def test_correlations():
    x, y = np.array([1., 2., 3.]), np.array([2., 4., 7.])
    assert scores.pearson(x, y) == pytest.approx(5 / math.sqrt(2 * 114 / 9))
    assert scores.spearman(x, y ** 9) == pytest.approx(1)
    # ranks 1 2.5 2.5 4 and 1 2 3 4
    assert scores.spearman(np.array([1, 5, 5, 9]),
                           np.array([1, 2, 3, 4])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert scores.pearson(np.array([1., 2.]), np.array([3., 3.])) == 0
    assert scores.regression(
        x, np.array([1., 2., 5.])) == {"pearson": pytest.approx(4 / math.sqrt(2 * 26 / 3)), "spearman": 1,
                                       "loss": pytest.approx(4 / 3)}


def test_of_several_choices_the_likeliest_is_the_answer():
    labels, values = np.array([1, 0, 0, 1, 0, 1]), np.array([.4, .3, .9, .8, .1, .2])
    assert scores.choice_accuracy(labels, values, 2) == pytest.approx(2 / 3)
    assert scores.choice_accuracy(labels, values, 3) == 1 / 2


def test_losses_stay_finite():
    assert np.isfinite(scores.losses(np.array([0]), np.array([[0., 1.]]))).all()
    assert scores.majority_accuracy(np.array([0, 1, 1, 2])) == 0.5


def test_means_and_deviations():
    assert scores.mean_and_deviation([1.0, 2.0, 3.0]) == "2.0000 ± 1.0000"
    assert scores.mean_and_deviation([0.5]) == "0.5000"


PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=40)


@given(PAIRS)
def test_roc_auc_counts_pairs(pairs):
    labels, values = map(np.array, zip(*pairs))
    pos, neg = values[labels == 1], values[labels == 0]
    if len(pos) and len(neg):
        wanted = np.mean((pos[:, None] > neg) + 0.5 * (pos[:, None] == neg))
        assert scores.roc_auc(labels, values) == pytest.approx(wanted)
        assert scores.roc_auc(labels, -values) == pytest.approx(1 - wanted)


@given(PAIRS)
def test_matthews_of_two_classes_is_their_correlation(pairs):
    labels, predictions = (np.array(column) % 2 for column in zip(*pairs))
    counts = scores.confusion_matrix(labels, predictions, 2)
    assert scores.matthews(counts) == pytest.approx(scores.pearson(labels, predictions), abs=1e-12)
    assert counts.sum() == len(labels)
    assert np.trace(counts) == pytest.approx(scores.accuracy(labels, predictions) * len(labels))
