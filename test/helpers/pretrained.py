"""A model as estimator.pretrain leaves it."""
import tensorflow.compat.v1 as tf

import tiny_training
from estimator.training import model_fn
from estimator.training.model_fn import TrainingConfig
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.text.tokenization import TokenizerConfig


def write_pretrained(folder):
    """A model folder as estimator.pretrain leaves it, untrained."""
    vocabulary = tiny_training.write_vocabulary(folder.parent / "vocab.txt")
    model_folder.write(str(folder), ModelFolder(tiny_training.CONFIG,
                                                TokenizerConfig(vocabulary, do_lower_case=False),
                                                max_seq_length=8, data_manifest_sha256="ab" * 32))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        record = {name: tf.constant(values[None]) for name, values in tiny_training.record_values(0).items()}
        model_fn.pretraining_model_fn(tiny_training.CONFIG, TrainingConfig("adamw", 0.1, 1, 0, 1))(
            dict(record, is_real_example=tf.ones([1], tf.int32)), tf.estimator.ModeKeys.EVAL)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt-9"))
