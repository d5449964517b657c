import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import numpy_albert
import tiny_models
from estimator.model import kernels


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


@pytest.mark.parametrize("name", ["gelu", "swish"])
def test_equals_the_numpy_twin(name):
    x = np.linspace(-6, 6, 101)
    with tiny_models.session() as session:
        y = session.run(getattr(kernels, name)(tf.constant(x, tf.float32)))
    np.testing.assert_allclose(y, getattr(numpy_albert, name)(x), rtol=0, atol=2e-6)


def test_a_replaced_gelu_leaves_other_activations_alone():
    assert kernels.activation(tiny_models.CONFIGS["google_fast"], kernels.Kernels(gelu=None)) is kernels.swish


def test_draws_depend_on_seed_step_and_place_alone():
    x = tf.ones([64])
    step = tf.placeholder(tf.int64, [])
    drops = [kernels.stateless_dropout(seed, step)(x, 0.5, place)
             for seed, place in ((1, "a"), (1, "a"), (2, "a"), (1, "b"))]
    with tiny_models.session() as session:
        first, same, other_seed, other_place = session.run(drops, {step: 7})
        other_step = session.run(drops[0], {step: 8})
    with tiny_models.session() as session:
        resumed = session.run(drops[0], {step: 7})
    assert (first == same).all() and (first == resumed).all()
    for other in (other_seed, other_place, other_step):
        assert (first != other).any()


def test_long_run_rate_and_scale():
    dropped = kernels.stateless_dropout(3, 0)(tf.ones([200, 500]), 0.1, "here")
    with tiny_models.session() as session:
        values = session.run(dropped)
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.9)}
    assert abs((values == 0).mean() - 0.1) < 0.005


def test_unknown_shapes():
    x = tf.placeholder(tf.float32, [None, 4])
    with tiny_models.session() as session:
        assert session.run(kernels.stateless_dropout(3, 0)(x, 0.1, "here"),
                           {x: np.ones([5, 4])}).shape == (5, 4)
