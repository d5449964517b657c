"""The encoder: token ids in, hidden states out; one function for every family of model.

The families differ in where the embeddings are normalized, in which layers share their weights, in where a layer
normalizes and in the names of the variables. All four follow from the fields of `AlbertConfig`; names and shapes are
those of the released checkpoints. Papers: ALBERT (arXiv 1909.11942), sections 3.1 and 3.2; BERT (arXiv 1810.04805),
section 3; pre-LN (arXiv 2002.04745), section 3. Everything is float32; a device may compute the products in less.
"""
import hashlib
import math
from typing import List, NamedTuple, Optional, Sequence, Tuple

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model.kernels import (STOCK, Activation, Dimension, Dropout, Kernels, activation,
                                     attention_probs, dimensions)

MASKED_SCORE = -10000.0                                  # added to the attention scores of padding


class Encoded(NamedTuple):
    """What the heads read."""
    sequence_output: tf.Tensor                 # [batch, seq_length, hidden]: the last layer; or [batch, outputs, hidden]
    pooled_output: tf.Tensor                   # [batch, hidden]: tanh of a dense layer over the first position
    all_layers: Tuple[tf.Tensor, ...]          # [batch, seq_length, hidden] each; the last is sequence_output
    attention_probs: Tuple[tf.Tensor, ...]     # [batch, heads, seq_length, seq_length] each; empty unless asked for
    embedding_table: tf.Tensor                 # [vocab, embedding]; plain BERT: [vocab, hidden]
    embedding_projection: Optional[tf.Variable]  # [embedding, hidden] in the albert_zh family, else None


class _LayerNames(NamedTuple):
    """Scopes of one layer's parts, below the layer's own scope."""
    attention: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


class _Context(NamedTuple):
    """What every layer of one encoder needs; its variables stay in the graph."""
    config: AlbertConfig
    batch: Dimension
    length: Dimension
    mask_scores: Optional[tf.Tensor]           # [batch, 1, 1, seq_length]; None: no padding
    packing: Optional["_Packing"]              # None: every position is a row of its own, padding too
    dropout: Optional[Dropout]
    kernels: Kernels
    with_attention_probs: bool


class _Packing(NamedTuple):
    """How the rows of tokens alone and the places of a padded batch find each other."""
    places: tf.Tensor                          # int32 [rows]: of each row in [batch · seq_length], ascending
    split: tf.Tensor                           # int32 [batch, heads, seq_length]: of [rows · heads], each place's part
    join: tf.Tensor                            # int32 [rows, heads]: of [batch · heads · seq_length], each row's parts
    is_token: tf.Tensor                        # float [batch, 1, seq_length, 1]: 0 where the place is padding


class _Outputs(NamedTuple):
    """The places for which a layer is computed where not all are wanted."""
    rows: tf.Tensor                            # int32 [batch · count]: among the rows of the layer's input
    num_each: Dimension                        # of each sequence


_BERT_NAMES = _LayerNames("attention", "attention/output/LayerNorm",
                          "intermediate/dense", "output/dense", "output/LayerNorm")
_GOOGLE_NAMES = _LayerNames("attention_1", "LayerNorm",
                            "ffn_1/intermediate/dense", "ffn_1/intermediate/output/dense", "LayerNorm_1")


