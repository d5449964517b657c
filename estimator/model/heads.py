"""The heads above the encoder: masked words, sentence order, classes, spans, choices, tags, several labels;
logits, losses and predictions of each.

A head also gives its loss per example or per position, so that metrics can exclude padding by weights.
Losses are float32; a batch of only padding has loss 0 and gradient 0. Names and shapes
of the variables are those of the released checkpoints. Papers: ALBERT (arXiv 1909.11942), section 3.1; BERT
(arXiv 1810.04805), section 3.1.
"""
from typing import Any, Callable, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model import kinds, modeling
from estimator.model.kernels import STOCK, Dropout, Kernels, activation, dimensions
from estimator.model.modeling import EncoderOutput

CLASSIFIER_DROPOUT = 0.1                       # of the pooled output, for any config

# Variables by the beginnings of their names: those of a fine-tuned head, and the parts that an encoder may
# lack, each as a whole: the heads of pretraining and, with the sentence task, the pooler below it.
TRANSITIONS = "crf_loss/transitions"           # of a CRF
CLASSIFIER_PREFIXES = ("output_weights", "output_bias", "loss/LayerNorm/", "cls/squad/", TRANSITIONS)
POOLER = "bert/pooler/"
PRETRAINING_PARTS = ("cls/predictions/", "cls/seq_relationship/", POOLER)
NEW_IN_FINETUNING = CLASSIFIER_PREFIXES + (POOLER,)
NOWHERE = -10000.0                             # added to the logits of what cannot be chosen


class MaskedLm(NamedTuple):
    """The masked-LM head's results."""
    loss: tf.Tensor                            # scalar: mean over the predictions, by weight
    per_position_loss: tf.Tensor               # [batch, num_predictions], also for padding: use weights
    predictions: tf.Tensor                     # int32 [batch, num_predictions]: the most likely token
    logits: tf.Tensor                          # [batch, num_predictions, vocab]


class Classified(NamedTuple):
    """A classifying head's results; without labels both losses are None."""
    loss: Optional[tf.Tensor]                  # scalar: mean over the examples, by weight
    per_example_loss: Optional[tf.Tensor]      # [batch]
    predictions: tf.Tensor                     # int32 [batch]: the most likely class
    probabilities: tf.Tensor                   # [batch, num_labels]
    logits: tf.Tensor                          # [batch, num_labels]


class Regressed(NamedTuple):
    """A regressing head's results; without labels both losses are None."""
    loss: Optional[tf.Tensor]                  # scalar: mean squared error, by weight
    per_example_loss: Optional[tf.Tensor]      # [batch]
    predictions: tf.Tensor                     # float32 [batch]


class Labelled(NamedTuple):
    """A head's results that gives any number of labels; without labels both losses are None."""
    loss: Optional[tf.Tensor]                  # scalar: mean over the examples
    per_example_loss: Optional[tf.Tensor]      # [batch]: sum over the labels
    probabilities: tf.Tensor                   # float32 [batch, num_labels], each of its own
    logits: tf.Tensor                          # float32 [batch, num_labels]


class Spans(NamedTuple):
    """Where an answer begins and ends; without labels both losses are None."""
    loss: Optional[tf.Tensor]                  # scalar: mean over the rows
    per_example_loss: Optional[tf.Tensor]      # [batch]: mean of begin's and end's
    start_logits: tf.Tensor                    # float32 [batch, seq_length]; low at padding
    end_logits: tf.Tensor                      # likewise


class Tagged(NamedTuple):
    """Tags of tokens; without labels both losses are None. A row's loss is the sum over its tokens."""
    loss: Optional[tf.Tensor]                  # scalar: mean over the batch's tokens
    per_example_loss: Optional[tf.Tensor]      # float32 [batch]
    logits: tf.Tensor                          # float32 [batch, seq_length, tags]


Head = Callable[[AlbertConfig, EncoderOutput], Any]  # makes the variables of a fine-tuned head


def read_positions(masked_lm_positions: tf.Tensor) -> tf.Tensor:
    """All positions that the heads read, for `modeling.build_encoder`: [batch, 1 + num_predictions], the
    first token's and the masked ones'."""
    return tf.pad(masked_lm_positions, [[0, 0], [1, 0]])


def masked_lm(config: AlbertConfig, encoded: EncoderOutput, positions: Optional[tf.Tensor], ids: tf.Tensor,
              weights: tf.Tensor, kernels: Kernels = STOCK) -> MaskedLm:
    """Predicts the tokens that were masked.

    Args:
      config: the encoder's.
      encoded: the encoder's output.
      positions: integers [batch, num_predictions], each in [0, seq_length); 0 for padding. None: the
        encoder's output is only at `read_positions`.
      ids: integers [batch, num_predictions]: the original tokens.
      weights: float [batch, num_predictions]: 1 for a prediction, 0 for padding.
      kernels: as in `modeling.build_encoder`.
    """
    logits = masked_lm_logits(config, encoded, positions, kernels)
    losses = _cross_entropy(ids, logits)
    return MaskedLm(weighted_mean(losses, weights), losses, _most_likely(logits), logits)


