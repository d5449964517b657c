"""One tiny config for each kind of model, a batch with padding and segments, and weights that are not
near zero."""
from typing import Dict

import numpy as np
import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig

SIZES = dict(vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
             max_position_embeddings=12)

CONFIGS = {
    "postln": AlbertConfig(embedding_size=6, ln_type="postln", **SIZES),
    "preln": AlbertConfig(embedding_size=6, ln_type="preln", **SIZES),
    "google": AlbertConfig(embedding_size=6, num_hidden_groups=2, inner_group_num=2, **SIZES),
    "google_wide": AlbertConfig(embedding_size=16, num_hidden_groups=1, inner_group_num=1, **SIZES),
    "google_fast": AlbertConfig(embedding_size=6, num_hidden_groups=2, inner_group_num=1, num_ffn_groups=4,
                                hidden_act="swish", **SIZES),
    "bert": AlbertConfig(**SIZES),
}


def batch(batch_size: int = 3, seq_length: int = 10, seed: int = 0) -> Dict[str, np.ndarray]:
    """input_ids, input_mask and segment_ids: every row has another length, the first is full."""
    rng = np.random.RandomState(seed)
    lengths = np.maximum(seq_length - 3 * np.arange(batch_size), 2)[:, np.newaxis]
    columns = np.arange(seq_length)[np.newaxis, :]
    mask = (columns < lengths).astype(np.int32)
    return {"input_ids": rng.randint(1, 37, [batch_size, seq_length]).astype(np.int32) * mask,
            "input_mask": mask,
            "segment_ids": ((columns >= lengths // 2).astype(np.int32) * mask)}


def session() -> tf.Session:
    """A session that starts quickly: no graph rewriting, one thread."""
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


def set_random_values(session: tf.Session, seed: int = 0) -> Dict[str, np.ndarray]:
    """Gives every variable a random value (scales near 1, all else near 0) and returns them by name."""
    rng = np.random.RandomState(seed)
    variables = sorted(tf.global_variables(), key=lambda variable: variable.op.name)
    values = [0.3 * rng.standard_normal(variable.shape.as_list()) + float(variable.op.name.endswith("gamma"))
              for variable in variables]
    feed = {variable.initializer.inputs[1]: value for variable, value in zip(variables, values)}
    session.run([variable.initializer for variable in variables], feed)
    return {variable.op.name: value.astype(np.float32).astype(np.float64)
            for variable, value in zip(variables, values)}
