import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
import tiny_models
from estimator.model import heads
from estimator.optimization import names, optimizers

NAMES = ("layer/kernel", "layer/bias", "LayerNorm/gamma")
DECAYED = {"layer/kernel"}


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


class Twin:
    """Both rules in NumPy and float64, one variable at a time."""

    def __init__(self, value, decayed, adapted, rate=0.05):
        self.w, self.m, self.v = np.array(value, np.float64), 0.0, 0.0
        self.decay, self.adapted, self.rate = 0.01 if decayed else 0.0, adapted, rate

    def step(self, grad):
        self.m = 0.9 * self.m + 0.1 * grad
        self.v = 0.999 * self.v + 0.001 * grad ** 2
        update = self.m / (np.sqrt(self.v) + 1e-6) + self.decay * self.w
        norms = np.linalg.norm(self.w), np.linalg.norm(update)
        ratio = norms[0] / norms[1] if self.adapted and norms[0] > 0 and norms[1] > 0 else 1.0
        self.w = self.w - self.rate * ratio * update


def three_variables(use_resource=False):
    values = [np.linspace(-1, 2, 6).reshape([2, 3]), np.zeros(3), np.ones(3)]
    return values, [tf.get_variable(name, initializer=tf.constant(value, tf.float32),
                                    use_resource=use_resource) for name, value in zip(NAMES, values)]


def linear_model(batch_size=4):
    """Squared error of a linear model and what feeds it."""
    kernel = tf.get_variable("dense/kernel", initializer=tf.constant([[0.5], [-1.0], [2.0]]))
    bias = tf.get_variable("dense/bias", initializer=tf.constant([0.1]))
    x, y = tf.placeholder(tf.float32, [None, 3]), tf.placeholder(tf.float32, [None, 1])
    rng = np.random.RandomState(0)
    batches = [(rng.randn(batch_size, 3), rng.randn(batch_size, 1)) for _ in range(6)]
    return tf.reduce_mean(tf.square(tf.matmul(x, kernel) + bias - y)), x, y, batches


def initialize(session):
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])


class TestFormulas:

    def test_adam_literal(self):
        update, m, v = optimizers.adam_update(tf.constant([2.0, -4.0]), tf.constant([1.0, 0.0]),
                                              tf.constant([3.0, 0.0]), beta_1=0.5, beta_2=0.75, epsilon=0.25)
        with tf.Session() as session:
            update, m, v = session.run([update, m, v])
        np.testing.assert_allclose(m, [1.5, -2.0])
        np.testing.assert_allclose(v, [3.25, 4.0])
        np.testing.assert_allclose(update, [1.5 / (3.25 ** 0.5 + 0.25), -2.0 / 2.25], rtol=1e-6)

    @pytest.mark.parametrize("param, update, ratio", [
        ([3.0, 4.0], [0.0, 2.0], 2.5), ([0.0, 0.0], [1.0, 1.0], 1.0), ([3.0, 4.0], [0.0, 0.0], 1.0)])
    def test_trust_ratio_literals(self, param, update, ratio):
        with tf.Session() as session:
            assert session.run(optimizers.lamb_trust_ratio(tf.constant(param), tf.constant(update))) == ratio


