"""The encoder: token ids in, hidden states out; one function for every family of model.

The families differ in where the embeddings are normalized, in which layers share their weights, in where a
layer normalizes and in the names of the variables. All four are determined by `AlbertConfig`; names
and shapes are those of the released checkpoints. Papers: ALBERT (arXiv 1909.11942), sections 3.1 and 3.2;
BERT (arXiv 1810.04805), section 3; pre-LN (arXiv 2002.04745), section 3. Everything is float32; a device may
compute the products in less.

Dimensions, as the shapes below have them:

  B  sequences of a batch
  T  positions of a sequence, padding included: seq_length
  R  rows, one per computed position: B · T, or only the tokens if padding is skipped
  D  width of the hidden states: hidden_size = N · H
  N  attention heads: num_attention_heads
  H  width of a head: head_size
  E  width of the embeddings: embedding_size
  V  entries of the vocabulary: vocab_size
  P  positions of a sequence that the heads above the encoder read
"""
import hashlib
import math
from typing import List, NamedTuple, Optional, Sequence, Tuple

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model.kernels import (STOCK, Activation, Dimension, Dropout, Kernels, activation,
                                     attention_probs, dimensions)

MASKED_SCORE = -10000.0                                  # added to the attention scores of padding


class EncoderOutput(NamedTuple):
    """The encoder's output."""
    sequence_output: tf.Tensor                 # [B, T, D]: the last layer; or [B, P, D]
    pooled_output: tf.Tensor                   # [B, D]: tanh of a dense layer over the first position
    all_layers: Tuple[tf.Tensor, ...]          # [B, T, D] each; the last is sequence_output
    attention_probs: Tuple[tf.Tensor, ...]     # [B, N, T, T] each; empty unless asked for
    embedding_table: tf.Tensor                 # [V, E]; plain BERT: [V, D]
    embedding_projection: Optional[tf.Variable]  # [E, D] in the albert_zh family, else None


class _LayerNames(NamedTuple):
    """Scopes of one layer's parts, below the layer's own scope."""
    attention: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


class _Context(NamedTuple):
    """The shared inputs of all layers of one encoder."""
    config: AlbertConfig
    batch: Dimension
    length: Dimension
    mask_scores: Optional[tf.Tensor]           # [B, 1, 1, T]; None: no padding
    packing: Optional["_Packing"]              # None: every position is a row, padding too
    dropout: Optional[Dropout]
    kernels: Kernels
    with_attention_probs: bool


class _Packing(NamedTuple):
    """The mapping between the rows of a batch without padding and the positions of the padded batch.

    A *place* is a position of the padded batch, b · T + t. With B = 2, T = 3 and padding at one place:

      tokens         a  b  -    c  d  e
      places         0  1  2    3  4  5       `places` of the rows: 0 1 3 4 5
      rows           0  1       2  3  4       R = 5

    A *part* is the share of one head in a row, H numbers. Between rows [R, D] and attention [B, N, T, H] only
    the order of parts changes, so both directions are one gather. With N = 2, parts are numbered

      from rows      r · N + n                part_at_place[1] = 4 6 8 (head 0 of c d e)   5 7 9 (head 1)
      in attention   (b · N + n) · T + t      place_of_part[2] = 6 9 (heads 0 and 1 of c)

    Padding uses the parts of the token before it, which attention masks; so the gradient of either gather is
    the other gather, once the gradients of padding are set to 0.
    """
    places: tf.Tensor                          # int32 [R]: of each row, ascending
    row_at_place: tf.Tensor                    # int32 [B, T]; padding has that of the token before it
    part_at_place: tf.Tensor                   # int32 [B, N, T], each in [0, R · N)
    place_of_part: tf.Tensor                   # int32 [R, N], each in [0, B · N · T)
    is_token: tf.Tensor                        # float [B, 1, T, 1]: 0 for padding


class _Outputs(NamedTuple):
    """The positions for which a layer is computed if not all are needed."""
    rows: tf.Tensor                            # int32 [B · P]: among the rows of the layer's input
    num_each: Dimension                        # P


