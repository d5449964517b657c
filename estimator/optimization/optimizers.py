"""AdamW and LAMB: each rule as a formula, and a thin `tf.train.Optimizer` that holds its slots; and the op of
one update.

Slots have the released checkpoints' names, so that pretraining can continue from them.
"""
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model import modeling
from estimator.optimization.names import ADAMW, LAMB, OPTIMIZERS

GradientsAndVariables = List[Tuple[tf.Tensor, tf.Variable]]
Check = Callable[[tf.Tensor], tf.Operation]

NO_DECAY = ("LayerNorm", "layer_norm", "bias")  # patterns of variables without weight decay
BATCHES_TAKEN = "batches_taken"                # the variable that counts them, in checkpoints, too
SLOT_SUFFIXES = ("/adam_m", "/adam_v", "/lamb_m", "/lamb_v")


class Training(NamedTuple):
    """One step of training."""
    train_op: tf.Operation
    gradient_norm: tf.Tensor  # scalar: global norm before clipping, of the mean gradient so far
    trust_ratios: Dict[str, tf.Tensor] = {}    # of the newest update, by variable; only LAMB's


def adam_update(grad: tf.Tensor, m: tf.Tensor, v: tf.Tensor, beta_1: float, beta_2: float, epsilon: float
                ) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Adam's direction (arXiv 1412.6980, algorithm 1), without bias correction of the moments, as in BERT.

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²        update = m / (√v + ε)

    Returns:
      (update, m, v).
    """
    m = beta_1 * m + (1.0 - beta_1) * grad
    v = beta_2 * v + (1.0 - beta_2) * tf.square(grad)
    return m / (tf.sqrt(v) + epsilon), m, v


def fused_adam_update(grad: tf.Tensor, m: tf.Variable, v: tf.Variable, start: tf.Tensor, beta_1: float,
                      beta_2: float, epsilon: float) -> tf.Tensor:
    """start + the update of `adam_update`; m and v are updated in place: TensorFlow's own Adam kernel, in one
    pass.

    It computes w ← w − η m / (√v + ε), and is given η = −1 and memory with `start` as w. With powers of β set
    to 0 it does no bias correction. 1 − β is in float32, with a relative error of 5e-5 for β = 0.999.
    """
    ref = tf.raw_ops.TemporaryVariable(shape=grad.shape, dtype=grad.dtype)
    name = ref.op.name                         # shared by the two ops below
    added = tf.raw_ops.ApplyAdam(var=tf.assign(ref, start), m=m._ref(), v=v._ref(), beta1_power=0.0,
                                 beta2_power=0.0, lr=-1.0,
                                 beta1=beta_1, beta2=beta_2, epsilon=epsilon, grad=grad)
    return tf.raw_ops.DestroyTemporaryVariable(ref=added, var_name=name)


def lamb_trust_ratio(param: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
    """‖w‖ / ‖update‖ for one variable, 1 if either is 0 (arXiv 1904.00962, algorithm 2, with φ(z) = z)."""
    param_norm, update_norm = (tf.sqrt(2.0 * tf.nn.l2_loss(x)) for x in (param, update))     # one pass each
    both = tf.logical_and(param_norm > 0, update_norm > 0)
    return tf.where(both, tf.math.divide_no_nan(param_norm, update_norm), tf.ones_like(param_norm))


class AdamW(tf.train.Optimizer):
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2):  w ← w − η (update + λ w)."""

    def __init__(self, learning_rate: Union[float, tf.Tensor], weight_decay: float = 0.01,
                 beta_1: float = 0.9,
                 beta_2: float = 0.999, epsilon: float = 1e-6, no_decay: Sequence[str] = NO_DECAY,
                 slot_prefix: str = "adam", scale_of: Callable[[str], float] = lambda name: 1.0,
                 fused: bool = False, name: str = "AdamW") -> None:
        """Keeps the settings; slots appear with the first `apply_gradients`.

        Args:
          learning_rate: η, a number or a scalar tensor.
          weight_decay: λ.
          beta_1, beta_2, epsilon: as in `adam_update`.
          no_decay: patterns; a variable whose name matches one of them has no weight decay.
          slot_prefix: slots are called <variable>/<slot_prefix>_m and _v.
          scale_of: a factor on the learning rate by the variable's name, such as `layer_wise_scale`.
          fused: whether TensorFlow's kernels for Adam and gradient descent do the arithmetic: fewer passes
            over memory.
          name: of the ops.
        """
        super().__init__(use_locking=False, name=name)
        self._fused = fused
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._adam = dict(beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)
        self._no_decay = tuple(no_decay)
        self._slot_prefix = slot_prefix
        self._scale_of = scale_of
        self.trust_ratios: Dict[str, tf.Tensor] = {}   # by variable, once the update is built; only LAMB's

    def compute_gradients(self, *args: Any, **kwargs: Any) -> List[Tuple[Optional[tf.Tensor], tf.Variable]]:
        """Like the base class, but dense: the norm of slices with repeated rows would be wrong."""
        return [(tf.convert_to_tensor(grad) if isinstance(grad, tf.IndexedSlices) else grad, variable)
                for grad, variable in super().compute_gradients(*args, **kwargs)]

    def apply_gradients(self, grads_and_vars: Any, global_step: Optional[tf.Variable] = None,
                        name: Optional[str] = None) -> tf.Operation:
        """As the base class does, but an update always counts in global_step, which npu_bridge's loss scale
        does not pass on where the device computes with infinities."""
        step = tf.train.get_global_step() if global_step is None else global_step
        return super().apply_gradients(grads_and_vars, step, name)

    def make_slots(self, var_list: Sequence[tf.Variable]) -> None:
        """Creates the slots that the first `apply_gradients` would create."""
        self._create_slots(var_list)

    def _create_slots(self, var_list: Sequence[tf.Variable]) -> None:
        for variable in var_list:
            for slot in ("m", "v"):
                self._zeros_slot(variable, slot, "%s_%s" % (self._slot_prefix, slot))

    def _apply_dense(self, grad: tf.Tensor, var: tf.Variable) -> tf.Operation:
        if not self._fused:
            return self._resource_apply_dense(grad, var)
        start = self._weight_decay * var if self._decays(var.op.name) else tf.zeros_like(var)
        update = fused_adam_update(grad, self.get_slot(var, "m"), self.get_slot(var, "v"), start,
                                   **self._adam)
        return tf.raw_ops.ApplyGradientDescent(var=var._ref(), alpha=self._rate(var, update), delta=update).op

    def _resource_apply_dense(self, grad: tf.Tensor, var: tf.Variable) -> tf.Operation:
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        update, next_m, next_v = adam_update(grad, m, v, **self._adam)
        if self._decays(var.op.name):
            update += self._weight_decay * var
        return tf.group(tf.assign(m, next_m), tf.assign(v, next_v),
                        tf.assign_sub(var, self._rate(var, update) * update))

    def _rate(self, var: tf.Variable, update: tf.Tensor) -> tf.Tensor:
        return self._learning_rate * self._scale_of(var.op.name) * self._trust_ratio(var, update)

    def _decays(self, name: str) -> bool:
        return not any(re.search(pattern, name) for pattern in self._no_decay)

    def _trust_ratio(self, var: tf.Variable, update: tf.Tensor) -> Union[float, tf.Tensor]:
        del var, update                        # Adam's step has one length for all variables
        return 1.0