def build_encoder(config: AlbertConfig, input_ids: tf.Tensor, input_mask: Optional[tf.Tensor] = None,
           segment_ids: Optional[tf.Tensor] = None, *, dropout: Optional[Dropout] = None,
           kernels: Kernels = STOCK, with_attention_probs: bool = False, skip_padding: bool = False,
           output_positions: Optional[tf.Tensor] = None) -> Encoded:
    """Builds the encoder below the variable scope "bert". A second call in one graph shares the variables.

    Args:
      config: sizes and family.
      input_ids: integers [batch, seq_length], each in [0, vocab_size). Both dimensions may be unknown.
      input_mask: [batch, seq_length], 1 for a token and 0 for padding; None means that there is no padding.
      segment_ids: integers [batch, seq_length], each in [0, type_vocab_size); None means 0 throughout.
      dropout: drops values while training, at the config's rates; None, for evaluation, keeps all.
      kernels: the backend's.
      with_attention_probs: whether to return each layer's attention.
      skip_padding: computes no dense layer and no normalization of padding, whose vectors are then 0. All else stays the
        same, to rounding; it pays where rows are much shorter than the longest.
      output_positions: int32 [batch, outputs], of tokens, where the last layer is wanted, the first of each row 0;
        nothing but keys and values is computed elsewhere. None means everywhere.

    Raises:
      ValueError: the sequence is longer than max_position_embeddings. A length that only the run knows is checked
        there: InvalidArgumentError.
    """
    batch, length = dimensions(input_ids)
    if skip_padding and input_mask is None:
        raise ValueError("skip_padding needs an input_mask")
    context = _Context(config, batch, _check_length(length, config.max_position_embeddings),
                       None if input_mask is None else _mask_scores(input_mask),
                       _pack(config, input_mask) if skip_padding else None, dropout, kernels, with_attention_probs)
    outputs = None if output_positions is None else _find_outputs(context, output_positions)
    with tf.variable_scope("bert", reuse=tf.AUTO_REUSE):
        with tf.variable_scope("embeddings"):
            hidden, table, projection = _embed(context, input_ids, segment_ids)
        with tf.variable_scope("encoder"):
            layers, probs = _transform(context, hidden, outputs)
        with tf.variable_scope("pooler"):
            pooled = dense(layers[-1][:, 0], config.hidden_size, "dense", config.initializer_range, tf.tanh)
    return Encoded(layers[-1], pooled, tuple(layers), tuple(probs), table, projection)


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
    """A kernel or table. Its first values follow from the graph's seed and its own name, whatever else the graph holds: so
    that devices, batches and heads may differ and begin alike."""
    place = "%s/%s" % (tf.get_variable_scope().name, name)
    seed = int.from_bytes(hashlib.sha256(place.encode("utf-8")).digest()[:4], "little") >> 1
    return tf.get_variable(name, shape, initializer=tf.truncated_normal_initializer(stddev=initializer_range, seed=seed))


def layer_scope(config: AlbertConfig, layer: int, inner: int = 0) -> str:
    """Where a layer's variables live below "bert/encoder"; layers that share their weights share the scope."""
    if config.family == "google":
        group = layer * (config.num_hidden_groups or 1) // config.num_hidden_layers
        return "transformer/group_%d/inner_group_%d" % (group, inner)
    return "layer_shared" if config.family == "albert_zh" else "layer_%d" % layer