_BERT_NAMES = _LayerNames("attention", "attention/output/LayerNorm",
                          "intermediate/dense", "output/dense", "output/LayerNorm")
_GOOGLE_NAMES = _LayerNames("attention_1", "LayerNorm",
                            "ffn_1/intermediate/dense", "ffn_1/intermediate/output/dense", "LayerNorm_1")


def build_encoder(config: AlbertConfig, input_ids: tf.Tensor, input_mask: Optional[tf.Tensor] = None,
           segment_ids: Optional[tf.Tensor] = None, *, dropout: Optional[Dropout] = None,
           kernels: Kernels = STOCK, with_attention_probs: bool = False, skip_padding: bool = False,
           output_positions: Optional[tf.Tensor] = None) -> EncoderOutput:
    """Builds the encoder below the variable scope "bert". A second call in one graph shares the variables.

    Args:
      config: sizes and family.
      input_ids: integers [B, T], each in [0, V). Both dimensions may be unknown.
      input_mask: [B, T], 1 for a token and 0 for padding; None means that there is no padding.
      segment_ids: integers [B, T], each in [0, type_vocab_size); None means 0 throughout.
      dropout: drops values while training, at the config's rates; None, for evaluation, keeps all.
      kernels: the backend's.
      with_attention_probs: whether to return each layer's attention.
      skip_padding: computes no dense layer and no normalization of padding, whose vectors are then 0. The
        rest is the same up to rounding; it pays off if rows are much shorter than the longest.
      output_positions: int32 [B, P], of tokens, where the last layer is needed, the first of each row 0;
        only keys and values are computed elsewhere. None means everywhere.

    Raises:
      ValueError: the sequence is longer than max_position_embeddings. A dynamic length is checked at run
        time: InvalidArgumentError.
    """
    batch, length = dimensions(input_ids)
    if skip_padding and input_mask is None:
        raise ValueError("skip_padding needs an input_mask")
    context = _Context(config, batch, _check_length(length, config.max_position_embeddings),
                       None if input_mask is None else _mask_scores(input_mask),
                       _pack(config, input_mask) if skip_padding else None, dropout, kernels,
                       with_attention_probs)
    outputs = None if output_positions is None else _find_outputs(context, output_positions)
    with tf.variable_scope("bert", reuse=tf.AUTO_REUSE):
        with tf.variable_scope("embeddings"):
            hidden, table, projection = _embed(context, input_ids, segment_ids)
        with tf.variable_scope("encoder"):
            layers, probs = _transform(context, hidden, outputs)
        with tf.variable_scope("pooler"):
            pooled = dense(layers[-1][:, 0], config.hidden_size, "dense", config.initializer_range, tf.tanh)
    return EncoderOutput(layers[-1], pooled, tuple(layers), tuple(probs), table, projection)


def dense(x: tf.Tensor, units: int, scope: str, initializer_range: float,
          act: Optional[Activation] = None) -> tf.Tensor:
    """x · kernel + bias: float [rows, width] -> [rows, units]; variables `scope`/{kernel, bias}."""
    with tf.variable_scope(scope):
        kernel = random_variable("kernel", [x.shape[-1].value, units], initializer_range)
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        y = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        return y if act is None else act(y)


def layer_norm(x: tf.Tensor, scope: str = "LayerNorm", kernels: Kernels = STOCK) -> tf.Tensor:
    """Normalizes rows, float [rows, width]; variables `scope`/{beta, gamma}."""
    width = x.shape[-1].value
    with tf.variable_scope(scope):
        beta = tf.get_variable("beta", [width], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [width], initializer=tf.ones_initializer())
        return kernels.normalize(x, gamma, beta)


def random_variable(name: str, shape: Sequence[int], initializer_range: float) -> tf.Variable:
    """A kernel or table. Its initial values depend only on the graph's seed and its own name, so that graphs
    with other devices, batches and heads start with the same values."""
    place = "%s/%s" % (tf.get_variable_scope().name, name)
    seed = int.from_bytes(hashlib.sha256(place.encode("utf-8")).digest()[:4], "little") >> 1
    return tf.get_variable(name, shape,
                           initializer=tf.truncated_normal_initializer(stddev=initializer_range, seed=seed))


