"""What an Estimator runs: encoder, heads, loss, then TRAIN / EVAL / PREDICT."""
from dataclasses import dataclass
from typing import Callable, Dict, Mapping, Optional, Sequence

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator import checkpoints, heads, metrics, modeling, optimizers, schedules
from estimator.progress import ProgressHook

ModelFn = Callable[..., tf.estimator.EstimatorSpec]


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
      optimizer: a name in optimizers.OPTIMIZERS.
      learning_rate: the highest one.
      num_train_steps, num_warmup_steps: of the whole run.
      random_seed: of dropout.
      poly_power: of the learning rate's decay.
      init_checkpoint: prefix of the checkpoint to start from; None for random values.
      log_steps: steps between lines of progress.
      iterations_per_loop: steps behind each call of the host.
    """
    optimizer: str
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    random_seed: int
    poly_power: float = 1.0
    init_checkpoint: Optional[str] = None
    log_steps: int = 100
    iterations_per_loop: int = 1


def pretraining_model_fn(config: AlbertConfig, training: TrainingConfig, has_sentence_order: bool = True) -> ModelFn:
    """Masked LM and sentence order over the batches of `input_fn`; without the latter its head is not built.

    The function takes features of static shape and a mode, TRAIN or EVAL.
    """
    def model_fn(features: Mapping[str, tf.Tensor], mode: str) -> tf.estimator.EstimatorSpec:
        is_real = features.get("is_real_example")
        order_labels = features["next_sentence_labels"][:, 0]
        ids, weights = features["masked_lm_ids"], features["masked_lm_weights"]

        encoded = _encode(config, features, _dropout(training, mode))
        masked_lm = heads.masked_lm(config, encoded, features["masked_lm_positions"], ids, weights)
        losses = {"masked_lm_loss": masked_lm.loss}
        if has_sentence_order:
            order = heads.sentence_order(config, encoded, order_labels)
            losses["sentence_order_loss"] = heads.weighted_mean(order.per_example_loss, is_real)
        loss = tf.add_n(list(losses.values()))

        if mode == tf.estimator.ModeKeys.TRAIN:
            return _train_spec(config, training, features, loss, losses)
        numbers = dict(metrics.masked_lm_metrics(masked_lm, ids, weights), num_examples=metrics.count(is_real))
        if has_sentence_order:
            numbers.update(metrics.sentence_order_metrics(order, order_labels, is_real))
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=numbers)
    return model_fn


def classifier_model_fn(config: AlbertConfig, training: TrainingConfig, num_labels: int) -> ModelFn:
    """One of `num_labels` classes over the batches of `input_fn`.

    The function takes features of static shape and a mode; PREDICT gives probabilities, float [batch, num_labels], and
    is_real_example, int32 [batch].
    """
    def model_fn(features: Mapping[str, tf.Tensor], mode: str) -> tf.estimator.EstimatorSpec:
        is_real = features.get("is_real_example")
        labels, dropout = features["label_ids"], _dropout(training, mode)

        encoded = _encode(config, features, dropout)
        classified = heads.classifier(config, encoded, num_labels, labels, is_real, dropout)

        if mode == tf.estimator.ModeKeys.TRAIN:
            return _train_spec(config, training, features, classified.loss, {}, heads.CLASSIFIER_PREFIXES)
        if mode == tf.estimator.ModeKeys.EVAL:
            numbers = dict(metrics.classifier_metrics(classified, labels, is_real), num_examples=metrics.count(is_real))
            return tf.estimator.EstimatorSpec(mode, loss=classified.loss, eval_metric_ops=numbers)
        return tf.estimator.EstimatorSpec(mode, predictions={"probabilities": classified.probabilities,
                                                             "is_real_example": is_real})
    return model_fn


def check_init_checkpoint(checkpoint: str, config: AlbertConfig, num_labels: Optional[int] = None,
                          has_sentence_order: bool = True) -> str:
    """Says what a training that starts from `checkpoint` will load, or raises UserError when it does not fit.

    Args:
      checkpoint: prefix.
      config: the model's.
      num_labels: of the classifier to be trained; None for pretraining.
      has_sentence_order: as in `pretraining_model_fn`.
    """
    with tf.Graph().as_default():
        anything = tf.zeros([1, 1], tf.int32)
        encoded = modeling.encode(config, anything)
        if num_labels is not None:
            heads.classifier(config, encoded, num_labels)
        else:
            heads.masked_lm_logits(config, encoded, anything)
            if has_sentence_order:
                heads.sentence_order(config, encoded)
        plan = checkpoints.make_plan(checkpoint, config,
                                     new_prefixes=() if num_labels is None else heads.CLASSIFIER_PREFIXES)
        checkpoints.check_data(checkpoint, plan.assignment_map)
        return plan.summary()


def _encode(config: AlbertConfig, features: Mapping[str, tf.Tensor], dropout: Optional[modeling.Dropout]
            ) -> modeling.Encoded:
    return modeling.encode(config, features["input_ids"], features["input_mask"], features["segment_ids"],
                           dropout=dropout)


def _dropout(training: TrainingConfig, mode: str) -> Optional[modeling.Dropout]:
    if mode != tf.estimator.ModeKeys.TRAIN:
        return None
    return modeling.stateless_dropout(training.random_seed, optimizers.forward_step())


def _train_spec(config: AlbertConfig, training: TrainingConfig, features: Mapping[str, tf.Tensor], loss: tf.Tensor,
                losses: Dict[str, tf.Tensor], new_prefixes: Sequence[str] = ()) -> tf.estimator.EstimatorSpec:
    """Initial values, the update, what goes into the event files and onto the console.

    Args:
      config, training, features: as in the functions above.
      loss: scalar, to be minimized.
      losses: the parts of `loss` by name, to be shown beside it.
      new_prefixes: as in `checkpoints.make_plan`.
    """
    if training.init_checkpoint:
        checkpoints.load(checkpoints.make_plan(training.init_checkpoint, config, new_prefixes=new_prefixes))
    step = tf.train.get_or_create_global_step()
    learning_rate = schedules.learning_rate(step, training.learning_rate, training.num_train_steps,
                                            training.num_warmup_steps, training.poly_power)
    optimizer = optimizers.make_optimizer(training.optimizer, config, learning_rate)
    update = optimizers.build_train_op(loss, optimizer)
    for name, value in dict(losses, learning_rate=learning_rate, gradient_norm=update.gradient_norm).items():
        tf.summary.scalar(name, value)
    batch_size, seq_length = features["input_ids"].shape.as_list()
    progress = ProgressHook({"loss": loss, **losses, "learning_rate": learning_rate}, training.num_train_steps,
                            training.log_steps, batch_size, batch_size * seq_length, training.iterations_per_loop)
    return tf.estimator.EstimatorSpec(tf.estimator.ModeKeys.TRAIN, loss=loss, train_op=update.train_op,
                                      training_hooks=[progress])
