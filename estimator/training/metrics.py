"""Numbers that say how good a pretrained model is, streaming ones in the graph; and where results are written.

A streaming metric is a pair (value, update op), as `tf.estimator.EstimatorSpec` wants it. Padding weighs nothing, so
each number is a mean over all real examples, whatever the batch size.
"""
import os
from typing import Any, Dict, Mapping, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.model.heads import Classified, MaskedLm
from etl.common import files

Metrics = Dict[str, Tuple[tf.Tensor, tf.Operation]]

TEXT_FILE, JSON_FILE = "eval_results.txt", "eval_results.json"


def masked_lm_metrics(masked_lm: MaskedLm, ids: tf.Tensor, weights: tf.Tensor) -> Metrics:
    """Accuracy, mean loss in nats and perplexity over the predicted positions; ids, weights: [batch, num_predictions]."""
    mean, update = tf.metrics.mean(masked_lm.per_position_loss, weights)
    return {"masked_lm_accuracy": tf.metrics.accuracy(ids, masked_lm.predictions, weights),
            "masked_lm_loss": (mean, update), "perplexity": (tf.exp(mean), update)}


def sentence_order_metrics(order: Classified, labels: tf.Tensor, is_real: tf.Tensor) -> Metrics:
    """Accuracy and mean loss in nats; labels, is_real: int32 [batch]."""
    return {"sentence_order_accuracy": tf.metrics.accuracy(labels, order.predictions, is_real),
            "sentence_order_loss": tf.metrics.mean(order.per_example_loss, is_real)}


def count(is_real: tf.Tensor) -> Tuple[tf.Tensor, tf.Operation]:
    """How many examples were seen: int32."""
    seen = tf.get_variable("num_examples", [], tf.int32, tf.zeros_initializer(), trainable=False,
                           collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES])
    return seen.read_value(), tf.assign_add(seen, tf.reduce_sum(is_real))


def unigram_baseline(train_counts: np.ndarray, eval_counts: np.ndarray) -> Tuple[float, float]:
    """How well one guesses masked tokens without looking at the text: (cross-entropy in nats, accuracy).

    Args:
      train_counts: int64 [vocab_size], how often each token is a label in training; add-one smoothing is applied.
      eval_counts: int64 [vocab_size], the same of the held-out labels, at least one of them.
    """
    smoothed = train_counts + 1.0
    log_probs = np.log(smoothed / smoothed.sum())
    share = eval_counts / eval_counts.sum()
    return float(-np.sum(share * log_probs)), float(share[np.argmax(train_counts)])


def write_results(folder: str, results: Mapping[str, Any]) -> None:
    """Writes `name = value` lines, sorted, and the same as JSON; numbers of NumPy become plain ones."""
    found = plain(results)
    files.write_text(os.path.join(folder, TEXT_FILE),
                     "".join("%s = %s\n" % (name, found[name]) for name in sorted(found)))
    files.write_json(os.path.join(folder, JSON_FILE), found)


def plain(results: Mapping[str, Any]) -> Dict[str, Any]:
    """The same, sorted, with Python's own numbers instead of NumPy's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in sorted(results.items())}


def write_curve_points(folder: str, step: int, results: Mapping[str, Any]) -> None:
    """Writes the numbers of an evaluation into an event file, as points at `step`."""
    with tf.Graph().as_default(), tf.summary.FileWriter(folder) as writer:
        writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=name, simple_value=float(value))
                                             for name, value in results.items()]), step)