def layer_scope(config: AlbertConfig, layer: int, inner: int = 0) -> str:
    """The scope of a layer's variables below "bert/encoder"; layers that share their weights share the
    scope."""
    if config.family == "google":
        group = layer * (config.num_hidden_groups or 1) // config.num_hidden_layers
        return "transformer/group_%d/inner_group_%d" % (group, inner)
    return "layer_shared" if config.family == "albert_zh" else "layer_%d" % layer


def _embed(context: _Context, input_ids: tf.Tensor, segment_ids: Optional[tf.Tensor]
           ) -> Tuple[tf.Tensor, tf.Tensor, Optional[tf.Variable]]:
    """Words, segments and positions, summed and normalized: at the model's width, in Google's family at
    their own.

    Returns:
      float [R, width], the table of words, and its projection in the albert_zh family.
    """
    config = context.config
    table_width = config.embedding_size or config.hidden_size
    table = _table(config, "word_embeddings", config.vocab_size, table_width)
    x, table = context.kernels.look_up(table, _rows(context, input_ids))
    projection = None
    if config.family == "albert_zh":
        projection = _table(config, "word_embeddings_2", table_width, config.hidden_size)
        x = tf.matmul(x, projection)
    width = x.shape[-1].value
    segments = _table(config, "token_type_embeddings", config.type_vocab_size, width)
    positions = _table(config, "position_embeddings", config.max_position_embeddings, width)
    x += segments[0] if segment_ids is None else context.kernels.look_up_few(
        segments, _rows(context, segment_ids))
    if context.packing is None:
        x = tf.reshape(x, [context.batch, context.length, width]) + positions[:context.length]
    else:
        x += tf.gather(positions, context.packing.places % context.length)
    x = layer_norm(tf.reshape(x, [-1, width]), kernels=context.kernels)
    return _drop(context, x, config.hidden_dropout_prob, "embeddings"), table, projection


def _transform(context: _Context, x: tf.Tensor,
               outputs: Optional[_Outputs]) -> Tuple[List[tf.Tensor], List[tf.Tensor]]:
    """All layers in sequence: their outputs [B, T, D] and their attention probabilities.

    They pass on rows, [R, D], so that products need no reshaping: of all positions, or only of the tokens.
    """
    config = context.config
    inner_layers = config.inner_group_num or 1
    if config.family == "google" and config.embedding_size != config.hidden_size:
        x = dense(x, config.hidden_size, "embedding_hidden_mapping_in", config.initializer_range)
    layers, probs = [], []
    for layer in range(config.num_hidden_layers):
        for inner in range(inner_layers):
            is_last = (layer, inner) == (config.num_hidden_layers - 1, inner_layers - 1)
            wanted = outputs if is_last else None
            with tf.variable_scope(layer_scope(config, layer, inner)):
                x, layer_probs = _layer(context, x, "layer_%d/inner_%d/" % (layer, inner), wanted)
            if wanted is None:
                layers.append(_all_places(context, x))
            else:
                layers.append(tf.reshape(x, [context.batch, wanted.num_each, config.hidden_size]))
            if layer_probs is not None:
                probs.append(layer_probs)
    return layers, probs


def _layer(context: _Context, x: tf.Tensor, place: str,
           outputs: Optional[_Outputs]) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
    """Attention, then feed-forward, each with a residual; normalized after the residual, or before the block
    in pre-LN."""
    config = context.config
    names = _GOOGLE_NAMES if config.family == "google" else _BERT_NAMES
    pre = config.ln_type == "preln"

    def normalized(rows: tf.Tensor, scope: str) -> tf.Tensor:
        return layer_norm(rows, scope, context.kernels)

    block_input = normalized(x, names.attention_norm) if pre else x
    attended, probs = _attend(context, block_input, names.attention, place, outputs)
    x = x if outputs is None else tf.gather(x, outputs.rows)
    x = x + _drop(context, attended, config.hidden_dropout_prob, place + "attention_output")
    x = x if pre else normalized(x, names.attention_norm)

    block_input = normalized(x, names.output_norm) if pre else x
    widened = _feed_forward(config, block_input, config.intermediate_size, names.intermediate,
                            activation(config, context.kernels))
    narrowed = _feed_forward(config, widened, config.hidden_size, names.output)
    x = x + _drop(context, narrowed, config.hidden_dropout_prob, place + "output")
    return (x if pre else normalized(x, names.output_norm)), probs


