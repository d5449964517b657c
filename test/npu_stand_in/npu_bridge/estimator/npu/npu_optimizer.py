"""Sums gradients over the ranks."""
import tensorflow.compat.v1 as tf

from npu_bridge import stand_in
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


class NPUOptimizer(NPUDistributedOptimizer):
    """The older spelling."""


def npu_distributed_optimizer_wrapper(optimizer):
    return NPUDistributedOptimizer(optimizer)
