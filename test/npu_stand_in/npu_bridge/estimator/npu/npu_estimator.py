"""The Estimator: loops on the device, its own hooks, its entry in the session's rewrites."""
import os

import tensorflow.compat.v1 as tf
from tensorflow.python.util import function_utils

from npu_bridge import stand_in
from npu_bridge.estimator.npu import npu_hook, session_entry
from npu_bridge.estimator.npu.npu_config import NPURunConfig


class NPUEstimatorSpec(tf.estimator.EstimatorSpec):
    def __new__(cls, *args, host_call=None, **kwargs):
        if host_call is not None and not (callable(host_call[0])
                                          and isinstance(host_call[1], (list, tuple, dict))):
            raise ValueError("host_call must be a function and its tensors")
        spec = super().__new__(cls, *args, **kwargs)
        spec._host_call = host_call
        return spec


class NPUEstimator(tf.estimator.Estimator):
    def __init__(self, model_fn=None, model_dir=None, config=None, params=None, job_start_file="",
                 warm_start_from=None):
        if not isinstance(config, NPURunConfig):
            raise ValueError("`config` must be provided with type `NPUConfigs`")
        if model_dir and config.model_dir and model_dir != config.model_dir:
            raise ValueError("model_dir differs between the Estimator and its config")
        stand_in.require_environment()
        if config.session_config is None:
            config = config.replace(session_config=tf.ConfigProto())
        ours = config.session_config.graph_options.rewrite_options.custom_optimizers.add()
        ours.name = "NpuOptimizer"
        ours.parameter_map["use_off_line"].b = True
        session_entry.fill(ours, config.arguments)
        super().__init__(model_fn=_augmented(model_fn, model_dir or config.model_dir, config),
                         model_dir=model_dir,
                         config=config, params=params or {},
                         warm_start_from=warm_start_from or os.environ.get("LOCAL_CHECKPOINT_DIR")
                         or os.environ.get("RESTORE_FROM"))


def _augmented(model_fn, model_dir, config):
    def augmented(features, labels, mode, params):
        offered = {"labels": labels, "mode": mode, "params": params, "config": config}
        wanted = function_utils.fn_args(model_fn)
        spec = model_fn(features=features,
                        **{name: value for name, value in offered.items() if name in wanted})
        if not isinstance(spec, tf.estimator.EstimatorSpec):
            raise RuntimeError("estimator_spec must have type EstimatorSpec, got %s" % type(spec))
        hooks = [npu_hook.SessionRecordHook(mode)]
        if mode == tf.estimator.ModeKeys.TRAIN:
            return _train_spec(spec, hooks, model_dir, config)
        name = "evaluation_hooks" if mode == tf.estimator.ModeKeys.EVAL else "prediction_hooks"
        return spec._replace(**{name: tuple(hooks + list(getattr(spec, name) or []))})
    return augmented


def _train_spec(spec, hooks, model_dir, config):
    loop = config.iterations_per_loop
    if loop != 1 and any(op.type == "OneShotIterator" for op in tf.get_default_graph().get_operations()):
        raise SystemError("the native side would abort: a one-shot iterator, and iterations_per_loop is %d"
                          % loop)
    if stand_in.rank_size() > 1:
        hooks.append(npu_hook.NPUBroadcastGlobalVariablesHook(0, stand_in.rank_id()))
    if config.save_checkpoints_steps or config.save_checkpoints_secs:
        hooks.append(npu_hook.NPUCheckpointSaverHook(model_dir, save_secs=config.save_checkpoints_secs,
                                                     save_steps=config.save_checkpoints_steps,
                                                     saver=tf.train.Saver(max_to_keep=5)))
    if loop > 1:
        spec = spec._replace(train_op=tf.group(spec.train_op, name="IterationOp"))
    hooks.append(npu_hook.SetIterationsVarHook(loop, spec.train_op, spec.loss))
    return spec._replace(training_hooks=tuple(hooks + list(spec.training_hooks or [])))