def masked_lm_logits(config: AlbertConfig, encoded: EncoderOutput, positions: Optional[tf.Tensor],
                     kernels: Kernels = STOCK) -> tf.Tensor:
    """Scores of every token at `positions`, as in `masked_lm`: float [batch, num_predictions, vocab].

    The output matrix is the embedding table; the albert_zh family multiplies by its projection first,
    Google's transforms to the table's width.
    """
    width = config.hidden_size
    if config.family == "google" and config.embedding_size:
        width = config.embedding_size
    x = encoded.sequence_output[:, 1:] if positions is None else gather_positions(
        encoded.sequence_output, positions)
    batch, num_predictions, _ = dimensions(x)
    x = tf.reshape(x, [-1, config.hidden_size])
    with tf.variable_scope("cls/predictions", reuse=tf.AUTO_REUSE):
        with tf.variable_scope("transform"):
            x = modeling.dense(x, width, "dense", config.initializer_range, activation(config, kernels))
            x = modeling.layer_norm(x, kernels=kernels)
        if encoded.embedding_projection is not None:
            x = tf.matmul(x, encoded.embedding_projection, transpose_b=True)
        bias = tf.get_variable("output_bias", [config.vocab_size], initializer=tf.zeros_initializer())
        logits = tf.nn.bias_add(tf.matmul(x, encoded.embedding_table, transpose_b=True), bias)
        return tf.reshape(logits, [batch, num_predictions, config.vocab_size])


def sentence_order(config: AlbertConfig, encoded: EncoderOutput,
                   labels: Optional[tf.Tensor] = None) -> Classified:
    """Predicts whether the two segments were swapped: ALBERT's sentence order, or BERT's next sentence with
    other labels.

    Args:
      config: the encoder's.
      encoded: the encoder's output.
      labels: integers [batch] or [batch, 1]: 1 for swapped (or random), 0 for the text's own order.
    """
    with tf.variable_scope("cls/seq_relationship", reuse=tf.AUTO_REUSE):
        logits = _class_logits(config, encoded.pooled_output, num_labels=2)
    return _classified(logits, labels, weights=None)


def classifier(config: AlbertConfig, encoded: EncoderOutput, num_labels: int,
               labels: Optional[tf.Tensor] = None, weights: Optional[tf.Tensor] = None,
               dropout: Optional[Dropout] = None) -> Classified:
    """One of `num_labels` classes for each example, from the pooled output.

    Args:
      config: the encoder's. A pre-LN model's pooled output is normalized first (variables loss/LayerNorm/*),
        since its encoder ends without a normalization.
      encoded: the encoder's output.
      num_labels: at least 2.
      labels: integers [batch], each in [0, num_labels); None when predicting.
      weights: [batch], weight of each example: 0 for one that only fills the batch; None means 1 throughout.
      dropout: as in `modeling.build_encoder`.
    """
    return _classified(_pooled_logits(config, encoded, num_labels, dropout), labels, weights)


def regressor(config: AlbertConfig, encoded: EncoderOutput, labels: Optional[tf.Tensor] = None,
              weights: Optional[tf.Tensor] = None, dropout: Optional[Dropout] = None) -> Regressed:
    """A number for each example; arguments as in `classifier`, but labels are float32 [batch]."""
    predictions = tf.cast(_pooled_logits(config, encoded, 1, dropout)[:, 0], tf.float32)
    if labels is None:
        return Regressed(None, None, predictions)
    losses = tf.square(predictions - labels)
    return Regressed(weighted_mean(losses, weights), losses, predictions)


def multi_label(config: AlbertConfig, encoded: EncoderOutput, num_labels: int,
                labels: Optional[tf.Tensor] = None, positive_weights: Optional[tf.Tensor] = None,
                dropout: Optional[Dropout] = None) -> Labelled:
    """Any number of `num_labels` labels for each example: a sigmoid for each, from the pooled output.

    Losses are sums over the labels, since gradients of their mean are as small, with many labels, as what the
    optimizers add to the root of the second moment.

    Args:
      config, encoded, dropout: as in `classifier`; its variables are this head's, too.
      num_labels: at least 2.
      labels: float32 [batch, num_labels], 1 for a label that the example has; None when predicting.
      positive_weights: float32 [num_labels], of the losses where the example has the label; None means 1.
    """
    logits = tf.cast(_pooled_logits(config, encoded, num_labels, dropout), tf.float32)
    probabilities = tf.nn.sigmoid(logits)
    if labels is None:
        return Labelled(None, None, probabilities, logits)
    losses = tf.nn.weighted_cross_entropy_with_logits(
        labels=labels, logits=logits,
        pos_weight=tf.ones([num_labels]) if positive_weights is None else positive_weights)
    per_example = tf.reduce_sum(losses, axis=1)
    return Labelled(tf.reduce_mean(per_example), per_example, probabilities, logits)


