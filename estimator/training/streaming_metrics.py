"""Streaming metrics of pretraining, computed in the graph batch by batch.

A streaming metric is a pair (value, update op), as `tf.estimator.EstimatorSpec` requires. Padding has weight
0, so each metric is a mean over all real examples, for any batch size.
"""
import math
from typing import Dict, Optional, Tuple

import tensorflow.compat.v1 as tf

from estimator.model.heads import Classified, MaskedLm

Metrics = Dict[str, Tuple[tf.Tensor, tf.Operation]]


def masked_lm_metrics(masked_lm: MaskedLm, ids: tf.Tensor, weights: tf.Tensor) -> Metrics:
    """Accuracy and mean loss in nats over the predicted positions; ids, weights: [batch, num_predictions]."""
    return {"masked_lm_accuracy": tf.metrics.accuracy(ids, masked_lm.predictions, weights),
            "masked_lm_loss": tf.metrics.mean(masked_lm.per_position_loss, weights)}


def perplexity(masked_lm_loss: float) -> float:
    """e to the mean loss, in nats. Not in the graph: a device's float16 ends at e^11."""
    try:
        return math.exp(masked_lm_loss)
    except OverflowError:
        return math.inf


def sentence_order_metrics(order: Classified, labels: tf.Tensor, is_real: tf.Tensor,
                           is_cut: Optional[tf.Tensor] = None) -> Metrics:
    """Accuracy and mean loss in nats; labels, is_real: int32 [batch].

    Args:
      is_cut: int32 [batch, 1], 1 where a segment begins or ends inside a sentence: then the accuracy over the
        other examples, and their number, come on top.
    """
    metrics = {"sentence_order_accuracy": tf.metrics.accuracy(labels, order.predictions, is_real),
               "sentence_order_loss": tf.metrics.mean(order.per_example_loss, is_real)}
    if is_cut is not None:
        is_uncut = is_real * (1 - is_cut[:, 0])
        metrics["sentence_order_accuracy_uncut"] = tf.metrics.accuracy(labels, order.predictions, is_uncut)
        metrics["num_uncut_examples"] = count(is_uncut, "num_uncut_examples")
    return metrics


def count(is_real: tf.Tensor, name: str = "num_examples") -> Tuple[tf.Tensor, tf.Operation]:
    """The number of examples seen: int32."""
    seen = tf.get_variable(name, [], tf.int32, tf.zeros_initializer(), trainable=False,
                           collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES])
    return seen.read_value(), tf.assign_add(seen, tf.reduce_sum(is_real))
