"""Kernels of the device that are no unary ops."""
import tensorflow.compat.v1 as tf

from npu_bridge import stand_in


def dropout(x, keep_prob, noise_shape=None, seed=None, name=None):
    stand_in.record("dropout", float(keep_prob))
    return tf.identity(tf.nn.dropout(x, keep_prob=keep_prob, noise_shape=noise_shape, seed=seed),
                       name or "NpuDropout")
