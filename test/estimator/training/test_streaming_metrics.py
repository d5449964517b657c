import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from estimator.model.heads import Classified, MaskedLm
from estimator.training import streaming_metrics


def streamed(make_metrics, batches):
    """The values of streaming metrics after all `batches`; each batch is a tuple of arrays of the
    same shapes."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.as_dtype(array.dtype), array.shape)
                  for array in map(np.asarray, batches[0])]
        values = make_metrics(*inputs)
        session.run(tf.local_variables_initializer())
        for batch in batches:
            session.run([update for _, update in values.values()], dict(zip(inputs, batch)))
        return session.run({name: value for name, (value, _) in values.items()})


def test_masked_lm_metrics_are_means_over_all_predictions():
    def make(losses, predictions, ids, weights):
        return streaming_metrics.masked_lm_metrics(MaskedLm(None, losses, predictions, None), ids, weights)
    found = streamed(make, [
        (np.float32([[1, 2], [3, 99]]), np.int32([[5, 6], [7, 0]]), np.int32([[5, 6], [8, 0]]),
         np.float32([[1, 1], [1, 0]])),
        (np.float32([[6, 99], [99, 99]]), np.int32([[1, 0], [0, 0]]), np.int32([[9, 0], [0, 0]]),
         np.float32([[1, 0], [0, 0]])),
    ])
    assert found == {"masked_lm_accuracy": pytest.approx(2 / 4), "masked_lm_loss": pytest.approx(12 / 4)}


def test_perplexity_is_a_power_of_e():
    assert streaming_metrics.perplexity(3.0) == pytest.approx(math.exp(3))
    assert streaming_metrics.perplexity(1e4) == math.inf
    assert math.isnan(streaming_metrics.perplexity(math.nan))


def test_class_metrics_leave_padding_out():
    found = streamed(lambda losses, predictions, labels, is_real: streaming_metrics.sentence_order_metrics(
        Classified(None, losses, predictions, None, None), labels, is_real), [
            (np.float32([1, 2]), np.int32([1, 0]), np.int32([1, 1]), np.int32([1, 1])),
            (np.float32([6, 99]), np.int32([0, 0]), np.int32([0, 0]), np.int32([1, 0]))])
    assert found == {"sentence_order_accuracy": pytest.approx(2 / 3), "sentence_order_loss": pytest.approx(3)}


def test_samples_without_a_cut_are_told_apart():
    def make(losses, predictions, labels, is_real, is_cut):
        order = Classified(None, losses, predictions, None, None)
        return streaming_metrics.sentence_order_metrics(order, labels, is_real, is_cut)
    found = streamed(make, [
        (np.float32([1, 2]), np.int32([1, 0]), np.int32([1, 1]), np.int32([1, 1]), np.int32([[0], [1]])),
        (np.float32([6, 99]), np.int32([1, 0]), np.int32([0, 0]), np.int32([1, 0]), np.int32([[0], [0]]))])
    assert found == {"sentence_order_accuracy": pytest.approx(1 / 3), "sentence_order_loss": pytest.approx(3),
                     "sentence_order_accuracy_uncut": pytest.approx(1 / 2), "num_uncut_examples": 2}


def test_count():
    found = streamed(lambda is_real: {"n": streaming_metrics.count(is_real)},
                     [(np.int32([1, 1, 1]),), (np.int32([1, 0, 0]),)])
    assert found == {"n": 4}
