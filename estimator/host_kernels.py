"""What a CPU computes its own way: the same functions as stock TensorFlow's, in fewer passes over memory.

TensorFlow 1.15 derives a gradient op by op, and each op is a pass; so training has gradients written by hand. An export must
not hold these, since they bear a number that differs from process to process; it has what needs none.
"""
from typing import Any, Callable, Tuple

import tensorflow.compat.v1 as tf

from estimator import kernels
from estimator.kernels import Kernels


@tf.custom_gradient
def gelu(x: tf.Tensor) -> Any:
    """`kernels.gelu`: x · s with s = sigmoid(u), u = x · p; u' = 3 p − 2 · (p at 0)."""
    factor = kernels.GELU_LINEAR + kernels.GELU_CUBIC * x * x
    gate = tf.sigmoid(x * factor)

    def gradient(grad: tf.Tensor) -> tf.Tensor:
        slope = 3.0 * factor - 2.0 * kernels.GELU_LINEAR
        return grad * gate + tf.raw_ops.SigmoidGrad(y=gate, dy=grad * x) * slope
    return x * gate, gradient


@tf.custom_gradient
def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
    """Layer normalization of rows [rows, width]; the gradient's means over a row are products with gamma."""
    normalized, inverse = _standardize(x)

    def gradient(grad: tf.Tensor) -> Any:
        along = grad * normalized
        column = gamma[:, tf.newaxis] / x.shape[-1].value
        mean, slope = tf.matmul(grad, column), tf.matmul(along, column)
        return (grad * gamma - mean - normalized * slope) * inverse, tf.reduce_sum(along, axis=0), tf.reduce_sum(grad, axis=0)
    return tf.nn.bias_add(normalized * gamma, beta), gradient


def normalize_forward(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """`normalize` without a gradient of its own."""
    return tf.nn.bias_add(_standardize(x)[0] * gamma, beta)


@tf.custom_gradient
def look_up(table: tf.Tensor, ids: tf.Tensor) -> Any:
    """Rows of a table that a head multiplies by, too: the rows' gradients are added into the product's, in place."""
    def gradient(rows_grad: tf.Tensor, table_grad: tf.Tensor) -> Any:
        return tf.tensor_scatter_nd_add(table_grad, ids[:, tf.newaxis], rows_grad), None
    return (tf.gather(table, ids), tf.identity(table)), gradient


def gather_once(parts: tf.Tensor, indices: tf.Tensor, spread: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """As `kernels.gather_once`, where the gradient is a gather, too, and not the slow sum that TensorFlow makes of it."""
    @tf.custom_gradient
    def gather(parts: tf.Tensor) -> Any:
        def gradient(grad: tf.Tensor) -> tf.Tensor:
            return tf.reshape(spread(tf.reshape(grad, [-1, parts.shape[-1].value])), tf.shape(parts))
        return tf.gather(parts, indices), gradient
    return gather(parts)


def attend(scores: tf.Tensor, probs: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """As `kernels.attend`. What the softmax's gradient sums over all places, gradient times probability, is for each place the
    product of what the heads read and its gradient (FlashAttention, arXiv 2205.14135, appendix B.2), a matrix that is smaller by far."""
    @tf.custom_gradient
    def attended(scores: tf.Tensor, value: tf.Tensor) -> Any:
        heads = tf.matmul(probs, value)

        def gradient(grad: tf.Tensor) -> Any:
            mean = tf.reduce_sum(grad * heads, axis=-1, keepdims=True)
            return (tf.matmul(grad, value, transpose_b=True) - mean) * probs, tf.matmul(probs, grad, transpose_a=True)
        return heads, gradient
    return attended(scores, value)


def _standardize(x: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Rows of mean 0 and variance 1, and what they were multiplied by, [rows, 1]."""
    centered = x - tf.reduce_mean(x, axis=1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=1, keepdims=True) + kernels.LAYER_NORM_EPSILON)
    return centered * inverse, inverse


TRAINING = Kernels(gelu, normalize, look_up, gather_once=gather_once, attend=attend)
SERVING = Kernels(normalize=normalize_forward, look_up_few=tf.gather)
