"""The learning rate as a function of the step and of the batch size."""
import math
from typing import Union

import tensorflow.compat.v1 as tf

from estimator.optimization.names import LINEAR_AFTER_WARMUP, LR_SCHEDULES, REFERENCE


def learning_rate(step: Union[int, tf.Tensor], init_lr: float, num_train_steps: int, num_warmup_steps: int,
                  power: float = 1.0, schedule: str = LINEAR_AFTER_WARMUP) -> tf.Tensor:
    """Rises linearly from 0 to `init_lr`, then falls to 0 at `num_train_steps`.

    With w and n for the two numbers of steps, and step < w:
      init_lr · step / w
    from step w on, "linear_after_warmup":
      init_lr · (1 − (step − w) / (n − w)) ^ power
    from step w on, "reference" (BERT's and ALBERT's published code):
      init_lr · (1 − step / n) ^ power

    "reference" decays from step 0 and so drops when the warm-up ends; it reproduces published runs.

    Args:
      step: updates so far, an integer scalar.
      init_lr: the highest rate.
      num_train_steps: at least 1.
      num_warmup_steps: from 0 to num_train_steps.
      power: of the polynomial decay; 1 is linear.
      schedule: one of LR_SCHEDULES.

    Returns:
      float32 scalar.
    """
    if num_train_steps < 1:
        raise ValueError("num_train_steps must be at least 1, got %d" % num_train_steps)
    if not 0 <= num_warmup_steps <= num_train_steps:
        raise ValueError("num_warmup_steps must be from 0 to num_train_steps, which is %d, got %d"
                         % (num_train_steps, num_warmup_steps))
    if schedule not in LR_SCHEDULES:
        raise ValueError("schedule must be one of %s, got %s" % (", ".join(LR_SCHEDULES), schedule))
    decay_start = 0 if schedule == REFERENCE else num_warmup_steps
    step = tf.cast(step, tf.float32)
    done = (step - decay_start) / max(num_train_steps - decay_start, 1)
    decayed = init_lr * tf.pow(1.0 - tf.clip_by_value(done, 0.0, 1.0), power)
    warming_up = init_lr * step / max(num_warmup_steps, 1)
    return tf.where(step < num_warmup_steps, warming_up, decayed)


def scaled_learning_rate(init_lr: float, batch_size: int, base_batch_size: int) -> float:
    """`init_lr`, tuned for `base_batch_size`, scaled by the square root of the batch (arXiv 1404.5997,
    section 5)."""
    if batch_size < 1 or base_batch_size < 1:
        raise ValueError("batch sizes must be at least 1, got %d and %d" % (batch_size, base_batch_size))
    return init_lr * math.sqrt(batch_size / base_batch_size)