def _embed(context: _Context, input_ids: tf.Tensor, segment_ids: Optional[tf.Tensor]
           ) -> Tuple[tf.Tensor, tf.Tensor, Optional[tf.Variable]]:
    """Words, segments and positions, summed and normalized: at the model's width, in Google's family at their own.

    Returns:
      float [rows, width], the table of words, and its projection in the albert_zh family.
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
    x += segments[0] if segment_ids is None else context.kernels.look_up_few(segments, _rows(context, segment_ids))
    if context.packing is None:
        x = tf.reshape(x, [context.batch, context.length, width]) + positions[:context.length]
    else:
        x += tf.gather(positions, context.packing.places % context.length)
    x = layer_norm(tf.reshape(x, [-1, width]), kernels=context.kernels)
    return _drop(context, x, config.hidden_dropout_prob, "embeddings"), table, projection


def _transform(context: _Context, x: tf.Tensor,
               outputs: Optional[_Outputs]) -> Tuple[List[tf.Tensor], List[tf.Tensor]]:
    """All layers, one above the other: their outputs [batch, seq_length, hidden] and their attention probabilities.

    Between them go rows, [rows, hidden], so that no product has to be reshaped: of all positions, or of the tokens alone.
    """
    config = context.config
    inner_layers = config.inner_group_num or 1
    if config.family == "google" and config.embedding_size != config.hidden_size:
        x = dense(x, config.hidden_size, "embedding_hidden_mapping_in", config.initializer_range)
    layers, probs = [], []
    for layer in range(config.num_hidden_layers):
        for inner in range(inner_layers):
            is_last = layer == config.num_hidden_layers - 1 and inner == inner_layers - 1
            wanted = outputs if is_last else None
            with tf.variable_scope(layer_scope(config, layer, inner)):
                x, layer_probs = _layer(context, x, "layer_%d/inner_%d/" % (layer, inner), wanted)
            layers.append(_all_places(context, x) if wanted is None else
                          tf.reshape(x, [context.batch, wanted.num_each, config.hidden_size]))
            probs += [] if layer_probs is None else [layer_probs]
    return layers, probs


def _layer(context: _Context, x: tf.Tensor, place: str, outputs: Optional[_Outputs]) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
    """Attention, then feed-forward, each with a residual; normalized after the residual, in pre-LN before the block."""
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
    """Multi-head self-attention (arXiv 1706.03762, section 3.2) with its output projection, and its probabilities if wanted."""
    config = context.config

    def project(rows: tf.Tensor, name: str) -> tf.Tensor:
        return dense(rows, config.hidden_size, "self/" + name, config.initializer_range)

    def drop(probs: tf.Tensor, part: str) -> tf.Tensor:
        return _drop(context, probs, config.attention_probs_dropout_prob, place + "attention_probs" + part)

    with tf.variable_scope(scope):
        query = (_split_heads(context, project(x, "query")) if outputs is None else
                 _transpose_heads(context, project(tf.gather(x, outputs.rows), "query"), outputs.num_each))
        key, value = (_split_heads(context, project(x, name)) for name in ("key", "value"))
        query *= 1.0 / math.sqrt(config.head_size)
        heads = context.kernels.attend(query, key, value, context.mask_scores, drop)
        probs = attention_probs(query, key, context.mask_scores) if context.with_attention_probs else None
        if context.packing is None or outputs is not None:
            heads = tf.transpose(heads, [0, 2, 1, 3])
        else:
            heads = _join_heads(context, context.packing, tf.reshape(heads, [-1, config.head_size]))
        joined = tf.reshape(heads, [-1, config.hidden_size])
        return dense(joined, config.hidden_size, "output/dense", config.initializer_range), probs


def _split_heads(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[rows, hidden] -> [batch, heads, seq_length, head_size]; what stands at padding that is skipped means nothing."""
    if context.packing is None:
        return _transpose_heads(context, x, context.length)
    split, join = context.packing.split, context.packing.join
    parts = tf.reshape(x, [-1, context.config.head_size])
    return context.kernels.gather_once(parts, split, lambda grad: tf.gather(grad, join))


def _join_heads(context: _Context, packing: _Packing, parts: tf.Tensor) -> tf.Tensor:
    """[batch · heads · seq_length, head_size] -> [rows, heads, head_size]."""
    split, is_token = packing.split, packing.is_token
    return context.kernels.gather_once(parts, packing.join, lambda grad: tf.gather(grad, split) * is_token)


def _transpose_heads(context: _Context, x: tf.Tensor, length: Dimension) -> tf.Tensor:
    """[batch · length, hidden] -> [batch, heads, length, head_size]."""
    config = context.config
    x = tf.reshape(x, [context.batch, length, config.num_attention_heads, config.head_size])
    return tf.transpose(x, [0, 2, 1, 3])