def spans(config: AlbertConfig, encoded: EncoderOutput, input_mask: Optional[tf.Tensor] = None,
          labels: Optional[tf.Tensor] = None) -> Spans:
    """The first and the last token of an answer, read off every position (BERT, section 4.2). A row without
    an answer has both at [CLS].

    Args:
      config: the encoder's. A pre-LN model's output is normalized first, as for `classifier`.
      encoded: the encoder's output, at all positions.
      input_mask: [batch, seq_length], 1 for a token; None: there is no padding.
      labels: int32 [batch, 2]: positions of both tokens; None when predicting.
    """
    batch, length, _ = dimensions(encoded.sequence_output)
    x = tf.reshape(encoded.sequence_output, [-1, config.hidden_size])
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        if config.ln_type == "preln":
            x = modeling.layer_norm(x, "loss/LayerNorm")
        with tf.variable_scope("cls/squad"):
            logits = tf.cast(_class_logits(config, x, 2), tf.float32)
    logits = tf.reshape(logits, [batch, length, 2])
    if input_mask is not None:
        logits += (1.0 - tf.cast(input_mask, tf.float32))[:, :, tf.newaxis] * NOWHERE
    start_logits, end_logits = logits[:, :, 0], logits[:, :, 1]
    if labels is None:
        return Spans(None, None, start_logits, end_logits)
    losses = (_cross_entropy(labels[:, 0], start_logits) + _cross_entropy(labels[:, 1], end_logits)) / 2
    return Spans(tf.reduce_mean(losses), losses, start_logits, end_logits)


def choices(config: AlbertConfig, encoded: EncoderOutput, is_candidate: Optional[tf.Tensor] = None,
            labels: Optional[tf.Tensor] = None, dropout: Optional[Dropout] = None) -> Classified:
    """One of a question's candidates, by one score each: a softmax over their scores.

    Args:
      config: the encoder's.
      encoded: the encoder's output for all candidates of all questions, [batch · candidates, …].
      is_candidate: bool [batch, candidates], False where a question has no more; None: each row is a question
        of its own.
      labels: int32 [batch]: the right candidate's number; None when predicting.
      dropout: as in `modeling.build_encoder`.
    """
    scores = tf.cast(_pooled_logits(config, encoded, 1, dropout), tf.float32)
    if is_candidate is not None:
        scores = tf.reshape(scores, dimensions(is_candidate)) + (1.0 - tf.cast(is_candidate,
                                                                             tf.float32)) * NOWHERE
    return _classified(scores, labels, None)


def tags(config: AlbertConfig, encoder_output: EncoderOutput, num_labels: int,
         labels: Optional[tf.Tensor] = None, dropout: Optional[Dropout] = None, crf: bool = False) -> Tagged:
    """A tag for each token: none, or one of two for each label (tag_decoding); a softmax over the tags of a
    token or, as a CRF (Lafferty et al. 2001; Lample et al., arXiv 1603.01360, section 2.2), over the
    sequences of a row's tags. All in float32.

    Args:
      config: the encoder's. A pre-LN model's output is normalized first, as for `classifier`.
      encoder_output: the encoder's output, at all positions.
      num_labels: at least 1.
      labels: int32 [batch, seq_length]: the tag + 1 of each token of the text, which stand from position 1
        on; 0 elsewhere. None when predicting.
      dropout: as in `modeling.build_encoder`.
      crf: whether there are transitions.
    """
    batch, length, _ = dimensions(encoder_output.sequence_output)
    count = 2 * num_labels + 1
    x = tf.reshape(encoder_output.sequence_output, [-1, config.hidden_size])
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        if config.ln_type == "preln":
            x = modeling.layer_norm(x, "loss/LayerNorm")
        if dropout is not None:
            x = dropout(x, CLASSIFIER_DROPOUT, "classifier")
        logits = tf.reshape(tf.cast(_class_logits(config, x, count), tf.float32), [batch, length, count])
    transitions = crf_transitions(num_labels) if crf else None
    if labels is None:
        return Tagged(None, None, logits)
    is_token, tag_ids = labels > 0, tf.maximum(labels - 1, 0)
    if crf:
        from tensorflow.contrib import crf as contrib_crf      # takes seconds, and no other head needs it
        lengths = tf.reduce_sum(tf.cast(is_token, tf.int32), axis=1)
        likelihood, _ = contrib_crf.crf_log_likelihood(logits[:, 1:], tag_ids[:, 1:], lengths, transitions)
        losses = -likelihood
    else:
        losses = tf.reduce_sum(_cross_entropy(tag_ids, logits) * tf.cast(is_token, tf.float32), axis=1)
    num_tokens = tf.reduce_sum(tf.cast(is_token, tf.float32))
    return Tagged(tf.math.divide_no_nan(tf.reduce_sum(losses), num_tokens), losses, logits)


