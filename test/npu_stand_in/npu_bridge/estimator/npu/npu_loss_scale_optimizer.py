"""Scales the loss, and skips an update that overflowed."""
import os

import tensorflow.compat.v1 as tf

from npu_bridge import stand_in
from npu_bridge.hccl import hccl_ops


class NPULossScaleOptimizer(tf.train.Optimizer):
    def __init__(self, opt, loss_scale_manager, is_distributed=False):
        super().__init__(False, "NPULossScaleOptimizer")
        self._opt, self._manager, self._is_distributed = opt, loss_scale_manager, is_distributed
        stand_in.record("loss_scale_optimizer", [type(opt).__name__, is_distributed])

    def compute_gradients(self, loss, var_list=None, **kwargs):
        scale = self._manager.get_loss_scale()
        # Where some are to overflow, in checkpoints: so they are counted through a whole training, in
        # whatever parts it goes.
        keys = tf.GraphKeys.GLOBAL_VARIABLES if stand_in.overflows() else tf.GraphKeys.LOCAL_VARIABLES
        self._updates = tf.get_variable("npu_stand_in_updates", [], tf.int32, tf.zeros_initializer(),
                                        trainable=False, use_resource=True, collections=[keys])
        pairs = self._opt.compute_gradients(loss * scale, var_list=var_list, **kwargs)
        return [(grad if grad is None else grad / scale, variable) for grad, variable in pairs]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        grads = [grad for grad, _ in grads_and_vars if grad is not None]
        with tf.control_dependencies(grads):
            update = self._updates.assign_add(1, read_value=True)
        is_injected = tf.reduce_any(
            tf.equal(update, tf.constant(stand_in.overflows(), tf.int32, [len(stand_in.overflows())])))
        is_finite = tf.reduce_all([tf.reduce_all(tf.is_finite(grad)) for grad in grads])
        status = tf.cast(tf.logical_or(is_injected, tf.logical_not(is_finite)), tf.float32)
        if self._is_distributed and stand_in.rank_size() > 1:
            status, = hccl_ops.allreduce([status], "sum", fusion=0)
        is_good = tf.equal(status, 0.0) if self._manager.checks_overflow else tf.constant(True)
        if os.environ.get("NPU_STAND_IN_INF_NAN"):     # the real package passes the name in its place
            global_step = None
        update = tf.cond(is_good, lambda: self._opt.apply_gradients(grads_and_vars, global_step, name),
                         tf.no_op)
        return tf.group(update, self._manager.update_loss_scale(is_good))
