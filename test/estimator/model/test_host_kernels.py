import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import tiny_models
from estimator.model import heads, host_kernels, kernels, modeling
from estimator.npu.devices import Device, PlannedDevice
from estimator.training import model_fn
from estimator.training.model_fn import TrainingConfig


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def assert_same(own, stock, inputs, differentiable):
    """Equal outputs, and equal gradients of a sum that weighs each output differently."""
    inputs = [tf.constant(value) for value in inputs]
    found = []
    for function in (own, stock):
        outputs = tf.nest.flatten(function(*inputs))
        weighed = tf.add_n(
            [tf.reduce_sum(output * tf.constant(np.random.RandomState(1).randn(*output.shape.as_list())))
             for output in outputs])
        gradients = tf.gradients(weighed, [inputs[index] for index in differentiable])
        found.append(outputs + [tf.convert_to_tensor(gradient) for gradient in gradients])
    with tf.Session() as session:
        for own_value, stock_value in zip(*session.run(found)):
            np.testing.assert_allclose(own_value, stock_value, rtol=0, atol=1e-12)


def randoms(*shapes):
    rng = np.random.RandomState(0)
    return [rng.randn(*shape) for shape in shapes]


class TestKernels:

    def test_gelu(self):
        assert_same(host_kernels.gelu, kernels.gelu, [np.linspace(-8, 8, 60).reshape([12, 5])], [0])

    def test_normalize(self):
        x, gamma, beta = randoms([7, 5], [5], [5])
        assert_same(host_kernels.normalize, kernels.normalize, [3 * x + 2, gamma, beta], [0, 1, 2])
        assert_same(host_kernels.normalize_forward, kernels.normalize, [3 * x + 2, gamma, beta], [0, 1, 2])

    def test_look_up_of_a_row_twice_and_of_a_table_that_is_multiplied_by(self):
        table, = randoms([6, 4])
        ids = np.array([1, 5, 1, 0])
        assert_same(host_kernels.look_up, kernels.look_up, [table, ids], [0])
        assert_same(lambda *args: host_kernels.look_up(*args)[0], lambda *args: kernels.look_up(*args)[0],
                    [table, ids], [0])

    def test_gather_once(self):
        parts, = randoms([4, 3])
        there, back = np.array([[2, 0], [3, 1]]), np.array([1, 3, 0, 2])

        def own(parts):
            return host_kernels.gather_once(parts, there, lambda grad: tf.gather(grad, back))
        assert_same(own, lambda parts: tf.gather(parts, there), [parts], [0])

    @pytest.mark.parametrize("queries, keys, most", [(16, 6, 8 * 6 * 5), (16, 6, 1000), (7, 6, 8), (1, 1, 0)])
    @pytest.mark.parametrize("is_masked", [False, True])
    @pytest.mark.parametrize("batch, parts", [(1, 1), (3, 2), (3, 16), (None, 16)])
    def test_attend(self, monkeypatch, queries, keys, most, is_masked, batch, parts):
        monkeypatch.setattr(host_kernels, "MOST_MULTIPLICATIONS", most)
        monkeypatch.setattr(host_kernels, "MOST_PARTS", parts)
        mask = -1e4 * (np.arange(keys) >= [[[[keys]]], [[[1]]], [[[2]]]])[:batch] if is_masked else None

        def attend(kernel):
            def called(*tensors):
                shaped = [tf.placeholder_with_default(x, [None, 2, None, 5]) if batch is None else x
                          for x in tensors]
                heads = kernel.attend(*shaped, mask, lambda probs, part: probs)
                return tf.ensure_shape(heads, tensors[0].shape)
            return called
        tensors = randoms([batch or 3, 2, queries, 5], [batch or 3, 2, keys, 5], [batch or 3, 2, keys, 5])
        assert_same(attend(host_kernels), attend(kernels), tensors, [0, 1, 2])

    def test_attend_drops_each_part_its_own_way(self):
        def attend(kernel, drop):
            return lambda *tensors: kernel.attend(*tensors, None, drop)

        def drop_parts(probs, part):
            return probs * [[[[2.0, 0.0, 1.0]]]] if part == "/0" else probs * 3.0

        def drop_all(probs, part):
            assert part == ""
            return probs * np.array([[2.0, 0.0, 1.0], [3.0] * 3]).reshape([2, 1, 1, 3])
        assert_same(attend(host_kernels, drop_parts), attend(kernels, drop_all), randoms(*3 * [[2, 4, 3, 5]]),
                    [0, 1, 2])

    @pytest.mark.parametrize("queries, keys, size, blocks",
                             [(256, 256, 64, 1), (264, 264, 64, 8), (512, 512, 128, 8), (300, 300, 64, 1)])
    def test_blocks(self, queries, keys, size, blocks):
        assert host_kernels._blocks(queries, keys, size) == blocks
        with tf.Session() as session:
            assert session.run(host_kernels._blocks(tf.constant(queries), tf.constant(keys), size)) == blocks


@pytest.mark.parametrize("kind", ["postln", "preln", "google", "google_fast", "bert"])
def test_a_models_gradients_equal_those_of_stock_tensorflow(kind):
    """In float32: to 5e-6 of the largest of each variable, or of 1."""
    config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
    positions = tf.constant([[1, 2], [3, 1], [2, 0]])
    found = []
    for ours in (host_kernels.TRAINING, kernels.STOCK):
        encoded = modeling.build_encoder(
            config, *(tf.constant(features[name]) for name in ("input_ids", "input_mask", "segment_ids")),
     kernels=ours, skip_padding=True, output_positions=heads.read_positions(positions))
        loss = (heads.masked_lm(config, encoded, None, positions, tf.ones([3, 2]), ours).loss
                + heads.sentence_order(config, encoded, tf.constant([0, 1, 1])).loss)
        found.append([loss] + [tf.convert_to_tensor(grad)
                               for grad in tf.gradients(loss, tf.trainable_variables())])
    with tiny_models.session() as session:
        tiny_models.set_random_values(session)
        for own, stock in zip(*session.run(found)):
            np.testing.assert_allclose(own, stock, rtol=0, atol=5e-6 * max(1.0, np.abs(stock).max()))


@pytest.mark.parametrize("device, mode, has_own", [
    (Device(), tf.estimator.ModeKeys.TRAIN, True), (Device(), tf.estimator.ModeKeys.PREDICT, False),
    (PlannedDevice("npu"), tf.estimator.ModeKeys.TRAIN, False)])
def test_only_a_cpus_training_graph_holds_them(device, mode, has_own):
    features = {name: tf.constant(value)
                for name, value in tiny_models.batch().items() if name.startswith(("input", "segment"))}
    features.update(label_ids=tf.zeros([3], tf.int32), is_real_example=tf.ones([3], tf.int32))
    training = TrainingConfig("adamw", 0.1, 10, 0, random_seed=1, device=device)
    model_fn.classifier_model_fn(tiny_models.CONFIGS["postln"], training, 2)(features, mode)
    types = {op.type for op in tf.get_default_graph().get_operations()}
    assert ("IdentityN" in types) == has_own