class Lamb(AdamW):
    """LAMB (arXiv 1904.00962, algorithm 2):  w ← w − η r (update + λ w), with r the variable's
                                              trust ratio."""

    def __init__(self, learning_rate: Union[float, tf.Tensor], adapt_all: bool = True, name: str = "Lamb",
                 **settings: Any) -> None:
        """As AdamW's; with `adapt_all` false the ratio is 1 for variables that are not decayed."""
        super().__init__(learning_rate, name=name, **settings)
        self._adapt_all = adapt_all

    def _trust_ratio(self, var: tf.Variable, update: tf.Tensor) -> Union[float, tf.Tensor]:
        if not (self._adapt_all or self._decays(var.op.name)):
            return 1.0
        ratio = self.trust_ratios[var.op.name] = lamb_trust_ratio(var, update)
        return ratio


def make_optimizer(name: str, config: AlbertConfig, learning_rate: Union[float, tf.Tensor],
                   weight_decay: float = 0.01,
                   layer_decay: float = 1.0, fused: bool = False) -> tf.train.Optimizer:
    """The optimizer `name` for the model's family: with its slot names and, for LAMB, its exclusions.

    Args:
      name: one of OPTIMIZERS.
      config: the model's.
      learning_rate: a number or a scalar tensor.
      weight_decay: λ.
      layer_decay: see `layer_wise_scale`.
      fused: see `AdamW`.
    """
    settings: Dict[str, Any] = dict(weight_decay=weight_decay, fused=fused,
                                    scale_of=layer_wise_scale(config, layer_decay))
    if name == ADAMW:
        return AdamW(learning_rate, **settings)
    if name == LAMB:
        albert_zh = config.family == "albert_zh"
        return Lamb(learning_rate, adapt_all=albert_zh, slot_prefix="lamb" if albert_zh else "adam",
                    **settings)
    raise ValueError("optimizer must be one of %s, got %s" % (", ".join(OPTIMIZERS), name))