class TestRules:

    @pytest.mark.parametrize("use_resource", [False, True])
    @pytest.mark.parametrize("rule, adapted", [
        (optimizers.AdamW(0.05), set()),
        (optimizers.Lamb(0.05), set(NAMES)),
        (optimizers.Lamb(0.05, adapt_all=False), DECAYED),
        (optimizers.AdamW(0.05, fused=True), set()),
        (optimizers.Lamb(0.05, fused=True), set(NAMES)),
        (optimizers.Lamb(0.05, adapt_all=False, fused=True), DECAYED),
    ])
    def test_ten_steps_equal_the_numpy_twin(self, rule, adapted, use_resource):
        values, variables = three_variables(use_resource)
        twins = [Twin(value, name in DECAYED, name in adapted) for name, value in zip(NAMES, values)]
        grads = [tf.placeholder(tf.float32, value.shape) for value in values]
        step = rule.apply_gradients(list(zip(grads, variables)))
        rng = np.random.RandomState(0)
        with tiny_models.session() as session:
            initialize(session)
            for _ in range(10):
                drawn = [rng.standard_normal(value.shape) for value in values]
                session.run(step, dict(zip(grads, drawn)))
                for twin, grad in zip(twins, drawn):
                    twin.step(grad)
            # The fused kernel takes 1 − β₂ in float32, which is 5e-5 too large.
            for got, twin in zip(session.run(variables), twins):
                np.testing.assert_allclose(got, twin.w, rtol=0, atol=2e-5)
            for variable, twin in zip(variables, twins):
                m, v = session.run([rule.get_slot(variable, "m"), rule.get_slot(variable, "v")])
                np.testing.assert_allclose(m, twin.m, rtol=0, atol=1e-6)
                np.testing.assert_allclose(v, twin.v, rtol=1e-4)

    def test_fused_kernels_do_the_arithmetic_where_they_are_asked_for(self):
        _, variables = three_variables()
        pairs = [(tf.zeros_like(variable), variable) for variable in variables]
        for fused in (False, True):
            before = len(tf.get_default_graph().get_operations())
            optimizers.Lamb(0.05, fused=fused,
                            slot_prefix="fused" if fused else "plain").apply_gradients(pairs)
            types = [op.type for op in tf.get_default_graph().get_operations()[before:]]
            assert types.count("ApplyAdam") == types.count("ApplyGradientDescent") == 3 * fused

    @pytest.mark.parametrize("name, kind, suffix", [
        ("adamw", "postln", "adam"), ("lamb", "postln", "lamb"), ("lamb", "google", "adam"),
        ("lamb", "bert", "adam")])
    def test_slots_bear_the_released_names(self, name, kind, suffix):
        _, variables = three_variables()
        rule = optimizers.make_optimizer(name, tiny_models.CONFIGS[kind], learning_rate=0.1)
        rule.apply_gradients([(tf.zeros_like(variable), variable) for variable in variables])
        slots = {variable.op.name: variable.shape.as_list() for variable in tf.global_variables()[3:]}
        assert slots == {"%s/%s_%s" % (variable, suffix, moment): shape for moment in "mv"
                         for variable, shape in zip(NAMES, [[2, 3], [3], [3]])}
        assert all(slot.endswith(optimizers.SLOT_SUFFIXES) for slot in slots)
        assert tf.trainable_variables() == variables

    @pytest.mark.parametrize("kind, adapts_all", [("postln", True), ("google", False)])
    def test_lamb_adapts_as_the_family_does(self, kind, adapts_all):
        variable = tf.get_variable("bias", initializer=tf.constant([3.0, 4.0]))
        rule = optimizers.make_optimizer("lamb", tiny_models.CONFIGS[kind], learning_rate=1.0)
        step = rule.apply_gradients([(tf.constant([0.0, 1.0]), variable)])
        with tf.Session() as session:
            initialize(session)
            session.run(step)
            moved = session.run(variable)
        first_update = 0.1 / (0.001 ** 0.5 + 1e-6)
        np.testing.assert_allclose(moved, [3.0, 4.0 - (5.0 if adapts_all else first_update)], rtol=1e-5)

    def test_an_unknown_rule_is_named(self):
        with pytest.raises(ValueError) as caught:
            optimizers.make_optimizer("sgd", tiny_models.CONFIGS["bert"], 0.1)
        assert str(caught.value) == "optimizer must be one of adamw, lamb, got sgd"


class TestLayerWiseScale:

    @pytest.mark.parametrize("kind, scales", [
        ("bert", {"bert/embeddings/word_embeddings": 0.125, "bert/encoder/layer_0/output/dense/bias": 0.25,
                  "bert/encoder/layer_1/output/dense/bias": 0.5, "bert/pooler/dense/kernel": 1.0,
                  "output_weights": 1.0}),
        ("postln", {"bert/embeddings/word_embeddings_2": 0.25,
                    "bert/encoder/layer_shared/output/dense/bias": 0.5, "bert/pooler/dense/kernel": 1.0}),
        ("google", {"bert/encoder/embedding_hidden_mapping_in/bias": 2 ** -5,
                    "bert/encoder/transformer/group_0/inner_group_0/LayerNorm/beta": 2 ** -4,
                    "bert/encoder/transformer/group_1/inner_group_1/LayerNorm/beta": 0.5}),
    ])
    def test_literals(self, kind, scales):
        scale_of = optimizers.layer_wise_scale(tiny_models.CONFIGS[kind], 0.5)
        assert {name: scale_of(name) for name in scales} == scales

    def test_it_scales_the_step(self):
        lower, upper = (tf.get_variable(name, initializer=tf.constant([1.0]))
                        for name in ("bert/encoder/layer_shared/kernel", "output_weights"))
        rule = optimizers.make_optimizer("adamw", tiny_models.CONFIGS["postln"], 0.1, weight_decay=0.0,
                                         layer_decay=0.5)
        step = rule.apply_gradients([(tf.constant([1.0]), lower), (tf.constant([1.0]), upper)])
        with tf.Session() as session:
            initialize(session)
            session.run(step)
            lower, upper = session.run([lower, upper])
        np.testing.assert_allclose(1 - lower, 0.5 * (1 - upper), rtol=1e-5)

    @pytest.mark.parametrize("decay", [0.0, 1.5])
    def test_bad_values(self, decay):
        with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\], got %g" % decay):
            optimizers.layer_wise_scale(albert_config.load("tiny"), decay)


