import dataclasses

import pytest
import tensorflow.compat.v1 as tf

import albert_config
from estimator.model.flops import training_flops
from estimator.npu import step_graph
from estimator.npu.devices import PlannedDevice
from estimator.training import model_fn
from estimator.training.model_fn import TrainingConfig

BATCH, LENGTH, PREDICTIONS = 2, 64, 10
NAMES = {"input_ids": LENGTH, "input_mask": LENGTH, "segment_ids": LENGTH, "masked_lm_positions": PREDICTIONS,
         "masked_lm_ids": PREDICTIONS, "next_sentence_labels": 1}


@pytest.mark.parametrize("name", ["mini", "tiny", "tiny_google", "tiny_google_fast", "bert_config",
                                  "base_google_fast"])
def test_equals_what_a_graph_of_static_shapes_holds(name):
    """To 1 %: the graph also picks segments and two classes by products, and asks no gradient of where they
    come from."""
    config = dataclasses.replace(albert_config.load(name), num_hidden_layers=3)
    training = TrainingConfig("adamw", 0.1, 10, 0, random_seed=1, device=PlannedDevice("npu"))
    with tf.Graph().as_default():
        features = {feature: tf.zeros([BATCH, width], tf.int32) for feature, width in NAMES.items()}
        features["masked_lm_weights"] = tf.ones([BATCH, PREDICTIONS])
        spec = model_fn.pretraining_model_fn(config, training)(features, tf.estimator.ModeKeys.TRAIN)
        counted = sum(step_graph.flops_of(step_graph.step_ops([spec.train_op, spec.loss])).values())
    assert training_flops(config, BATCH, BATCH * LENGTH,
                          BATCH * PREDICTIONS) == pytest.approx(counted, rel=0.01)


def test_literal():
    """One layer of plain BERT, one sequence: keys and values of 4 tokens, the rest for [CLS], and
    the pooler."""
    config = dataclasses.replace(albert_config.load("bert_config"), num_hidden_layers=1, hidden_size=2,
                                 intermediate_size=8, num_attention_heads=1)
    keys_and_values, one_place, pooler = 4 * 2 * 4, 2 * 4 + 2 * 2 * 8 + 2 * 2 * 4, 4
    assert training_flops(config, batch_size=1, tokens=4) == 6 * (keys_and_values + one_place + pooler)