def layer_wise_scale(config: AlbertConfig, decay: float) -> Callable[[str], float]:
    """Factor on the learning rate by the variable's name: 1 for the heads, `decay` times less for each
    layer below.

    The embeddings are lowest; layers that share their weights count once (arXiv 1801.06146, section 3.1).
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError("layer_decay must be in (0, 1], got %g" % decay)
    scopes: List[str] = []
    for layer in range(config.num_hidden_layers):
        for inner in range(config.inner_group_num or 1):
            scope = "bert/encoder/%s/" % modeling.layer_scope(config, layer, inner)
            if scope not in scopes:
                scopes.append(scope)

    def scale_of(name: str) -> float:
        for above, scope in enumerate(reversed(scopes), start=1):
            if name.startswith(scope):
                return decay ** above
        below_layers = name.startswith(("bert/embeddings/", "bert/encoder/embedding_hidden_mapping_in/"))
        return decay ** (len(scopes) + 1) if below_layers else 1.0
    return scale_of


def build_train_op(
        loss: tf.Tensor, optimizer: tf.train.Optimizer, *, clip_norm: Optional[float] = 1.0,
        accumulation_steps: int = 1, check: Optional[Check] = None,
        wrap: Callable[[tf.train.Optimizer], tf.train.Optimizer] = lambda optimizer: optimizer) -> Training:
    """One step: gradients, their mean over `accumulation_steps` micro-steps, clipping, the update.

    Gradients are computed and applied by the wrapped optimizer, so that a wrapper can scale the loss or sum
    over devices. global_step counts updates; it advances after everything that reads it, and not when a
    wrapper skips an update. `batches_taken` counts calls, also those whose update is skipped.

    Args:
      loss: float32 scalar, a mean over the (micro-)batch.
      optimizer: the rule.
      clip_norm: the largest global norm of the gradient; None for no clipping.
      accumulation_steps: micro-steps per update. Equals one step on their joined batches if all micro-batches
        have the same weight in the loss.
      check: given the gradient's global norm, an op that must succeed before anything is updated.
      wrap: wraps the rule in a device's or precision's optimizer.
    """
    if accumulation_steps < 1:
        raise ValueError("accumulation_steps must be at least 1, got %d" % accumulation_steps)
    rule, optimizer = optimizer, wrap(optimizer)
    pairs = [(grad, variable) for grad, variable in optimizer.compute_gradients(loss) if grad is not None]
    if accumulation_steps > 1:
        step = _accumulate(pairs, rule, optimizer, clip_norm, accumulation_steps, check)
    else:
        norm = _checked(tf.global_norm([grad for grad, _ in pairs]), check)
        step = Training(_update(pairs, optimizer, clip_norm, norm), norm, getattr(rule, "trust_ratios", {}))
    with tf.control_dependencies([step.train_op]):
        return step._replace(train_op=_batches_taken().assign_add(1, read_value=False))


def batches_taken() -> tf.Tensor:
    """The number of batches taken before: int64 scalar.

    Unlike global_step it counts every micro-step, and the batches of updates that a loss scale's wrapper
    skipped.
    """
    return _batches_taken().read_value()


def _batches_taken() -> tf.Variable:
    with tf.variable_scope("", reuse=tf.AUTO_REUSE):
        return tf.get_variable(BATCHES_TAKEN, [], tf.int64, tf.zeros_initializer(), trainable=False,
                               use_resource=True)


def _update(pairs: GradientsAndVariables, optimizer: tf.train.Optimizer, clip_norm: Optional[float],
            norm: tf.Tensor) -> tf.Operation:
    """Clips by the global norm and applies, once the norm is known."""
    grads = [grad for grad, _ in pairs]
    if clip_norm is not None:
        grads, _ = tf.clip_by_global_norm(grads, clip_norm, use_norm=norm)
    with tf.control_dependencies([norm]):
        pairs = [(tf.identity(grad), variable) for grad, (_, variable) in zip(grads, pairs)]
    return optimizer.apply_gradients(pairs, global_step=tf.train.get_or_create_global_step())


def _accumulate(pairs: GradientsAndVariables, rule: tf.train.Optimizer, optimizer: tf.train.Optimizer,
                clip_norm: Optional[float], steps: int, check: Optional[Check]) -> Training:
    """Accumulates gradients in local variables; every `steps`-th call updates and resets them.

    Checkpoints are written when global_step has advanced, when the sums are empty: they need not be saved.
    """
    sums = [_local_variable("sum_of/" + variable.op.name, grad.shape, grad.dtype) for grad, variable in pairs]
    means = [tf.convert_to_tensor(total.assign_add(grad / steps)) for total, (grad, _) in zip(sums, pairs)]
    norm = _checked(tf.global_norm(means), check)
    with tf.control_dependencies(means + [norm]):
        position = tf.convert_to_tensor(_micro_step().assign_add(1))

    newest: Dict[str, tf.Variable] = {}  # trust ratios: tensors of a branch cannot be read from outside

    def update_and_start_anew() -> tf.Operation:
        update = _update([(mean, variable) for mean, (_, variable) in zip(means, pairs)], optimizer,
                         clip_norm, norm)
        ratios = getattr(rule, "trust_ratios", {})
        newest.update((name, _local_variable("trust_ratio/" + name, [], tf.float32)) for name in ratios)
        with tf.control_dependencies([update, norm]):
            return tf.group(*[variable.assign(tf.zeros_like(variable))
                              for variable in [_micro_step()] + sums],
                            *[newest[name].assign(ratio) for name, ratio in ratios.items()])

    train_op = tf.cond(tf.equal(position, steps), update_and_start_anew, tf.no_op).op
    with tf.control_dependencies([train_op]):
        return Training(train_op, norm, {name: variable.read_value() for name, variable in newest.items()})


def _checked(norm: tf.Tensor, check: Optional[Check]) -> tf.Tensor:
    if check is None:
        return norm
    with tf.control_dependencies([check(norm)]):
        return tf.identity(norm)


def _micro_step() -> tf.Variable:
    """Micro-steps since the last update."""
    return _local_variable("micro_step", [], tf.int64)


def _local_variable(name: str, shape: Any, dtype: tf.DType) -> tf.Variable:
    """A variable of zeros that is not in checkpoints."""
    with tf.variable_scope("gradient_accumulation", reuse=tf.AUTO_REUSE):
        return tf.get_variable(name, shape, dtype, tf.zeros_initializer(), trainable=False, use_resource=True,
                               collections=[tf.GraphKeys.LOCAL_VARIABLES])
