import json
import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from estimator.model.heads import Classified, MaskedLm
from estimator.training import metrics


def streamed(make_metrics, batches):
    """The values of streaming metrics after all `batches`; each batch is a tuple of arrays of the same shapes."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.as_dtype(array.dtype), array.shape) for array in map(np.asarray, batches[0])]
        values = make_metrics(*inputs)
        session.run(tf.local_variables_initializer())
        for batch in batches:
            session.run([update for _, update in values.values()], dict(zip(inputs, batch)))
        return session.run({name: value for name, (value, _) in values.items()})


def test_masked_lm_metrics_are_means_over_all_predictions():
    def make(losses, predictions, ids, weights):
        return metrics.masked_lm_metrics(MaskedLm(None, losses, predictions, None), ids, weights)
    found = streamed(make, [
        (np.float32([[1, 2], [3, 99]]), np.int32([[5, 6], [7, 0]]), np.int32([[5, 6], [8, 0]]),
         np.float32([[1, 1], [1, 0]])),
        (np.float32([[6, 99], [99, 99]]), np.int32([[1, 0], [0, 0]]), np.int32([[9, 0], [0, 0]]),
         np.float32([[1, 0], [0, 0]])),
    ])
    assert found == {"masked_lm_accuracy": pytest.approx(2 / 4), "masked_lm_loss": pytest.approx(12 / 4),
                     "perplexity": pytest.approx(math.exp(12 / 4))}


def test_class_metrics_leave_padding_out():
    found = streamed(lambda losses, predictions, labels, is_real: metrics.sentence_order_metrics(
        Classified(None, losses, predictions, None, None), labels, is_real), [
            (np.float32([1, 2]), np.int32([1, 0]), np.int32([1, 1]), np.int32([1, 1])),
            (np.float32([6, 99]), np.int32([0, 0]), np.int32([0, 0]), np.int32([1, 0]))])
    assert found == {"sentence_order_accuracy": pytest.approx(2 / 3), "sentence_order_loss": pytest.approx(3)}


def test_count():
    found = streamed(lambda is_real: {"n": metrics.count(is_real)}, [(np.int32([1, 1, 1]),), (np.int32([1, 0, 0]),)])
    assert found == {"n": 4}


def test_unigram_baseline():
    cross_entropy, accuracy = metrics.unigram_baseline(np.array([0, 1, 5]), np.array([1, 0, 3]))
    assert cross_entropy == pytest.approx(-(math.log(1 / 9) + 3 * math.log(6 / 9)) / 4)
    assert accuracy == 3 / 4


def test_unigram_baseline_without_training_labels_is_uniform():
    assert metrics.unigram_baseline(np.zeros(8), np.array([1] * 8))[0] == pytest.approx(math.log(8))


def test_results_are_written_as_lines_and_json(tmp_path):
    metrics.write_results(str(tmp_path), {"loss": np.float32(0.5), "global_step": np.int64(7), "accuracy": 0.25})
    assert (tmp_path / "eval_results.txt").read_text() == "accuracy = 0.25\nglobal_step = 7\nloss = 0.5\n"
    assert json.loads((tmp_path / "eval_results.json").read_text()) == {"accuracy": 0.25, "global_step": 7, "loss": 0.5}


def test_points_of_curves(tmp_path):
    metrics.write_curve_points(str(tmp_path), 7, {"loss": 0.5, "num_examples": 3})
    path, = tmp_path.glob("events*")
    found = {value.tag: (event.step, value.simple_value) for event in tf.train.summary_iterator(str(path))
             for value in event.summary.value}
    assert found == {"loss": (7, 0.5), "num_examples": (7, 3.0)}
