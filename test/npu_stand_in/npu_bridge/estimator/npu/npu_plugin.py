"""What importing the newer generation does to every session of the process."""
import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

_plain_init = tf.Session.__init__


def npu_session_init(self, target="", graph=None, config=None):
    config = tf.ConfigProto() if config is None else config
    rewrites = config.graph_options.rewrite_options
    if not any(found.name == "NpuOptimizer" for found in rewrites.custom_optimizers):
        rewrites.custom_optimizers.add().name = "NpuOptimizer"
    rewrites.remapping = rewrites.memory_optimization = RewriterConfig.OFF
    _plain_init(self, target, graph, config)


def replace_session():
    tf.Session.__init__ = npu_session_init