def crf_transitions(num_labels: int) -> tf.Tensor:
    """A CRF's scores of a tag after another: float32 [tags, tags], of the second after the first."""
    count = 2 * num_labels + 1
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        return tf.get_variable(TRANSITIONS, [count, count], initializer=tf.zeros_initializer())


def fine_tuned(kind: str, num_labels: int, crf: bool = False) -> Head:
    """The head of a kind of fine-tuning, by its name in a model's description; classes need their number, 0
    for a regression; so do several labels, and tags, and whether there is a CRF."""
    if kind == kinds.TAGS:
        return lambda config, encoder_output: tags(config, encoder_output, num_labels, crf=crf)
    if kind == kinds.MULTI_LABEL:
        return lambda config, encoder_output: multi_label(config, encoder_output, num_labels)
    if kind == kinds.SPANS:
        return spans
    if kind == kinds.CHOICES:
        return choices
    if num_labels:
        return lambda config, encoded: classifier(config, encoded, num_labels)
    return regressor


def declare_variables(config: AlbertConfig, num_labels: Optional[int] = None,
                      has_sentence_order: bool = True, kind: str = kinds.CLASSES,
                      crf: bool = False) -> None:
    """Makes all variables of a model in the default graph: with a fine-tuned head, see `fine_tuned`, or,
    where num_labels is None, with the heads of pretraining."""
    anything = tf.zeros([1, 1], tf.int32)
    encoded = modeling.build_encoder(config, anything)
    if num_labels is not None:
        fine_tuned(kind, num_labels, crf)(config, encoded)
        return
    masked_lm_logits(config, encoded, anything)
    if has_sentence_order:
        sentence_order(config, encoded)


def gather_positions(sequence: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Picks the vectors at `positions` from each sequence.

    Args:
      sequence: float [batch, seq_length, hidden].
      positions: integers [batch, num_predictions], each in [0, seq_length).

    Returns:
      float [batch, num_predictions, hidden].
    """
    batch, length, width = dimensions(sequence)
    first_rows = tf.range(batch, dtype=tf.int32)[:, tf.newaxis] * length
    return tf.gather(tf.reshape(sequence, [-1, width]), tf.cast(positions, tf.int32) + first_rows)


def weighted_mean(values: tf.Tensor, weights: Optional[tf.Tensor]) -> tf.Tensor:
    """Mean of `values` with `weights` of the same shape; 0 if they sum to 0; None means equal weights."""
    if weights is None:
        return tf.reduce_mean(values)
    weights = tf.cast(weights, values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(weights))


def _pooled_logits(config: AlbertConfig, encoded: EncoderOutput, num_labels: int,
                   dropout: Optional[Dropout]) -> tf.Tensor:
    """What a fine-tuned head computes: float [batch, num_labels]."""
    x = encoded.pooled_output
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        if config.ln_type == "preln":
            x = modeling.layer_norm(x, "loss/LayerNorm")
        if dropout is not None:
            x = dropout(x, CLASSIFIER_DROPOUT, "classifier")
        return _class_logits(config, x, num_labels)


def _class_logits(config: AlbertConfig, pooled: tf.Tensor, num_labels: int) -> tf.Tensor:
    weights = modeling.random_variable("output_weights", [num_labels, config.hidden_size],
                                       config.initializer_range)
    bias = tf.get_variable("output_bias", [num_labels], initializer=tf.zeros_initializer())
    return tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias)


def _classified(logits: tf.Tensor, labels: Optional[tf.Tensor], weights: Optional[tf.Tensor]) -> Classified:
    loss = losses = None
    if labels is not None:
        losses = _cross_entropy(tf.reshape(labels, [-1]), logits)
        loss = weighted_mean(losses, weights)
    return Classified(loss, losses, _most_likely(logits), tf.nn.softmax(logits), logits)


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=tf.cast(logits, tf.float32))


def _most_likely(logits: tf.Tensor) -> tf.Tensor:
    return tf.argmax(logits, axis=-1, output_type=tf.int32)
