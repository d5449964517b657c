"""The Estimator's model_fn: encoder, heads, loss, then TRAIN / EVAL / PREDICT."""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model import flops, heads, host_kernels, modeling
from estimator.model.kernels import STOCK, Dropout, Kernels, dimensions, stateless_dropout
from estimator.model.kinds import CLASSES
from estimator.npu import devices
from estimator.optimization import optimizers, schedules
from estimator.optimization.names import LINEAR_AFTER_WARMUP
from estimator.training import failures, streaming_metrics
from estimator.training.step_log import Pace, ProgressHook, host_measures
from estimator.weights import checkpoint_files
from etl.records.examples import CUT_INSIDE_SENTENCE

ModelFn = Callable[..., tf.estimator.EstimatorSpec]

RANK_SEED = 1000003                            # between the dropout seeds of two ranks


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
      optimizer: a name in names.OPTIMIZERS.
      learning_rate: the highest one.
      num_train_steps, num_warmup_steps: updates, of the whole run.
      random_seed: of dropout.
      poly_power: of the learning rate's decay.
      lr_schedule: a name in names.LR_SCHEDULES.
      layer_decay: see optimizers.layer_wise_scale.
      accumulation_steps: batches per update.
      init_checkpoint: prefix of the checkpoint to start from; None for random values.
      log_steps: steps between progress lines.
      start_step: the step at which the command begins.
      iterations_per_loop: batches per call from the host.
      keep_checkpoint_max: number of newest checkpoints to keep.
      device: where it runs.
      peak_flops: peak operations per second of a device; None: the utilization is not shown.
    """
    optimizer: str
    learning_rate: float
    num_train_steps: int
    num_warmup_steps: int
    random_seed: int
    poly_power: float = 1.0
    lr_schedule: str = LINEAR_AFTER_WARMUP
    layer_decay: float = 1.0
    accumulation_steps: int = 1
    init_checkpoint: Optional[str] = None
    log_steps: int = 100
    start_step: int = 0
    iterations_per_loop: int = 1
    keep_checkpoint_max: int = 5
    device: devices.Device = devices.Device()
    peak_flops: Optional[float] = None


def pretraining_model_fn(model: AlbertConfig, training: TrainingConfig,
                         has_sentence_order: bool = True, new_heads: bool = False) -> ModelFn:
    """Masked LM and, if wanted, sentence order over the batches of `input_fn`. With `new_heads` the initial
    checkpoint may lack heads.

    The function takes features of static shape, a mode, TRAIN or EVAL, and the Estimator's config, which has
    the folder of event files.
    """
    def model_fn(features: Mapping[str, tf.Tensor], mode: str, config: Any = None
                 ) -> tf.estimator.EstimatorSpec:
        is_real = features.get("is_real_example")
        order_labels = features["next_sentence_labels"][:, 0]
        batch = _trimmed(features) if training.device.on_host else features  # a device needs static shapes
        ids, weights = batch["masked_lm_ids"], batch["masked_lm_weights"]

        kernels, dropout = _kernels(training, mode)
        encoded = modeling.build_encoder(
            model, batch["input_ids"], batch["input_mask"], batch["segment_ids"], dropout=dropout,
            kernels=kernels, skip_padding=training.device.on_host,
            output_positions=heads.read_positions(batch["masked_lm_positions"]))
        masked_lm = heads.masked_lm(model, encoded, None, ids, weights, kernels)
        losses = {"masked_lm_loss": masked_lm.loss}
        if has_sentence_order:
            order = heads.sentence_order(model, encoded, order_labels)
            losses["sentence_order_loss"] = heads.weighted_mean(order.per_example_loss, is_real)
        loss = tf.add_n(list(losses.values()))

        if mode == tf.estimator.ModeKeys.TRAIN:
            right = tf.cast(tf.equal(masked_lm.predictions, ids), tf.float32)
            shown = {"masked_lm_accuracy": heads.weighted_mean(right, weights)}
            if has_sentence_order:
                right = tf.equal(order.predictions, order_labels)
                shown["sentence_order_accuracy"] = heads.weighted_mean(tf.cast(right, tf.float32), is_real)
            return _train_spec(model, training, features, loss, losses, shown, config,
                               heads.PRETRAINING_PARTS if new_heads else (), with_slots=True)
        numbers = dict(streaming_metrics.masked_lm_metrics(masked_lm, ids, weights),
                       num_examples=streaming_metrics.count(is_real))
        if has_sentence_order:
            numbers.update(streaming_metrics.sentence_order_metrics(
                order, order_labels, is_real, features.get(CUT_INSIDE_SENTENCE.name)))
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=numbers)
    return model_fn


class Found(NamedTuple):
    """What a fine-tuned head makes of a batch.

    Attributes:
      loss: scalar.
      shown: scalars for the curves of a training.
      outputs: by name, [batch, …] each: what a prediction gives.
    """
    loss: tf.Tensor
    shown: Dict[str, tf.Tensor]
    outputs: Dict[str, tf.Tensor]


# (config, encoder's output, features, dropout) → what the head finds
HeadFn = Callable[[AlbertConfig, modeling.EncoderOutput, Mapping[str, tf.Tensor], Optional[Dropout]], Found]


def finetuning_model_fn(model: AlbertConfig, training: TrainingConfig, head: HeadFn,
                        reads_all: bool = False) -> ModelFn:
    """A head above the encoder, over the batches of `input_fn`.

    The function takes features, whose batch is of static size, and a mode, TRAIN or PREDICT, which gives the
    head's outputs and is_real_example, int32 [batch].

    Args:
      model, training: as above.
      head: the kind's. Where rows stand together, the encoder's output is that of all rows of the batch, one
        behind the other.
      reads_all: whether it reads every position; else it reads the first of each row alone.
    """
    def model_fn(features: Mapping[str, tf.Tensor], mode: str, config: Any = None
                 ) -> tf.estimator.EstimatorSpec:
        kernels, dropout = _kernels(training, mode)
        length = dimensions(features["input_ids"])[-1]
        ids, mask, segments = (tf.reshape(features[name], [-1, length])
                               for name in ("input_ids", "input_mask", "segment_ids"))
        encoded = modeling.build_encoder(
            model, ids, mask, segments, dropout=dropout, kernels=kernels,
            skip_padding=not isinstance(length, int),                  # else all shapes are to be static
            output_positions=None if reads_all else tf.zeros_like(ids[:, :1]))
        found = head(model, encoded, features, dropout)
        if mode == tf.estimator.ModeKeys.TRAIN:
            return _train_spec(model, training, features, found.loss, {}, found.shown, config,
                               heads.NEW_IN_FINETUNING)
        return tf.estimator.EstimatorSpec(mode, predictions=dict(
            found.outputs, is_real_example=features["is_real_example"]))
    return model_fn


def classifier_model_fn(model: AlbertConfig, training: TrainingConfig, num_labels: int,
                        class_weights: Sequence[float] = ()) -> ModelFn:
    """One of `num_labels` classes, or with 0 a number: `outputs` are probabilities, float [batch,
    num_labels], in a regression the number, [batch, 1].

    Args:
      model, training: as above.
      num_labels: 0, or at least 2.
      class_weights: weight of each class in training; (): all equal.
    """
    def head(config: AlbertConfig, encoded: modeling.EncoderOutput, features: Mapping[str, tf.Tensor],
             dropout: Optional[Dropout]) -> Found:
        labels = features["label_ids"]
        weights = tf.gather(tf.constant(class_weights, tf.float32), labels) if class_weights else None
        found = _classifier(config, encoded, num_labels, labels, weights, dropout)
        if isinstance(found, heads.Regressed):
            return Found(found.loss, {}, {"outputs": found.predictions[:, tf.newaxis]})
        right = tf.cast(tf.equal(found.predictions, labels), tf.float32)
        return Found(found.loss, {"eval_accuracy": tf.reduce_mean(right)}, {"outputs": found.probabilities})
    return finetuning_model_fn(model, training, head)


def check_init_checkpoint(checkpoint: str, model: AlbertConfig, num_labels: Optional[int] = None,
                          has_sentence_order: bool = True, optimizer: Optional[str] = None,
                          new_heads: bool = False, kind: str = CLASSES, crf: bool = False) -> str:
    """Reports what a training run that starts from `checkpoint` will load, or raises UserError if it does not
    fit.

    Args:
      checkpoint: prefix.
      model: the model's config.
      num_labels: of the classifier to train, 0 for a regression; None for pretraining.
      has_sentence_order, new_heads: as in `pretraining_model_fn`.
      optimizer: the one whose moments are loaded if the file has them; None: none are.
      kind, crf: of the fine-tuning, where there is a number of labels.
    """
    with tf.Graph().as_default():
        heads.declare_variables(model, num_labels, has_sentence_order, kind, crf)
        if optimizer:
            optimizers.make_optimizer(optimizer, model,
                                      learning_rate=0.0).make_slots(tf.trainable_variables())
        prefixes = (heads.NEW_IN_FINETUNING if num_labels is not None
                    else heads.PRETRAINING_PARTS if new_heads else ())
        plan = checkpoint_files.plan_loading(checkpoint, model, new_prefixes=prefixes,
                                             with_slots=bool(optimizer))
        checkpoint_files.check_data(checkpoint, plan.assignment_map)
        return plan.summary()


def _trimmed(features: Mapping[str, tf.Tensor]) -> Dict[str, tf.Tensor]:
    """A batch of records without the columns that are padding in all of them: [batch, longest], or a few
    columns more if attention is faster with that length."""
    def columns(counted: tf.Tensor) -> tf.Tensor:
        return tf.maximum(tf.reduce_max(tf.cast(tf.where(counted > 0)[:, 1], tf.int32)) + 1, 1)
    length, predictions = columns(features["input_mask"]), columns(features["masked_lm_weights"])
    length += -length % host_kernels.BLOCKS    # beyond the last column, a slice ends there
    ends = dict.fromkeys(("input_ids", "input_mask", "segment_ids"), length)
    ends.update(dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), predictions))
    return {name: features[name][:, :end] for name, end in ends.items()}


def _classifier(model: AlbertConfig, encoded: modeling.EncoderOutput, num_labels: int,
                labels: Optional[tf.Tensor] = None, weights: Optional[tf.Tensor] = None,
                dropout: Optional[Dropout] = None) -> Union[heads.Classified, heads.Regressed]:
    """The head of a fine-tuned model; num_labels 0 means a regression."""
    if num_labels:
        return heads.classifier(model, encoded, num_labels, labels, weights, dropout)
    return heads.regressor(model, encoded, labels, weights, dropout)


def _kernels(training: TrainingConfig, mode: str) -> Tuple[Kernels, Optional[Dropout]]:
    """(kernels, dropout): the backend's own only in training graphs, so that every other graph is stock
    TensorFlow."""
    if mode != tf.estimator.ModeKeys.TRAIN:
        return STOCK, None
    own = training.device.training_kernels(training.random_seed)
    if own is not None:
        gelu, dropout = own
        return STOCK._replace(gelu=gelu), dropout
    # ranks must not drop the same places
    seed = training.random_seed + RANK_SEED * training.device.world.rank
    dropout = stateless_dropout(seed, optimizers.batches_taken())
    return host_kernels.TRAINING if training.device.on_host else STOCK, dropout


def _train_spec(model: AlbertConfig, training: TrainingConfig, features: Mapping[str, tf.Tensor],
                loss: tf.Tensor, losses: Dict[str, tf.Tensor], shown: Dict[str, tf.Tensor],
                config: Any, new_prefixes: Sequence[str],
                with_slots: bool = False) -> tf.estimator.EstimatorSpec:
    """Initial values, the update, and the output to event files and console.

    Args:
      model, training, features: as in the functions above.
      loss: scalar, to be minimized.
      losses: the components of `loss` by name, to be shown with it as means.
      shown: further scalars for the curves, read every `log_steps`.
      config: the Estimator's; None: neither event file nor checkpoint.
      new_prefixes, with_slots: as in `checkpoint_files.plan_loading`.
    """
    step = tf.train.get_or_create_global_step()
    learning_rate = schedules.learning_rate(step, training.learning_rate, training.num_train_steps,
                                            training.num_warmup_steps, training.poly_power,
                                            training.lr_schedule)
    losses, device = dict(losses, loss=loss), training.device
    optimizer = optimizers.make_optimizer(training.optimizer, model, learning_rate,
                                          layer_decay=training.layer_decay, fused=device.on_host)
    loss_scale = device.loss_scale_manager()

    def check(norm: tf.Tensor) -> tf.Operation:
        return failures.require_finite(step, dict(losses, gradient_norm=norm, learning_rate=learning_rate))
    update = optimizers.build_train_op(loss, optimizer, accumulation_steps=training.accumulation_steps,
                                       check=check if device.on_host else None,
                                       wrap=lambda rule: device.wrap(rule, loss_scale))
    if training.init_checkpoint:
        checkpoint_files.load(checkpoint_files.plan_loading(
            training.init_checkpoint, model, new_prefixes=new_prefixes, with_slots=with_slots))
    shown = dict(shown, learning_rate=learning_rate, gradient_norm=update.gradient_norm)
    if loss_scale is not None:
        shown["loss_scale"] = loss_scale.get_loss_scale()
    else:                                      # a loss scale's wrapper skips some updates, invisibly
        shown.update({"trust_ratio/" + name: ratio for name, ratio in update.trust_ratios.items()})
    writes = config is not None and device.world.is_first
    progress = ProgressHook(losses, shown, _pace(model, training, features), host_measures(features)
                            if device.on_host else {}, config.model_dir if writes else None)
    tidy = [checkpoint_files.TidyHook(config.model_dir, training.keep_checkpoint_max)] if writes else []
    save = [checkpoint_files.SaveHook(config.model_dir, config.save_checkpoints_steps,
                                      config.keep_checkpoint_max)] if writes and device.on_host else []
    return tf.estimator.EstimatorSpec(tf.estimator.ModeKeys.TRAIN, loss=loss, train_op=update.train_op,
                                      training_chief_hooks=save, training_hooks=[progress] + tidy)


def _pace(model: AlbertConfig, training: TrainingConfig, features: Mapping[str, tf.Tensor]) -> Pace:
    """Sizes of a step on all devices, with as many predictions per token as in a full record."""
    world, (batch_size, *sizes) = training.device.world, features["input_ids"].shape.as_list()
    length = 0 if None in sizes else int(np.prod(sizes))       # where rows stand together, of all of them
    slots = features["masked_lm_ids"].shape[1].value / length if "masked_lm_ids" in features else 0.0

    def flops_of(tokens: float) -> float:
        return flops.training_flops(model, batch_size * world.size, tokens, slots * tokens)
    return Pace(training.num_train_steps, training.log_steps, batch_size * world.size,
                batch_size * world.size * length, training.accumulation_steps,
                training.iterations_per_loop,
                training.start_step, flops_of, training.peak_flops and training.peak_flops * world.size)
