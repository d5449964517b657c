"""TensorFlow's own sessions and Estimators: the host's, and those of a planned device.

`devices` imports this file when an Estimator is made, since its choices and defaults need no TensorFlow.
"""
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from estimator.model import kernels
from estimator.model.kernels import Activation, Dropout

ON_THE_DEVICE, OPTIMIZER = "use_off_line", "NpuOptimizer"


def make_estimator(model_fn: Callable[..., Any], run_arguments: Mapping[str, Any],
                   session_config: Optional[tf.ConfigProto] = None) -> tf.estimator.Estimator:
    """TensorFlow's Estimator; `run_arguments` are RunConfig's, model_dir among them."""
    config = tf.estimator.RunConfig(session_config=session_config, **run_arguments)
    return tf.estimator.Estimator(model_fn=model_fn, model_dir=config.model_dir, config=config)


def planned_session_config(carried: Mapping[str, str]) -> tf.ConfigProto:
    """The session config of a planned device, with the entry that an NPUEstimator would add; it carries
    these values."""
    config = npu_session_config()
    entry = config.graph_options.rewrite_options.custom_optimizers.add(name=OPTIMIZER)
    entry.parameter_map[ON_THE_DEVICE].b = True
    for name, value in carried.items():
        entry.parameter_map[name].s = value.encode("utf-8")
    return config


def planned_kernels(seed: int, gelu_name: str, dropout_name: str) -> Tuple[Activation, Dropout]:
    """Plain TensorFlow's gelu and dropout under the names of the device's."""
    drop = kernels.stateless_dropout(seed, 0)
    return (lambda x: tf.identity(kernels.STOCK.gelu(x), name=gelu_name),
            lambda x, rate, place: tf.identity(drop(x, rate, place), name=dropout_name))


def npu_session_config() -> tf.ConfigProto:
    """A new session config, since an NPUEstimator changes the one it is given: it adds its entry, the
    NpuOptimizer.

    Two of TensorFlow's own graph rewrites conflict with the device's and must be off, which not every release
    ensures.
    """
    config = tf.ConfigProto(allow_soft_placement=True)
    config.graph_options.rewrite_options.remapping = RewriterConfig.OFF
    config.graph_options.rewrite_options.memory_optimization = RewriterConfig.OFF
    return config


def optimizer_entries(session_config: tf.ConfigProto) -> List[Dict[str, Any]]:
    """The parameters of each NpuOptimizer in a session's config, by name."""
    entries = [entry for entry in session_config.graph_options.rewrite_options.custom_optimizers
               if entry.name == OPTIMIZER]
    return [{name: value.s.decode() if value.WhichOneof("value") == "s"
             else getattr(value, value.WhichOneof("value"))
             for name, value in entry.parameter_map.items()} for entry in entries]


def session_complaints(session_config: tf.ConfigProto) -> List[str]:
    """The faults of a session's config for an NPU; an empty list if there are none."""
    rewrites, entries = session_config.graph_options.rewrite_options, optimizer_entries(session_config)
    complaints = []
    if len(entries) != 1:
        complaints.append("the session must have one %s, but it has %d" % (OPTIMIZER, len(entries)))
    if not all(entry.get(ON_THE_DEVICE) for entry in entries):
        complaints.append("%s must be true in %s" % (ON_THE_DEVICE, OPTIMIZER))
    return complaints + ["%s must be off in the session's rewrites" % name
                         for name in ("remapping", "memory_optimization")
                         if getattr(rewrites, name) != rewrites.OFF]