def _attend(context: _Context, x: tf.Tensor, scope: str, place: str,
            outputs: Optional[_Outputs]) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
    """Multi-head self-attention (arXiv 1706.03762, section 3.2) with its output projection, and its
    probabilities if wanted."""
    config = context.config

    def project(rows: tf.Tensor, name: str) -> tf.Tensor:
        return dense(rows, config.hidden_size, "self/" + name, config.initializer_range)

    def drop(probs: tf.Tensor, part: str) -> tf.Tensor:
        return _drop(context, probs, config.attention_probs_dropout_prob, place + "attention_probs" + part)

    with tf.variable_scope(scope):
        if outputs is None:
            query = _split_heads(context, project(x, "query"))
        else:
            query = _transpose_heads(context, project(tf.gather(x, outputs.rows), "query"), outputs.num_each)
        key, value = (_split_heads(context, project(x, name)) for name in ("key", "value"))
        query *= 1.0 / math.sqrt(config.head_size)
        heads = context.kernels.attend(query, key, value, context.mask_scores, drop)
        probs = attention_probs(query, key, context.mask_scores) if context.with_attention_probs else None
        packing = context.packing if outputs is None else None  # outputs have no padding among them
        by_row = tf.transpose(heads, [0, 2, 1,
                                      3]) if packing is None else _join_heads(context, packing, heads)
        joined = tf.reshape(by_row, [-1, config.hidden_size])
        return dense(joined, config.hidden_size, "output/dense", config.initializer_range), probs


