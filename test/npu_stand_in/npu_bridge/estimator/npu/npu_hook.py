"""Hooks that the Estimator adds of its own."""
import tensorflow.compat.v1 as tf

from npu_bridge import stand_in
from npu_bridge.hccl import hccl_ops


class NPUBroadcastGlobalVariablesHook(tf.train.SessionRunHook):
    """Gives all ranks the root's values."""

    def __init__(self, root_rank=0, index=0):
        self._root_rank = root_rank

    def begin(self):
        self._variables = tf.global_variables()
        self._values = [tf.placeholder(variable.dtype.base_dtype, variable.shape)
                        for variable in self._variables]
        self._assign = tf.group(*[tf.assign(variable, value)
                                  for variable, value in zip(self._variables, self._values)])

    def after_create_session(self, session, coord):
        values = hccl_ops.broadcast_values(session.run(self._variables), self._root_rank)
        session.run(self._assign, dict(zip(self._values, values)))


class NPUCheckpointSaverHook(tf.train.CheckpointSaverHook):
    pass


class SetIterationsVarHook(tf.train.SessionRunHook):
    """Makes each call of the session run the training op so many times; what is fetched is of the
    last time."""

    def __init__(self, iterations_per_loop, train_op, loss):
        self._more, self._train_op, self._loss = iterations_per_loop - 1, train_op, loss

    def before_run(self, run_context):
        for _ in range(self._more):
            stand_in.record("loss", float(run_context.session.run([self._train_op, self._loss])[1]))
        return tf.train.SessionRunArgs(self._loss)

    def after_run(self, run_context, run_values):
        stand_in.record("loss", float(run_values.results))
        stand_in.record("call", self._more + 1)
        stand_in.count_call()


class SessionRecordHook(tf.train.SessionRunHook):
    """Notes the session's rewrites; two optimizers come of a config that served two Estimators."""

    def __init__(self, mode):
        self._mode = mode

    def after_create_session(self, session, coord):
        rewrites = session._config.graph_options.rewrite_options
        ours = [found for found in rewrites.custom_optimizers if found.name == "NpuOptimizer"]
        stand_in.record("session", {
            "mode": self._mode, "optimizers": len(ours), "remapping": rewrites.remapping,
            "memory_optimization": rewrites.memory_optimization,
            "use_off_line": ours[0].parameter_map["use_off_line"].b,
            "precision_mode": (ours[0].parameter_map["precision_mode"].s
                               or ours[0].parameter_map["precision_mode_v2"].s).decode()})
        if len(ours) != 1:
            raise RuntimeError("the session has %d NpuOptimizer entries" % len(ours))


class NPUOutputTensorHook(tf.train.LoggingTensorHook):
    pass
