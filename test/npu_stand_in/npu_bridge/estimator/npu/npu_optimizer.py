"""Sums gradients over the ranks."""
import tensorflow.compat.v1 as tf

from npu_bridge import stand_in
from npu_bridge.estimator.npu import npu_loss_scale_optimizer
from npu_bridge.hccl import hccl_ops


class NPUDistributedOptimizer(tf.train.Optimizer):
    """Hooks compute_gradients only, as the real one does: what comes from tf.gradients is not summed."""

    def __init__(self, optimizer, is_weight_update_sharding=False, name=None):
        super().__init__(False, name or "Distributed")
        self._optimizer = optimizer
        stand_in.record("distributed_optimizer", type(optimizer).__name__)

    def compute_gradients(self, *args, **kwargs):
        pairs = self._optimizer.compute_gradients(*args, **kwargs)
        size = stand_in.rank_size()
        if size == 1:
            return pairs
        given = [(grad, variable) for grad, variable in pairs if grad is not None]
        sums = hccl_ops.allreduce([grad for grad, _ in given], "sum")
        return [(total / size, variable) for total, (_, variable) in zip(sums, given)]

    def apply_gradients(self, *args, **kwargs):
        return self._optimizer.apply_gradients(*args, **kwargs)


class NPUOptimizer(tf.train.Optimizer):
    """Sums, and scales the loss, in one; with is_tailing_optimization it looks for overflows in
    compute_gradients, before the last sum, so that what it found is of the newest gradients alone."""

    def __init__(self, opt, loss_scale_manager=None, is_distributed=False, is_loss_scale=False,
                 is_tailing_optimization=False, name=None):
        if is_loss_scale and loss_scale_manager is None:
            raise ValueError("is_loss_scale is True, loss_scale_manager can not be None")
        super().__init__(False, name or "NPUOptimizer%s" % type(opt).__name__)
        self._inner = NPUDistributedOptimizer(opt) if is_distributed else opt
        if is_loss_scale:
            self._inner = npu_loss_scale_optimizer.NPULossScaleOptimizer(self._inner, loss_scale_manager,
                                                                         is_distributed)
        stand_in.record("npu_optimizer", [type(opt).__name__, is_distributed, is_loss_scale,
                                          is_tailing_optimization])

    def compute_gradients(self, *args, **kwargs):
        return self._inner.compute_gradients(*args, **kwargs)

    def apply_gradients(self, *args, **kwargs):
        return self._inner.apply_gradients(*args, **kwargs)


def npu_distributed_optimizer_wrapper(optimizer):
    return NPUDistributedOptimizer(optimizer)