def _split_heads(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[R, D] -> [B, N, T, H]; values at skipped padding are meaningless."""
    packing = context.packing
    if packing is None:
        return _transpose_heads(context, x, context.length)

    def join_gradients(at_places: tf.Tensor) -> tf.Tensor:
        """[B · N · T, H] -> [R, N, H]."""
        return tf.gather(at_places, packing.place_of_part)

    parts = tf.reshape(x, [-1, context.config.head_size])
    return context.kernels.gather_once(parts, packing.part_at_place, join_gradients)


def _join_heads(context: _Context, packing: _Packing, heads: tf.Tensor) -> tf.Tensor:
    """The inverse of `_split_heads` if padding is skipped: [B, N, T, H] -> [R, N, H]."""
    def split_gradients(of_parts: tf.Tensor) -> tf.Tensor:
        """[R · N, H] -> [B, N, T, H], 0 at padding."""
        return tf.gather(of_parts, packing.part_at_place) * packing.is_token

    at_places = tf.reshape(heads, [-1, context.config.head_size])
    return context.kernels.gather_once(at_places, packing.place_of_part, split_gradients)


def _transpose_heads(context: _Context, x: tf.Tensor, length: Dimension) -> tf.Tensor:
    """[B · length, D] -> [B, N, length, H]."""
    config = context.config
    x = tf.reshape(x, [context.batch, length, config.num_attention_heads, config.head_size])
    return tf.transpose(x, [0, 2, 1, 3])


def _pack(config: AlbertConfig, input_mask: tf.Tensor) -> _Packing:
    """Numbers rows, places and parts once for all layers; input_mask: [B, T]."""
    num_heads, length = config.num_attention_heads, dimensions(input_mask)[1]
    heads = tf.range(num_heads)
    is_token = tf.reshape(input_mask, [-1]) > 0                                # [B · T]
    places = tf.cast(tf.where(is_token)[:, 0], tf.int32)                       # [R]

    tokens_up_to_here = tf.cumsum(tf.cast(is_token, tf.int32))                 # [B · T]
    row_at_place = tf.reshape(tf.maximum(tokens_up_to_here - 1, 0), tf.shape(input_mask))          # [B, T]
    part_at_place = row_at_place[:, tf.newaxis, :] * num_heads + heads[:, tf.newaxis]  # [B, N, T]

    sequence, position = places // length, places % length                     # [R] each
    begin_of_head = (sequence[:, tf.newaxis] * num_heads + heads) * length     # [R, N]
    place_of_part = begin_of_head + position[:, tf.newaxis]                    # [R, N]
    is_token_by_place = tf.cast(input_mask, tf.float32)[:, tf.newaxis, :, tf.newaxis]
    return _Packing(places, row_at_place, part_at_place, place_of_part, is_token_by_place)


def _rows(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[B, T] -> [R]."""
    x = tf.reshape(x, [-1])
    return x if context.packing is None else tf.gather(x, context.packing.places)


def _all_places(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[R, width] -> [B, T, width], 0 at skipped padding."""
    batch, length, width = context.batch, context.length, x.shape[-1].value
    if context.packing is not None:
        x = tf.scatter_nd(context.packing.places[:, tf.newaxis], x, [batch * length, width])
    return tf.reshape(x, [batch, length, width])


def _find_outputs(context: _Context, positions: tf.Tensor) -> _Outputs:
    """The rows of positions [B, P]."""
    batch, num_each = dimensions(positions)
    begin_of_sequence = tf.range(batch)[:, tf.newaxis] * context.length        # [B, 1]
    places = tf.reshape(tf.cast(positions, tf.int32) + begin_of_sequence, [-1])
    if context.packing is None:
        return _Outputs(places, num_each)
    # a sequence of only padding, which fills a batch, gets another's
    return _Outputs(tf.gather(tf.reshape(context.packing.row_at_place, [-1]), places), num_each)


def _feed_forward(config: AlbertConfig, x: tf.Tensor, units: int, scope: str,
                  act: Optional[Activation] = None) -> tf.Tensor:
    """A dense layer, or with num_ffn_groups > 1 that many narrow parallel ones (Google's fast variant).

    The kernel is then [width / groups, units / groups, groups]. The group is the fastest axis of the input
    and the slowest of the output, so that two layers in a row mix the groups.
    """
    groups = config.num_ffn_groups
    if groups == 1:
        return dense(x, units, scope, config.initializer_range, act)
    width = x.shape[-1].value
    with tf.variable_scope(scope):
        kernel = random_variable("kernel", [width // groups, units // groups, groups],
                                 config.initializer_range)
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        x_by_group = tf.transpose(tf.reshape(x, [-1, width // groups, groups]), [2, 0, 1])
        kernel_by_group = tf.transpose(kernel, [2, 0, 1])
        y_by_group = tf.matmul(x_by_group, kernel_by_group)  # [groups, rows, units / groups]
        y = tf.reshape(tf.transpose(y_by_group, [1, 0, 2]), [-1, units])
        y = tf.nn.bias_add(y, bias)
        return y if act is None else act(y)


def _table(config: AlbertConfig, name: str, rows: int, width: int) -> tf.Variable:
    return random_variable(name, [rows, width], config.initializer_range)


def _drop(context: _Context, x: tf.Tensor, rate: float, place: str) -> tf.Tensor:
    return x if context.dropout is None or rate == 0 else context.dropout(x, rate, place)


def _mask_scores(input_mask: tf.Tensor) -> tf.Tensor:
    """[B, T] of 0 and 1 -> [B, 1, 1, T], added to the scores of all heads and positions."""
    is_token = tf.cast(input_mask, tf.float32)[:, tf.newaxis, tf.newaxis, :]
    return (1.0 - is_token) * MASKED_SCORE


def _check_length(length: Dimension, longest: int) -> Dimension:
    """Refuses a sequence that exceeds the position embeddings: now if the length is static, otherwise when
    the graph runs."""
    if isinstance(length, int):
        if length > longest:
            raise ValueError("sequence length %d exceeds max_position_embeddings, which is %d"
                             % (length, longest))
        return length
    message = "sequence length exceeds max_position_embeddings, which is %d" % longest
    with tf.control_dependencies([tf.debugging.assert_less_equal(length, longest, message=message)]):
        return tf.identity(length)
