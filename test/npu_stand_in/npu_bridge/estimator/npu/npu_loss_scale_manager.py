"""How the factor on the loss goes."""
import tensorflow.compat.v1 as tf

from npu_bridge import stand_in


class FixedLossScaleManager:
    checks_overflow = True

    def __init__(self, loss_scale):
        if loss_scale < 1:
            raise ValueError("loss scale must be at least 1, got %s" % loss_scale)
        self._loss_scale = tf.constant(float(loss_scale))
        stand_in.record("fixed_loss_scale", loss_scale)

    def get_loss_scale(self):
        return self._loss_scale

    def update_loss_scale(self, finite_grads):
        return tf.no_op()


if stand_in.generation() == "M":
    class FixedLossScaleManager(FixedLossScaleManager):        # noqa: F811
        def __init__(self, loss_scale, enable_overflow_check=True):
            super().__init__(loss_scale)
            self.checks_overflow = enable_overflow_check


class ExponentialUpdateLossScaleManager:
    """Keeps the factor and its counts in variables, which checkpoints hold."""
    checks_overflow = True

    def __init__(self, init_loss_scale, incr_every_n_steps, decr_every_n_nan_or_inf=2, incr_ratio=2,
                 decr_ratio=0.8):
        self._incr_every, self._decr_every = incr_every_n_steps, decr_every_n_nan_or_inf
        self._incr_ratio, self._decr_ratio = incr_ratio, decr_ratio
        self._scale = _variable("loss_scale", float(init_loss_scale))
        self._good, self._bad = _variable("good_steps", 0), _variable("bad_steps", 0)
        stand_in.record("dynamic_loss_scale", [init_loss_scale, incr_every_n_steps, decr_ratio])

    def get_loss_scale(self):
        return self._scale.read_value()

    def update_loss_scale(self, finite_grads):
        def grow():
            is_due = self._good + 1 >= self._incr_every
            return [tf.where(is_due, self._scale * self._incr_ratio, self._scale),
                    tf.where(is_due, 0, self._good + 1), 0]

        def shrink():
            is_due = self._bad + 1 >= self._decr_every
            return [tf.where(is_due, tf.maximum(1.0, self._scale * self._decr_ratio), self._scale), 0,
                    tf.where(is_due, 0, self._bad + 1)]
        values = tf.cond(finite_grads, grow, shrink)
        return tf.group(*[variable.assign(value)
                          for variable, value in zip((self._scale, self._good, self._bad), values)])


def _variable(name, value):
    with tf.variable_scope("", reuse=False):
        return tf.get_variable(name, initializer=value, trainable=False, use_resource=True)
