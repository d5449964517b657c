import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
import numpy_albert
import tiny_models
from estimator.model import heads, kernels, modeling

POSITIONS = np.array([[1, 4, 9], [6, 2, 0], [1, 0, 0]], np.int32)
IDS = np.array([[11, 12, 36], [14, 0, 0], [1, 0, 0]], np.int32)
WEIGHTS = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)

TRANSFORM = {
    "postln": {"cls/predictions/transform/dense/kernel": [16, 16],
               "cls/predictions/transform/dense/bias": [16], "cls/predictions/transform/LayerNorm/beta": [16],
               "cls/predictions/transform/LayerNorm/gamma": [16], "cls/predictions/output_bias": [37]},
    "google": {"cls/predictions/transform/dense/kernel": [16, 6], "cls/predictions/transform/dense/bias": [6],
               "cls/predictions/transform/LayerNorm/beta": [6],
               "cls/predictions/transform/LayerNorm/gamma": [6], "cls/predictions/output_bias": [37]},
}
TRANSFORM["bert"] = TRANSFORM["postln"]


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def encode(kind):
    features = tiny_models.batch()
    return modeling.build_encoder(tiny_models.CONFIGS[kind], *map(tf.constant, (
        features["input_ids"], features["input_mask"], features["segment_ids"])))


def stand_in(kind, **outputs):
    """An encoder's output made of constants, for what does not depend on the encoder."""
    size = tiny_models.CONFIGS[kind].hidden_size
    values = dict(sequence_output=np.ones([1, 5, size]), pooled_output=np.ones([2, size]))
    values = {name: tf.constant(value, tf.float32) for name, value in dict(values, **outputs).items()}
    table = tf.get_variable("bert/embeddings/word_embeddings", [37, 6])
    projection = tf.get_variable("bert/embeddings/word_embeddings_2", [6, size])
    return modeling.EncoderOutput(all_layers=(), attention_probs=(), embedding_table=table,
                                  embedding_projection=projection, **values)


def new_shapes(before):
    return {variable.op.name: variable.shape.as_list() for variable in tf.global_variables()[before:]}


class TestGatherPositions:

    def test_literal(self):
        sequence = tf.constant([[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]])
        picked = heads.gather_positions(sequence, tf.constant([[2, 0], [1, 1]], tf.int64))
        with tf.Session() as session:
            assert session.run(picked).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]

    def test_unknown_shapes(self):
        sequence, positions = tf.placeholder(tf.float32,
                                             [None, None, 2]), tf.placeholder(tf.int32, [None, None])
        picked = heads.gather_positions(sequence, positions)
        assert picked.shape.as_list() == [None, None, 2]
        with tf.Session() as session:
            feed = {sequence: np.arange(12).reshape([2, 3, 2]), positions: [[2], [0]]}
            assert session.run(picked, feed).tolist() == [[[4, 5]], [[6, 7]]]


class TestWeightedMean:

    @pytest.mark.parametrize("weights, mean", [
        ([1, 1, 1], 2.0), ([1, 0, 0], 1.0), ([0.5, 0, 1.5], 2.5), (None, 2.0), ([0, 0, 0], 0.0)])
    def test_literals(self, weights, mean):
        values = tf.constant([1.0, 2.0, 3.0])
        with tf.Session() as session:
            assert session.run(heads.weighted_mean(values, None if weights is None
                                                   else tf.constant(weights))) == mean


