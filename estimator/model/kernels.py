"""The small functions of a model that a backend may replace; plain TensorFlow's are `STOCK`."""
import hashlib
from typing import Callable, List, NamedTuple, Optional, Tuple, Union

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig

Activation = Callable[[tf.Tensor], tf.Tensor]
# (x, rate, name of the place) -> x with values dropped
Dropout = Callable[[tf.Tensor, float, str], tf.Tensor]
# (x, which part of the batch it is) -> x with values dropped
PartDropout = Callable[[tf.Tensor, str], tf.Tensor]
Dimension = Union[int, tf.Tensor]  # a static size, or a scalar if it is dynamic

LAYER_NORM_EPSILON = 1e-12
GELU_LINEAR, GELU_CUBIC = 1.5957691216, 0.0713548163      # 2 sqrt(2 / pi), and that times 0.044715


def gelu(x: tf.Tensor) -> tf.Tensor:
    """Gaussian error linear unit, the tanh approximation (arXiv 1606.08415, section 2).

    0.5 (1 + tanh u) equals sigmoid(2u), which saves two passes over the widest tensor of the model.
    """
    return x * tf.sigmoid(x * (GELU_LINEAR + GELU_CUBIC * x * x))


def swish(x: tf.Tensor) -> tf.Tensor:
    """x · sigmoid(x) (arXiv 1710.05941, section 4)."""
    return x * tf.sigmoid(x)


def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
    """Layer normalization of the last axis (arXiv 1607.06450, section 3).

    Composed of the two ops that graph compilers recognize for fusing a layer normalization.
    """
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, LAYER_NORM_EPSILON)


def look_up(table: tf.Tensor, ids: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Rows [ids, width] of a table [vocab, width], and the table, for a head to multiply by."""
    return tf.gather(table, ids), table


def look_up_few(table: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """[rows] -> [rows, width] of a table of few rows.

    As a product: a gather's gradient would add every token into the same two rows, one after the other.
    """
    return tf.matmul(tf.one_hot(ids, table.shape[0].value, dtype=tf.float32), table)


def gather_once(parts: tf.Tensor, indices: tf.Tensor, spread: Activation) -> tf.Tensor:
    """The rows of `parts` at `indices`: [parts, width] -> indices' shape + [width].

    Each is gathered once, except those that stand for padding, whose gradient is 0. `spread` is the inverse:
    it maps gradients of the gathered rows to those of `parts`, in their order.
    """
    del spread
    return tf.gather(parts, indices)


def attention_probs(query: tf.Tensor, key: tf.Tensor, mask_scores: Optional[tf.Tensor]) -> tf.Tensor:
    """How much each query attends to each key: [..., queries, size] and [..., keys, size] -> [...,
    queries, keys].

    `mask_scores`, which broadcasts to the result, is added before the softmax; None adds nothing.
    """
    scores = tf.matmul(query, key, transpose_b=True)
    return tf.nn.softmax(scores if mask_scores is None else scores + mask_scores)


def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask_scores: Optional[tf.Tensor],
           drop: PartDropout) -> tf.Tensor:
    """The heads' attention output (arXiv 1706.03762, section 3.2.1): [batch, heads, queries, head_size].

    Args:
      query: [batch, heads, queries, head_size], scaled.
      key, value: [batch, heads, keys, head_size].
      mask_scores: [batch, 1, 1, keys], added to the scores; or None.
      drop: of the probabilities of all sequences, the part "".
    """
    return tf.matmul(drop(attention_probs(query, key, mask_scores), ""), value)


class Kernels(NamedTuple):
    """The functions that a backend may replace."""
    gelu: Activation = gelu
    normalize: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] = normalize
    look_up: Callable[[tf.Tensor, tf.Tensor], Tuple[tf.Tensor, tf.Tensor]] = look_up
    look_up_few: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = look_up_few
    gather_once: Callable[[tf.Tensor, tf.Tensor, Activation], tf.Tensor] = gather_once
    attend: Callable[[tf.Tensor, tf.Tensor, tf.Tensor, Optional[tf.Tensor], PartDropout], tf.Tensor] = attend


STOCK = Kernels()


def activation(config: AlbertConfig, kernels: Kernels = STOCK) -> Activation:
    """The function that `config.hidden_act` names."""
    return {"gelu": kernels.gelu, "swish": swish, "relu": tf.nn.relu, "tanh": tf.tanh,
            "linear": tf.identity}[config.hidden_act]


def stateless_dropout(seed: int, step: Union[int, tf.Tensor]) -> Dropout:
    """Dropout that depends only on (seed, step, place), so that a resumed run equals an uninterrupted one.

    Args:
      seed: any integer.
      step: integer scalar that no two training steps share; with gradient accumulation it must count
        micro-steps.
    """
    def dropout(x: tf.Tensor, rate: float, place: str) -> tf.Tensor:
        digest = hashlib.sha256(("%d %s" % (seed, place)).encode("utf-8")).digest()
        place_seed = int.from_bytes(digest[:8], "little", signed=True)
        uniform = tf.random.stateless_uniform(dimensions(x), tf.stack([place_seed, tf.cast(step, tf.int64)]))
        return x * tf.cast(uniform >= rate, x.dtype) * (1.0 / (1.0 - rate))
    return dropout


def dimensions(x: tf.Tensor) -> List[Dimension]:
    """The shape of `x`: ints if known, otherwise scalar tensors."""
    sizes = x.shape.as_list()
    if None in sizes:
        dynamic = tf.shape(x)
        sizes = [dynamic[axis] if size is None else size for axis, size in enumerate(sizes)]
    return sizes