def _pack(config: AlbertConfig, input_mask: tf.Tensor) -> _Packing:
    """Numbers rows and places once for all layers: a gather by them splits or joins heads and skips padding in one pass."""
    heads = tf.range(config.num_attention_heads)
    length = dimensions(input_mask)[1]
    is_token = tf.reshape(input_mask, [-1]) > 0
    places = tf.cast(tf.where(is_token)[:, 0], tf.int32)
    row = tf.reshape(tf.maximum(tf.cumsum(tf.cast(is_token, tf.int32)) - 1, 0), tf.shape(input_mask))
    split = row[:, tf.newaxis, :] * config.num_attention_heads + heads[:, tf.newaxis]
    sequence, position = places // length, places % length
    join = (sequence[:, tf.newaxis] * config.num_attention_heads + heads) * length + position[:, tf.newaxis]
    return _Packing(places, split, join, tf.cast(input_mask, tf.float32)[:, tf.newaxis, :, tf.newaxis])


def _rows(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[batch, seq_length] -> [rows]."""
    x = tf.reshape(x, [-1])
    return x if context.packing is None else tf.gather(x, context.packing.places)


def _all_places(context: _Context, x: tf.Tensor) -> tf.Tensor:
    """[rows, width] -> [batch, seq_length, width], 0 at padding that was skipped."""
    shape = [context.batch, context.length, x.shape[-1].value]
    if context.packing is not None:
        x = tf.scatter_nd(context.packing.places[:, tf.newaxis], x, [shape[0] * shape[1], shape[2]])
    return tf.reshape(x, shape)


def _find_outputs(context: _Context, positions: tf.Tensor) -> _Outputs:
    batch, count = dimensions(positions)
    rows = tf.reshape(tf.cast(positions, tf.int32) + tf.range(batch)[:, tf.newaxis] * context.length, [-1])
    if context.packing is not None:            # a place's row is the number of tokens before it; a row of padding alone,
        last = tf.shape(context.packing.places)[0] - 1       # which only fills a batch, gets another's
        rows = tf.minimum(tf.searchsorted(context.packing.places, rows), last)
    return _Outputs(rows, count)


def _feed_forward(config: AlbertConfig, x: tf.Tensor, units: int, scope: str,
                  act: Optional[Activation] = None) -> tf.Tensor:
    """A dense layer, or with num_ffn_groups > 1 as many narrow ones side by side (Google's fast variant).

    The kernel is then [width / groups, units / groups, groups]. The group is the fastest axis of the input and the
    slowest of the output, so that two layers in a row mix the groups.
    """
    groups = config.num_ffn_groups
    if groups == 1:
        return dense(x, units, scope, config.initializer_range, act)
    width = x.shape[-1].value
    with tf.variable_scope(scope):
        kernel = random_variable("kernel", [width // groups, units // groups, groups], config.initializer_range)
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
        by_group = tf.transpose(tf.reshape(x, [-1, width // groups, groups]), [2, 0, 1])
        y = tf.transpose(tf.matmul(by_group, tf.transpose(kernel, [2, 0, 1])), [1, 0, 2])
        y = tf.nn.bias_add(tf.reshape(y, [-1, units]), bias)
        return y if act is None else act(y)


def _table(config: AlbertConfig, name: str, rows: int, width: int) -> tf.Variable:
    return random_variable(name, [rows, width], config.initializer_range)


def _drop(context: _Context, x: tf.Tensor, rate: float, place: str) -> tf.Tensor:
    return x if context.dropout is None or rate == 0 else context.dropout(x, rate, place)


def _mask_scores(input_mask: tf.Tensor) -> tf.Tensor:
    """[batch, seq_length] of 0 and 1 -> [batch, 1, 1, seq_length], added to the scores of all heads and positions."""
    return (1.0 - tf.cast(input_mask, tf.float32)[:, tf.newaxis, tf.newaxis, :]) * MASKED_SCORE


def _check_length(length: Dimension, longest: int) -> Dimension:
    """Refuses a sequence that has no position embeddings: now where the length is static, else when the graph runs."""
    if isinstance(length, int):
        if length > longest:
            raise ValueError("sequence length %d exceeds max_position_embeddings, which is %d" % (length, longest))
        return length
    message = "sequence length exceeds max_position_embeddings, which is %d" % longest
    with tf.control_dependencies([tf.debugging.assert_less_equal(length, longest, message=message)]):
        return tf.identity(length)
