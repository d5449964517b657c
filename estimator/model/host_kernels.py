"""Kernels for the CPU: the same functions as stock TensorFlow's, in fewer passes over memory.

TensorFlow 1.15 derives a gradient op by op, and each op is a pass; so training uses hand-written gradients.
An export must not contain these, since their names have a number that differs between processes; it uses
variants without them.
"""
import functools
from typing import Any, Callable, Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from estimator.model import kernels
from estimator.model.kernels import Dimension, Kernels, PartDropout, dimensions

Gradient = Callable[..., Any]                  # gradients of the outputs -> those of the inputs

MOST_PARTS = 16                                # of a batch, each with its own ops
BLOCKS = 8                                     # of queries; lengths that are a multiple are best
MOST_MULTIPLICATIONS = 128 * 128 * 256         # TensorFlow 1.15's constant, in its BatchMatMul for CPUs


@tf.custom_gradient
def gelu(x: tf.Tensor) -> Tuple[tf.Tensor, Gradient]:
    """`kernels.gelu`: x · s with s = sigmoid(u), u = x · p; u' = 3 p − 2 · (p at 0)."""
    factor = kernels.GELU_LINEAR + kernels.GELU_CUBIC * x * x
    gate = tf.sigmoid(x * factor)

    def gradient(grad: tf.Tensor) -> tf.Tensor:
        slope = 3.0 * factor - 2.0 * kernels.GELU_LINEAR
        return grad * gate + tf.raw_ops.SigmoidGrad(y=gate, dy=grad * x) * slope
    return x * gate, gradient


@tf.custom_gradient
def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Tuple[tf.Tensor, Gradient]:
    """Layer normalization of rows [rows, width]; the gradient's means over a row are products with gamma."""
    normalized, inverse = _standardize(x)

    def gradient(grad: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        along = grad * normalized
        column = gamma[:, tf.newaxis] / x.shape[-1].value
        mean, slope = tf.matmul(grad, column), tf.matmul(along, column)
        return ((grad * gamma - mean - normalized * slope) * inverse, tf.reduce_sum(along, axis=0),
                tf.reduce_sum(grad, axis=0))
    return tf.nn.bias_add(normalized * gamma, beta), gradient


def normalize_forward(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """`normalize` without a hand-written gradient."""
    return tf.nn.bias_add(_standardize(x)[0] * gamma, beta)


@tf.custom_gradient
def look_up(table: tf.Tensor, ids: tf.Tensor) -> Tuple[Tuple[tf.Tensor, tf.Tensor], Gradient]:
    """Rows of a table that a head also multiplies by: the rows' gradients are added to the product's in
    place."""
    def gradient(rows_grad: tf.Tensor, table_grad: tf.Tensor) -> Tuple[tf.Tensor, None]:
        return tf.tensor_scatter_nd_add(table_grad, ids[:, tf.newaxis], rows_grad), None
    return (tf.gather(table, ids), tf.identity(table)), gradient


def gather_once(parts: tf.Tensor, indices: tf.Tensor, spread: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Like `kernels.gather_once`, but the gradient is also a gather instead of TensorFlow's slow sum."""
    @tf.custom_gradient
    def gather(parts: tf.Tensor) -> Tuple[tf.Tensor, Gradient]:
        def gradient(grad: tf.Tensor) -> tf.Tensor:
            return tf.reshape(spread(tf.reshape(grad, [-1, parts.shape[-1].value])), tf.shape(parts))
        return tf.gather(parts, indices), gradient
    return gather(parts)


def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask_scores: Optional[tf.Tensor],
           drop: PartDropout) -> tf.Tensor:
    """Like `kernels.attend`, a few sequences at a time, so that a layer's scores need no large memory block,
    which the C library would request from the system, cleared page by page, each time."""
    batch = dimensions(query)[0]
    parts = min(batch, MOST_PARTS) if isinstance(batch, int) else 1
    sizes = [len(part) for part in np.array_split(np.arange(batch), parts)] if parts > 1 else 1
    masks = [None] * parts if mask_scores is None else tf.split(mask_scores, sizes)
    heads = [_attend_part(*of_part, functools.partial(drop, part="/%d" % part))
             for part, of_part in enumerate(
                 zip(tf.split(query, sizes), tf.split(key, sizes), tf.split(value, sizes), masks))]
    return tf.concat(heads, axis=0)


def _attend_part(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask_scores: Optional[tf.Tensor],
                 drop: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`attend`, with queries in blocks, and a hand-written gradient.

    The sum over all keys in the softmax's gradient, gradient times probability, equals for each query the
    product of the attention output and its gradient (FlashAttention, arXiv 2205.14135, appendix B.2), a much
    smaller matrix.
    """
    shape = dimensions(query)
    blocks = _blocks(shape[2], dimensions(key)[2], query.shape[3].value)
    mask_scores = None if mask_scores is None else mask_scores[:, :, tf.newaxis]

    def in_blocks(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, shape[:2] + [blocks, shape[2] // blocks, shape[3]])

    @tf.custom_gradient
    def attended(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> Tuple[tf.Tensor, Gradient]:
        query, key, value = in_blocks(query), key[:, :, tf.newaxis], value[:, :, tf.newaxis]
        probs = kernels.attention_probs(query, key, mask_scores)
        kept = drop(probs)
        heads = tf.matmul(kept, value)

        def gradient(grad: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            grad = in_blocks(grad)
            mean = tf.reduce_sum(grad * heads, axis=-1, keepdims=True)
            from_heads = tf.matmul(grad, value, transpose_b=True)
            scores_grad = (from_heads - mean) * probs if kept is probs else from_heads * kept - mean * probs
            return (tf.reshape(tf.matmul(scores_grad, key), shape),
                    tf.reduce_sum(tf.matmul(scores_grad, query, transpose_a=True), axis=2),
                    tf.reduce_sum(tf.matmul(kept, grad, transpose_a=True), axis=2))
        return tf.reshape(heads, shape), gradient
    return attended(query, key, value)


def _blocks(queries: Dimension, keys: Dimension, size: int) -> Dimension:
    """How many blocks to split queries into. TensorFlow's batched product gives each thread separate
    matrices, which is up to three times faster, only if one takes at most `MOST_MULTIPLICATIONS`."""
    if isinstance(queries, int) and isinstance(keys, int):
        return BLOCKS if queries * keys * size > MOST_MULTIPLICATIONS and queries % BLOCKS == 0 else 1
    pays = tf.logical_and(queries * keys * size > MOST_MULTIPLICATIONS, tf.equal(queries % BLOCKS, 0))
    return tf.where(pays, BLOCKS, 1)


def _standardize(x: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Rows of mean 0 and variance 1, and the factors used, [rows, 1]."""
    centered = x - tf.reduce_mean(x, axis=1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis=1, keepdims=True)
                            + kernels.LAYER_NORM_EPSILON)
    return centered * inverse, inverse


TRAINING = Kernels(gelu, normalize, look_up, gather_once=gather_once, attend=attend)
SERVING = Kernels(normalize=normalize_forward, look_up_few=tf.gather)