class TestMaskedLm:

    @pytest.mark.parametrize("kind", sorted(TRANSFORM))
    def test_names_and_shapes(self, kind):
        encoded = encode(kind)
        before = len(tf.global_variables())
        heads.masked_lm_logits(tiny_models.CONFIGS[kind], encoded, tf.constant(POSITIONS))
        assert new_shapes(before) == TRANSFORM[kind]

    @pytest.mark.parametrize("kind", ["postln", "preln", "google", "google_fast", "bert"])
    def test_equals_the_numpy_twin(self, kind):
        config = tiny_models.CONFIGS[kind]
        result = heads.masked_lm(config, encode(kind), tf.constant(POSITIONS), tf.constant(IDS),
                                 tf.constant(WEIGHTS))
        assert result.logits.shape.as_list() == [3, 3, 37]
        with tiny_models.session() as session:
            values = tiny_models.set_random_values(session)
            result = session.run(result)
        sequence = numpy_albert.forward(config, values, **tiny_models.batch()).layers[-1]
        logits = numpy_albert.masked_lm_logits(config, values, sequence, POSITIONS)
        losses = numpy_albert.cross_entropy(logits, IDS)
        np.testing.assert_allclose(result.logits, logits, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.per_position_loss, losses, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.loss, (losses * WEIGHTS).sum() / 6, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(result.predictions, logits.argmax(-1))

    def test_no_prediction_gives_loss_and_gradient_of_zero(self):
        config = tiny_models.CONFIGS["postln"]
        result = heads.masked_lm(config, stand_in("postln"), tf.zeros([1, 2], tf.int32),
                                 tf.zeros([1, 2], tf.int32),
                                 tf.zeros([1, 2]))
        gradients = tf.gradients(result.loss, tf.trainable_variables())
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            loss, gradients = session.run([result.loss, gradients])
        assert loss == 0
        assert all((gradient == 0).all() for gradient in gradients)

    def test_gelu_can_be_replaced_by_a_kernel(self):
        calls = []
        heads.masked_lm_logits(tiny_models.CONFIGS["postln"], stand_in("postln"), tf.zeros([1, 2], tf.int32),
                               kernels=kernels.Kernels(gelu=lambda x: calls.append(x.shape.as_list()) or x))
        assert calls == [[2, 16]]


def test_losses_of_the_fast_variant_by_its_published_config():
    published = dict(tiny_models.SIZES, hidden_size=32, intermediate_size=64, embedding_size=6,
                     num_hidden_groups=4, inner_group_num=1, hidden_act="gelu", net_structure_type=0,
                     gap_size=0, num_memory_blocks=0, down_scale_factor=1)
    config, features = albert_config.from_dict(published), tiny_models.batch()
    encoded = modeling.build_encoder(config, *map(tf.constant, features.values()))
    order = heads.sentence_order(config, encoded, tf.constant([0, 1, 1]))
    found = heads.masked_lm(config, encoded, tf.constant(POSITIONS), tf.constant(IDS), tf.constant(WEIGHTS))
    assert [2, 4, 16] in [variable.shape.as_list() for variable in tf.trainable_variables()]
    with tiny_models.session() as session:
        values = tiny_models.set_random_values(session)
        losses = session.run([found.loss, order.loss])
    forward = numpy_albert.forward(config, values, **features)
    logits = numpy_albert.masked_lm_logits(config, values, forward.layers[-1], POSITIONS)
    order_logits = forward.pooled @ values["cls/seq_relationship/output_weights"].T
    order_logits += values["cls/seq_relationship/output_bias"]
    np.testing.assert_allclose(losses, [
        (numpy_albert.cross_entropy(logits, IDS) * WEIGHTS).sum() / 6,
        numpy_albert.cross_entropy(order_logits, np.array([0, 1, 1])).mean()], rtol=1e-6)


class TestSentenceOrder:

    def test_names_shapes_and_values(self):
        encoded = stand_in("postln")
        before = len(tf.global_variables())
        result = heads.sentence_order(tiny_models.CONFIGS["postln"], encoded, tf.constant([[0], [1]]))
        assert new_shapes(before) == {"cls/seq_relationship/output_weights": [2, 16],
                                      "cls/seq_relationship/output_bias": [2]}
        with tiny_models.session() as session:
            values = tiny_models.set_random_values(session)
            result = session.run(result)
        logits = np.ones([2, 16]) @ values["cls/seq_relationship/output_weights"].T
        logits += values["cls/seq_relationship/output_bias"]
        losses = numpy_albert.cross_entropy(logits, np.array([0, 1]))
        np.testing.assert_allclose(result.per_example_loss, losses, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.loss, losses.mean(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.probabilities, numpy_albert.softmax(logits), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(result.predictions, logits.argmax(-1))


class TestClassifier:

    def test_names_and_shapes_after_post_ln(self):
        encoded = stand_in("postln")
        before = len(tf.global_variables())
        heads.classifier(tiny_models.CONFIGS["postln"], encoded, num_labels=4)
        assert new_shapes(before) == {"output_weights": [4, 16], "output_bias": [4]}

    def test_names_and_shapes_after_pre_ln(self):
        encoded = stand_in("preln")
        before = len(tf.global_variables())
        heads.classifier(tiny_models.CONFIGS["preln"], encoded, num_labels=4)
        new = new_shapes(before)
        assert new == {"loss/LayerNorm/beta": [16], "loss/LayerNorm/gamma": [16],
                       "output_weights": [4, 16], "output_bias": [4]}
        assert all(name.startswith(heads.CLASSIFIER_PREFIXES) for name in new)

    @pytest.mark.parametrize("kind", ["postln", "preln"])
    def test_equals_the_numpy_twin(self, kind):
        pooled = np.random.RandomState(1).uniform(-1, 1, [2, 16])
        result = heads.classifier(tiny_models.CONFIGS[kind], stand_in(kind, pooled_output=pooled), 4,
                                  tf.constant([3, 1]))
        with tiny_models.session() as session:
            values = tiny_models.set_random_values(session)
            result = session.run(result)
        if kind == "preln":
            pooled = numpy_albert.layer_norm(values, "loss/LayerNorm", pooled)
        logits = pooled @ values["output_weights"].T + values["output_bias"]
        losses = numpy_albert.cross_entropy(logits, np.array([3, 1]))
        np.testing.assert_allclose(result.logits, logits, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.per_example_loss, losses, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.loss, losses.mean(), rtol=0, atol=1e-5)

    def test_examples_that_only_fill_the_batch_do_not_count(self):
        pooled = np.random.RandomState(1).uniform(-1, 1, [2, 16])
        result = heads.classifier(tiny_models.CONFIGS["postln"], stand_in("postln", pooled_output=pooled), 4,
                                  tf.constant([3, 1]), tf.constant([1, 0]))
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            loss, losses = session.run([result.loss, result.per_example_loss])
        assert loss == losses[0]

    def test_without_labels_there_is_no_loss(self):
        result = heads.classifier(tiny_models.CONFIGS["postln"], stand_in("postln"), num_labels=4)
        assert result.loss is None and result.per_example_loss is None
        assert result.probabilities.shape.as_list() == [2, 4]

    def test_dropout_comes_last_before_the_classes(self):
        calls = []
        heads.classifier(tiny_models.CONFIGS["preln"], stand_in("preln"), num_labels=4,
                         dropout=lambda x, rate, place: calls.append((x.name, rate, place)) or x)
        [(tensor, rate, place)] = calls
        assert tensor.startswith("loss/LayerNorm/") and (rate, place) == (0.1, "classifier")


class TestTags:
    # tags + 1, of one label
    LABELS = np.array([[0, 2, 1, 3, 0], [0, 3, 0, 0, 0], [0, 0, 0, 0, 0]], np.int32)

    def run(self, kind, crf):
        """Scores, transitions and both losses."""
        sequence = np.random.RandomState(1).uniform(-1, 1, [3, 5, 16])
        result = heads.tags(tiny_models.CONFIGS[kind], stand_in(kind, sequence_output=sequence), 1,
                            tf.constant(self.LABELS), crf=crf)
        with tiny_models.session() as session:
            values = tiny_models.set_random_values(session)
            found = session.run(result)
        if kind == "preln":
            sequence = numpy_albert.layer_norm(values, "loss/LayerNorm", sequence)
        logits = sequence @ values["output_weights"].T + values["output_bias"]
        np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-5)
        return logits, values.get("crf_loss/transitions", np.zeros([3, 3])), found

    @staticmethod
    def value(logits, transitions, tags):
        return (sum(logits[place + 1, tag] for place, tag in enumerate(tags))
                + sum(transitions[pair] for pair in zip(tags, tags[1:])))

    @pytest.mark.parametrize("kind, crf", [("postln", False), ("preln", False), ("postln", True)])
    def test_the_loss_is_that_of_the_right_tags_among_all(self, kind, crf):
        logits, transitions, found = self.run(kind, crf)
        assert crf == transitions.any()
        losses = []
        for row, tags in zip(logits, ((1, 0, 2), (2,), ())):
            ways = [self.value(row, transitions, way)
                    for way in itertools.product(range(3), repeat=len(tags))]
            losses.append(np.log(np.exp(ways).sum()) - self.value(row, transitions, tags))
        np.testing.assert_allclose(found.per_example_loss, losses, rtol=0, atol=1e-5)
        assert found.loss == pytest.approx(sum(losses) / 4, abs=1e-5)

    def test_new_variables_have_names_that_a_checkpoint_may_lack(self):
        encoder_output = stand_in("preln")
        before = len(tf.global_variables())
        heads.fine_tuned("tags", 2, crf=True)(tiny_models.CONFIGS["preln"], encoder_output)
        new = new_shapes(before)
        assert new == {"loss/LayerNorm/beta": [16], "loss/LayerNorm/gamma": [16], "output_weights": [5, 16],
                       "output_bias": [5], "crf_loss/transitions": [5, 5]}
        assert all(name.startswith(heads.CLASSIFIER_PREFIXES) for name in new)


def test_several_labels_each_have_a_sigmoid_of_their_own():
    pooled = np.random.RandomState(1).uniform(-1, 1, [2, 16])
    labels, weights = np.array([[1, 0, 1], [0, 0, 0]], np.float32), np.array([1, 2, 3], np.float32)
    result = heads.multi_label(tiny_models.CONFIGS["postln"], stand_in("postln", pooled_output=pooled), 3,
                               tf.constant(labels), tf.constant(weights))
    with tiny_models.session() as session:
        values = tiny_models.set_random_values(session)
        found = session.run(result)
    probabilities = 1 / (1 + np.exp(-(pooled @ values["output_weights"].T + values["output_bias"])))
    losses = -(weights * labels * np.log(probabilities)
               + (1 - labels) * np.log(1 - probabilities)).sum(axis=1)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.per_example_loss, losses, rtol=1e-5)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
