"""Checkpoints of tiny models of one layer, with random values."""
import dataclasses

import tensorflow.compat.v1 as tf

import tiny_models
from estimator.model import heads, modeling

CONFIGS = {kind: dataclasses.replace(config, num_hidden_layers=1)
           for kind, config in tiny_models.CONFIGS.items() if config.num_hidden_groups is None}
CONFIGS.update({kind: dataclasses.replace(tiny_models.CONFIGS[kind], inner_group_num=1)
                for kind in ("google", "google_fast")})


def encode(kind):
    return modeling.build_encoder(CONFIGS[kind], tf.zeros([1, 4], tf.int32))


def save(path, build, seed=0):
    """Saves random values of the variables that `build` creates; returns the prefix and the values."""
    with tf.Graph().as_default():
        build()
        with tiny_models.session() as session:
            values = tiny_models.set_random_values(session, seed)
            return tf.train.Saver().save(session, str(path), write_state=False,
                                         write_meta_graph=False), values


def save_pretrained(folder, kind, name="model.ckpt"):
    def build():
        encoded = encode(kind)
        heads.masked_lm_logits(CONFIGS[kind], encoded, tf.zeros([1, 2], tf.int32))
        heads.sentence_order(CONFIGS[kind], encoded)
    return save(folder / name, build)
