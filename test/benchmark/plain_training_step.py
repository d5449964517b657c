"""A pretraining step in the older tools' way, as the baseline of `training_step.py`; the same variables
as ours.

Every layer at every position, 4-D attention with transposes, segments looked up and labels picked by one-hot
products, gelu and LAMB from primitive ops, a variable at a time.
"""
import math
from typing import Mapping

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model import kernels, modeling


def training_loss(config: AlbertConfig, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Masked LM and sentence order of a post-LN albert_zh model, without dropout: float32 scalar."""
    ids, mask, segments = (features[name] for name in ("input_ids", "input_mask", "segment_ids"))
    batch, length = ids.shape.as_list()
    with tf.variable_scope("bert"):
        with tf.variable_scope("embeddings"):
            table = _variable(config, "word_embeddings", [config.vocab_size, config.embedding_size])
            projection = _variable(config, "word_embeddings_2", [config.embedding_size, config.hidden_size])
            x = tf.matmul(tf.reshape(tf.gather(table, ids), [-1, config.embedding_size]), projection)
            x = tf.reshape(x, [batch, length, config.hidden_size])
            types = _variable(config, "token_type_embeddings", [config.type_vocab_size, config.hidden_size])
            one_hot = tf.one_hot(tf.reshape(segments, [-1]), config.type_vocab_size)
            x += tf.reshape(tf.matmul(one_hot, types), [batch, length, config.hidden_size])
            positions = _variable(config, "position_embeddings",
                                  [config.max_position_embeddings, config.hidden_size])
            x = _layer_norm(x + tf.slice(positions, [0, 0], [length, -1])[tf.newaxis])
        attention_mask = tf.ones([batch, length, 1]) * tf.cast(mask[:, tf.newaxis, :], tf.float32)
        with tf.variable_scope("encoder"):
            x = tf.reshape(x, [-1, config.hidden_size])
            for _ in range(config.num_hidden_layers):
                with tf.variable_scope("layer_shared", reuse=tf.AUTO_REUSE):
                    x = _layer(config, x, attention_mask, batch, length)
        sequence = tf.reshape(x, [batch, length, config.hidden_size])
        pooled = tf.layers.dense(tf.squeeze(sequence[:, 0:1, :], axis=1), config.hidden_size, tf.tanh,
                                 name="pooler/dense")
    return _masked_lm_loss(config, features, sequence, table,
                           projection) + _order_loss(config, features, pooled)


def lamb_step(loss: tf.Tensor, learning_rate: tf.Tensor) -> tf.Operation:
    """Clips by the global norm and updates, as LAMB does."""
    variables = tf.trainable_variables()
    grads, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), clip_norm=1.0)
    updates = []
    for grad, variable in zip(grads, variables):
        name = variable.op.name
        m, v = (tf.get_variable(name + "/lamb_" + slot, variable.shape, trainable=False,
                                initializer=tf.zeros_initializer()) for slot in ("m", "v"))
        next_m = tf.multiply(0.9, m) + tf.multiply(0.1, grad)
        next_v = tf.multiply(0.999, v) + tf.multiply(0.001, tf.square(grad))
        update = next_m / (tf.sqrt(next_v) + 1e-6)
        if "LayerNorm" not in name and "bias" not in name:
            update += 0.01 * variable
        w_norm, g_norm = tf.norm(variable, ord=2), tf.norm(update, ord=2)
        ratio = tf.where(tf.greater(w_norm, 0), tf.where(tf.greater(g_norm, 0), w_norm / g_norm, 1.0), 1.0)
        updates += [variable.assign(variable - ratio * learning_rate * update), m.assign(next_m),
                    v.assign(next_v)]
    step = tf.train.get_or_create_global_step()
    return tf.group(*updates, step.assign(step + 1))


def _layer(config: AlbertConfig, x: tf.Tensor, attention_mask: tf.Tensor, batch: int,
           length: int) -> tf.Tensor:
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            query, key, value = (
                tf.transpose(tf.reshape(_dense(config, x, config.hidden_size, name),
                                        [batch, length, heads, size]), [0, 2, 1, 3])
                for name in ("query", "key", "value"))
            scores = tf.multiply(tf.matmul(query, key, transpose_b=True), 1.0 / math.sqrt(float(size)))
            scores += (1.0 - tf.expand_dims(attention_mask, axis=[1])) * -10000.0
            context = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), [0, 2, 1, 3])
            context = tf.reshape(context, [batch * length, config.hidden_size])
        with tf.variable_scope("output"):
            attended = _layer_norm(_dense(config, context, config.hidden_size, "dense") + x)
    with tf.variable_scope("intermediate"):
        wide = _gelu(_dense(config, attended, config.intermediate_size, "dense"))
    with tf.variable_scope("output"):
        return _layer_norm(_dense(config, wide, config.hidden_size, "dense") + attended)


def _masked_lm_loss(config: AlbertConfig, features: Mapping[str, tf.Tensor], sequence: tf.Tensor,
                    table: tf.Variable, projection: tf.Variable) -> tf.Tensor:
    batch, length, _ = sequence.shape.as_list()
    positions = tf.reshape(features["masked_lm_positions"] + tf.range(batch)[:, tf.newaxis] * length, [-1])
    x = tf.gather(tf.reshape(sequence, [-1, config.hidden_size]), positions)
    with tf.variable_scope("cls/predictions"):
        with tf.variable_scope("transform"):
            x = _layer_norm(_gelu(_dense(config, x, config.hidden_size, "dense")))
        bias = tf.get_variable("output_bias", [config.vocab_size], initializer=tf.zeros_initializer())
        logits = tf.matmul(tf.matmul(x, projection, transpose_b=True), table, transpose_b=True)
        log_probs = tf.nn.log_softmax(tf.nn.bias_add(logits, bias))
    one_hot = tf.one_hot(tf.reshape(features["masked_lm_ids"], [-1]), depth=config.vocab_size)
    losses = -tf.reduce_sum(log_probs * one_hot, axis=[-1])
    weights = tf.reshape(features["masked_lm_weights"], [-1])
    return tf.reduce_sum(weights * losses) / (tf.reduce_sum(weights) + 1e-5)


def _order_loss(config: AlbertConfig, features: Mapping[str, tf.Tensor], pooled: tf.Tensor) -> tf.Tensor:
    with tf.variable_scope("cls/seq_relationship"):
        weights = _variable(config, "output_weights", [2, config.hidden_size])
        bias = tf.get_variable("output_bias", [2], initializer=tf.zeros_initializer())
        log_probs = tf.nn.log_softmax(tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias))
    one_hot = tf.one_hot(tf.reshape(features["next_sentence_labels"], [-1]), depth=2)
    return tf.reduce_mean(-tf.reduce_sum(one_hot * log_probs, axis=-1))


def _gelu(x: tf.Tensor) -> tf.Tensor:
    return x * (0.5 * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * tf.pow(x, 3)))))


def _layer_norm(x: tf.Tensor) -> tf.Tensor:
    with tf.variable_scope("LayerNorm"):
        width = x.shape[-1].value
        beta = tf.get_variable("beta", [width], initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", [width], initializer=tf.ones_initializer())
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, kernels.LAYER_NORM_EPSILON)


def _dense(config: AlbertConfig, x: tf.Tensor, units: int, name: str) -> tf.Tensor:
    with tf.variable_scope(name):
        kernel = _variable(config, "kernel", [x.shape[-1].value, units])
        bias = tf.get_variable("bias", [units], initializer=tf.zeros_initializer())
    return tf.nn.bias_add(tf.matmul(x, kernel), bias)


def _variable(config: AlbertConfig, name: str, shape) -> tf.Variable:
    return modeling.random_variable(name, shape, config.initializer_range)