class TestBuildTrainOp:

    def test_clips_by_the_global_norm_and_returns_it(self):
        variables = [tf.get_variable(name, initializer=tf.constant([0.0])) for name in "ab"]
        loss = 3.0 * variables[0][0] + 4.0 * variables[1][0]
        training = optimizers.build_train_op(loss, tf.train.GradientDescentOptimizer(1.0), clip_norm=1.0)
        with tf.Session() as session:
            initialize(session)
            norm, _ = session.run([training.gradient_norm, training.train_op])
            moved = session.run(variables)
        assert norm == 5.0
        np.testing.assert_allclose(moved, [[-0.6], [-0.8]], rtol=1e-6)

    def test_none_does_not_clip(self):
        variable = tf.get_variable("a", initializer=tf.constant(0.0))
        training = optimizers.build_train_op(7.0 * variable, tf.train.GradientDescentOptimizer(1.0),
                                             clip_norm=None)
        with tf.Session() as session:
            initialize(session)
            session.run(training.train_op)
            assert session.run(variable) == -7.0

    def test_a_tied_table_gets_one_dense_gradient(self):
        table = tf.get_variable("table", initializer=tf.constant([[1.0], [2.0], [3.0]]))
        used_twice = tf.reduce_sum(tf.gather(table, [0, 0, 2])) + tf.reduce_sum(
            tf.matmul([[1.0, 10.0, 100.0]], table))
        rule = optimizers.AdamW(0.1)
        [(grad, _)] = rule.compute_gradients(used_twice)
        training = optimizers.build_train_op(tf.reduce_sum(tf.gather(table, [0, 0, 2])), rule)
        with tf.Session() as session:
            initialize(session)
            assert session.run(grad).tolist() == [[3.0], [10.0], [101.0]]
            assert session.run(training.gradient_norm) == np.float32(5 ** 0.5)

    @pytest.mark.parametrize("rule", [optimizers.AdamW(0.05), optimizers.Lamb(0.05)])
    @pytest.mark.parametrize("clip_norm", [None, 0.5])
    def test_accumulation_equals_the_big_batch(self, rule, clip_norm):
        results = []
        for micro_steps in (1, 3):
            with tf.Graph().as_default():
                loss, x, y, batches = linear_model()
                training = optimizers.build_train_op(loss, rule, clip_norm=clip_norm,
                                                     accumulation_steps=micro_steps)
                if micro_steps == 1:
                    batches = [tuple(map(np.concatenate, zip(*batches[start:start + 3]))) for start in (0, 3)]
                with tiny_models.session() as session:
                    initialize(session)
                    for xs, ys in batches:
                        norm, _ = session.run([training.gradient_norm, training.train_op], {x: xs, y: ys})
                    assert session.run(optimizers.batches_taken()) == len(batches)
                    counted = [variable for variable in tf.global_variables()
                               if variable.op.name != optimizers.BATCHES_TAKEN]
                    results.append(session.run(counted) + [norm])
        assert len(results[0]) == len(results[1]) == 2 + 4 + 1 + 1
        for whole, accumulated in zip(*results):
            np.testing.assert_allclose(accumulated, whole, rtol=1e-5, atol=1e-6)

    def test_global_step_counts_updates_and_batches_taken_counts_passes(self):
        loss, x, y, batches = linear_model()
        forward = optimizers.batches_taken()
        training = optimizers.build_train_op(loss, optimizers.AdamW(0.1), accumulation_steps=3)
        seen = []
        with tiny_models.session() as session:
            initialize(session)
            for xs, ys in batches:
                before = session.run([tf.train.get_global_step(), forward])
                session.run(training.train_op, {x: xs, y: ys})
                seen.append(tuple(before))
        assert seen == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]

    @pytest.mark.parametrize("micro_steps", [1, 2])
    @pytest.mark.parametrize("clip_norm", [None, 1.0])
    def test_a_check_that_fails_stops_the_update(self, micro_steps, clip_norm):
        variable = tf.get_variable("a", initializer=tf.constant(1.0))
        limit = tf.placeholder(tf.float32, [])
        training = optimizers.build_train_op(
            3.0 * variable, optimizers.AdamW(0.1), clip_norm=clip_norm, accumulation_steps=micro_steps,
            check=lambda norm: tf.debugging.Assert(norm < limit, [norm]))
        with tf.Session() as session:
            initialize(session)
            for _ in range(2 * micro_steps):
                with pytest.raises(tf.errors.InvalidArgumentError):
                    session.run(training.train_op, {limit: 1.0})
            assert session.run([variable, tf.train.get_global_step()]) == [1.0, 0]
            for _ in range(micro_steps):
                session.run(training.train_op, {limit: 100.0})
            assert session.run(tf.train.get_global_step()) == 1

    def test_sums_are_in_no_checkpoint(self):
        loss = linear_model()[0]
        optimizers.build_train_op(loss, optimizers.AdamW(0.1), accumulation_steps=3)
        assert not [variable for variable in tf.global_variables() if "accumulation" in variable.op.name]
        assert len(tf.local_variables()) == 3

    @pytest.mark.parametrize("micro_steps", [1, 2])
    def test_the_learning_rate_reads_global_step_before_its_update(self, micro_steps):
        variable = tf.get_variable("a", initializer=tf.constant(0.0))
        rate = tf.cast(tf.train.get_or_create_global_step(), tf.float32)
        training = optimizers.build_train_op(variable, tf.train.GradientDescentOptimizer(rate),
                                             clip_norm=None, accumulation_steps=micro_steps)
        with tf.Session() as session:
            initialize(session)
            for _ in range(4 * micro_steps):
                session.run(training.train_op)
            assert session.run(variable) == -(0 + 1 + 2 + 3)

    def test_a_wrapper_sees_gradients_and_update(self):
        calls = []

        class Doubling(tf.train.Optimizer):
            def __init__(self, inner):
                super().__init__(False, "Doubling")
                self._inner = inner

            def compute_gradients(self, *args, **kwargs):
                calls.append("compute")
                return [(2.0 * grad, variable)
                        for grad, variable in self._inner.compute_gradients(*args, **kwargs)]

            def apply_gradients(self, *args, **kwargs):
                calls.append("apply")
                return self._inner.apply_gradients(*args, **kwargs)

        variable = tf.get_variable("a", initializer=tf.constant(0.0))
        training = optimizers.build_train_op(variable, tf.train.GradientDescentOptimizer(1.0), clip_norm=None,
                                             wrap=Doubling)
        with tf.Session() as session:
            initialize(session)
            session.run(training.train_op)
            assert session.run(variable) == -2.0
        assert calls == ["compute", "apply"]

    @pytest.mark.parametrize("micro_steps", [1, 2])
    def test_clipping_does_not_bypass_a_wrapper_that_hooks_gradients_alone(self, micro_steps):
        class Averaging(tf.train.Optimizer):
            """As one that sums over devices: another device has the gradient 2."""

            def __init__(self, inner):
                super().__init__(False, "Averaging")
                self._inner = inner

            def compute_gradients(self, *args, **kwargs):
                return [((grad + 2.0) / 2.0, variable)
                        for grad, variable in self._inner.compute_gradients(*args, **kwargs)]

            def apply_gradients(self, *args, **kwargs):
                return self._inner.apply_gradients(*args, **kwargs)

        variable = tf.get_variable("a", initializer=tf.constant(0.0))
        training = optimizers.build_train_op(4.0 * variable, tf.train.GradientDescentOptimizer(1.0),
                                             clip_norm=1.5, accumulation_steps=micro_steps, wrap=Averaging)
        with tf.Session() as session:
            initialize(session)
            for _ in range(micro_steps):
                norm, _ = session.run([training.gradient_norm, training.train_op])
            assert norm == 3.0 and session.run(variable) == -1.5

    def test_variables_without_a_gradient_are_left_alone(self):
        used, unused = (tf.get_variable(name, initializer=tf.constant(1.0)) for name in ("used", "unused"))
        training = optimizers.build_train_op(used, optimizers.AdamW(0.1))
        with tf.Session() as session:
            initialize(session)
            session.run(training.train_op)
            assert session.run(unused) == 1.0 and session.run(used) < 1.0

    def test_accumulation_steps_below_1_are_refused(self):
        with pytest.raises(ValueError, match="accumulation_steps must be at least 1, got 0"):
            optimizers.build_train_op(tf.constant(0.0), optimizers.AdamW(0.1), accumulation_steps=0)


@pytest.mark.parametrize("name", names.OPTIMIZERS)
def test_a_step_without_anything_real_leaves_no_nan(name):
    values, variables = three_variables()
    loss = sum(heads.weighted_mean(tf.square(variable), tf.zeros_like(variable)) for variable in variables)
    rule = optimizers.make_optimizer(name, tiny_models.CONFIGS["postln"], 0.1, weight_decay=0.0)
    training = optimizers.build_train_op(loss, rule)
    with tiny_models.session() as session:
        initialize(session)
        norm, _ = session.run([training.gradient_norm, training.train_op])
        assert norm == 0
        for got, value in zip(session.run(variables), values):
            np.testing.assert_array_equal(got, value.astype(np.float32))
