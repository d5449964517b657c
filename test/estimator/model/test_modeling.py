import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import albert_config
import numpy_albert
import tiny_models
from estimator.model import heads, kernels, modeling

# Parameters of the shipped configs: the encoder with its pooler, and with both pretraining heads.
PARAMETERS = {
    "mini": (765312, 790858),
    "tiny": (4175152, 4295186),
    "base": (10877440, 11492234),
    "large": (17009664, 18084490),
    "xlarge": (58577920, 62803594),
    "xxlarge": (223503360, 240322186),
    "tiny_google": (4080520, 4142594),
    "small_google": (4742272, 4813706),
    "tiny_google_fast": (4976608, 5041802),
    "base_google_fast": (35430400, 35551754),
    "bert_config": (102267648, 102882442),
}

POSTLN_VARIABLES = {
    "bert/embeddings/LayerNorm/beta": [16],
    "bert/embeddings/LayerNorm/gamma": [16],
    "bert/embeddings/position_embeddings": [12, 16],
    "bert/embeddings/token_type_embeddings": [2, 16],
    "bert/embeddings/word_embeddings": [37, 6],
    "bert/embeddings/word_embeddings_2": [6, 16],
    "bert/encoder/layer_shared/attention/output/LayerNorm/beta": [16],
    "bert/encoder/layer_shared/attention/output/LayerNorm/gamma": [16],
    "bert/encoder/layer_shared/attention/output/dense/bias": [16],
    "bert/encoder/layer_shared/attention/output/dense/kernel": [16, 16],
    "bert/encoder/layer_shared/attention/self/key/bias": [16],
    "bert/encoder/layer_shared/attention/self/key/kernel": [16, 16],
    "bert/encoder/layer_shared/attention/self/query/bias": [16],
    "bert/encoder/layer_shared/attention/self/query/kernel": [16, 16],
    "bert/encoder/layer_shared/attention/self/value/bias": [16],
    "bert/encoder/layer_shared/attention/self/value/kernel": [16, 16],
    "bert/encoder/layer_shared/intermediate/dense/bias": [24],
    "bert/encoder/layer_shared/intermediate/dense/kernel": [16, 24],
    "bert/encoder/layer_shared/output/LayerNorm/beta": [16],
    "bert/encoder/layer_shared/output/LayerNorm/gamma": [16],
    "bert/encoder/layer_shared/output/dense/bias": [16],
    "bert/encoder/layer_shared/output/dense/kernel": [24, 16],
    "bert/pooler/dense/bias": [16],
    "bert/pooler/dense/kernel": [16, 16],
}

GOOGLE_OUTSIDE_LAYERS = {
    "bert/embeddings/LayerNorm/beta": [6],
    "bert/embeddings/LayerNorm/gamma": [6],
    "bert/embeddings/position_embeddings": [12, 6],
    "bert/embeddings/token_type_embeddings": [2, 6],
    "bert/embeddings/word_embeddings": [37, 6],
    "bert/encoder/embedding_hidden_mapping_in/bias": [16],
    "bert/encoder/embedding_hidden_mapping_in/kernel": [6, 16],
    "bert/pooler/dense/bias": [16],
    "bert/pooler/dense/kernel": [16, 16],
}

GOOGLE_LAYER = {
    "LayerNorm/beta": [16],
    "LayerNorm/gamma": [16],
    "LayerNorm_1/beta": [16],
    "LayerNorm_1/gamma": [16],
    "attention_1/output/dense/bias": [16],
    "attention_1/output/dense/kernel": [16, 16],
    "attention_1/self/key/bias": [16],
    "attention_1/self/key/kernel": [16, 16],
    "attention_1/self/query/bias": [16],
    "attention_1/self/query/kernel": [16, 16],
    "attention_1/self/value/bias": [16],
    "attention_1/self/value/kernel": [16, 16],
    "ffn_1/intermediate/dense/bias": [24],
    "ffn_1/intermediate/dense/kernel": [16, 24],
    "ffn_1/intermediate/output/dense/bias": [16],
    "ffn_1/intermediate/output/dense/kernel": [24, 16],
}


@pytest.fixture(autouse=True)
def fresh_graph():
    with tf.Graph().as_default():
        yield


def encode(config, features, **options):
    return modeling.build_encoder(config, tf.constant(features["input_ids"]),
                                  tf.constant(features["input_mask"]),
                                  tf.constant(features["segment_ids"]), **options)


def shapes():
    return {variable.op.name: variable.shape.as_list() for variable in tf.global_variables()}


def google_variables(scopes, **other_shapes):
    layer = dict(GOOGLE_LAYER, **other_shapes)
    below = {"bert/encoder/transformer/%s/%s" % (scope, name): shape
             for scope in scopes for name, shape in layer.items()}
    return dict(GOOGLE_OUTSIDE_LAYERS, **below)


class TestVariables:

    @pytest.mark.parametrize("name", sorted(PARAMETERS))
    def test_counts_of_every_shipped_config(self, name):
        config = albert_config.load(name)
        ids = tf.zeros([1, 8], tf.int32)
        encoded = modeling.build_encoder(config, ids)
        encoder = sum(variable.shape.num_elements() for variable in tf.trainable_variables())
        heads.masked_lm_logits(config, encoded, tf.zeros([1, 2], tf.int32))
        heads.sentence_order(config, encoded)
        with_heads = sum(variable.shape.num_elements() for variable in tf.trainable_variables())
        assert (encoder, with_heads) == PARAMETERS[name]

    def test_every_shipped_config_is_counted(self):
        assert albert_config.shipped_names() == sorted(PARAMETERS)

    @pytest.mark.parametrize("kind", ["postln", "preln"])
    def test_names_and_shapes_of_the_albert_zh_family(self, kind):
        encode(tiny_models.CONFIGS[kind], tiny_models.batch())
        assert shapes() == POSTLN_VARIABLES

    def test_names_and_shapes_of_googles_family(self):
        encode(tiny_models.CONFIGS["google"], tiny_models.batch())
        assert shapes() == google_variables(["group_%d/inner_group_%d" % (group, inner)
                                             for group in range(2) for inner in range(2)])

    def test_no_mapping_where_embeddings_are_as_wide_as_the_model(self):
        encode(tiny_models.CONFIGS["google_wide"], tiny_models.batch())
        assert [name for name in shapes() if "embedding_hidden_mapping_in" in name] == []

    def test_names_and_shapes_of_googles_fast_variant(self):
        encode(tiny_models.CONFIGS["google_fast"], tiny_models.batch())
        assert shapes() == google_variables(
            ["group_%d/inner_group_0" % group for group in range(2)],
            **{"ffn_1/intermediate/dense/kernel": [4, 6, 4],
               "ffn_1/intermediate/output/dense/kernel": [6, 4, 4]})

    def test_names_and_shapes_of_plain_bert(self):
        encode(tiny_models.CONFIGS["bert"], tiny_models.batch())
        expected = {name: shape for name, shape in POSTLN_VARIABLES.items() if "layer_shared" not in name}
        del expected["bert/embeddings/word_embeddings_2"]
        expected["bert/embeddings/word_embeddings"] = [37, 16]
        for name, shape in POSTLN_VARIABLES.items():
            if "layer_shared" in name:
                expected.update({name.replace("layer_shared", "layer_%d" % layer): shape
                                 for layer in range(2)})
        assert shapes() == expected

    def test_all_are_trainable_float32(self):
        encode(tiny_models.CONFIGS["postln"], tiny_models.batch())
        assert tf.trainable_variables() == tf.global_variables()
        assert {variable.dtype.base_dtype for variable in tf.global_variables()} == {tf.float32}

    def test_layers_of_a_group_share_their_scope(self):
        config = albert_config.load("tiny_google_fast")
        scopes = [modeling.layer_scope(config, layer) for layer in range(4)]
        assert scopes == ["transformer/group_%d/inner_group_0" % group for group in (0, 3, 6, 9)]

    def test_a_second_encoder_shares_the_variables(self):
        features = tiny_models.batch()
        encode(tiny_models.CONFIGS["google"], features)
        before = shapes()
        encode(tiny_models.CONFIGS["google"], features)
        assert shapes() == before


class TestForward:

    @pytest.mark.parametrize("kind", sorted(tiny_models.CONFIGS))
    def test_equals_the_numpy_twin(self, kind):
        config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
        encoded = encode(config, features, with_attention_probs=True)
        with tiny_models.session() as session:
            twin = numpy_albert.forward(config, tiny_models.set_random_values(session), **features)
            layers, probs, pooled = session.run([encoded.all_layers, encoded.attention_probs,
                                                 encoded.pooled_output])
        assert len(layers) == len(twin.layers) == 2 * (config.inner_group_num or 1)
        np.testing.assert_allclose(layers, twin.layers, rtol=0, atol=1e-5)
        np.testing.assert_allclose(probs, twin.probs, rtol=0, atol=1e-5)
        np.testing.assert_allclose(pooled, twin.pooled, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", ["postln", "google_fast"])
    def test_unknown_batch_and_length_give_the_same(self, kind):
        config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
        fed = {name: tf.placeholder(tf.int32, [None, None]) for name in features}
        static = encode(config, features)
        dynamic = modeling.build_encoder(config, **fed)
        assert static.sequence_output.shape.as_list() == [3, 10, 16]
        assert dynamic.sequence_output.shape.as_list() == [None, None, 16]
        assert dynamic.pooled_output.shape.as_list() == [None, 16]
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            feed = {fed[name]: value for name, value in features.items()}
            np.testing.assert_array_equal(*session.run([static.sequence_output, dynamic.sequence_output],
                                                       feed))

    def test_mask_and_segments_may_be_left_out(self):
        config, ids = tiny_models.CONFIGS["postln"], tf.constant(tiny_models.batch()["input_ids"])
        short = modeling.build_encoder(config, ids).pooled_output
        spelled_out = modeling.build_encoder(config, ids, tf.ones_like(ids), tf.zeros_like(ids)).pooled_output
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            np.testing.assert_allclose(*session.run([short, spelled_out]), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("kind", ["postln", "preln", "google"])
    def test_padding_changes_nothing(self, kind):
        config, ids = tiny_models.CONFIGS[kind], np.array([[5, 6, 7, 8]])
        bare = modeling.build_encoder(config, tf.constant(ids)).sequence_output
        padded = modeling.build_encoder(config, tf.constant(np.pad(ids, [(0, 0), (0, 3)], "constant")),
                                 tf.constant([[1, 1, 1, 1, 0, 0, 0]])).sequence_output[:, :4]
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            np.testing.assert_allclose(*session.run([bare, padded]), rtol=0, atol=1e-5)

    def test_attention_comes_only_when_asked_for(self):
        assert encode(tiny_models.CONFIGS["postln"], tiny_models.batch()).attention_probs == ()

    def test_the_last_layer_is_the_sequence_output(self):
        encoded = encode(tiny_models.CONFIGS["google"], tiny_models.batch())
        assert encoded.all_layers[-1] is encoded.sequence_output
        assert encoded.embedding_projection is None

    def test_too_long_a_sequence_names_both_lengths(self):
        with pytest.raises(ValueError) as caught:
            modeling.build_encoder(tiny_models.CONFIGS["postln"], tf.zeros([1, 13], tf.int32))
        assert str(caught.value) == "sequence length 13 exceeds max_position_embeddings, which is 12"

    def test_too_long_a_sequence_of_unknown_length_fails_when_it_comes(self):
        ids = tf.placeholder(tf.int32, [None, None])
        pooled = modeling.build_encoder(tiny_models.CONFIGS["postln"], ids).pooled_output
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            session.run(pooled, {ids: np.zeros([1, 12])})
            with pytest.raises(tf.errors.InvalidArgumentError,
                               match="exceeds max_position_embeddings, which is 12"):
                session.run(pooled, {ids: np.zeros([1, 13])})


class TestLessWork:

    @pytest.mark.parametrize("kind", sorted(tiny_models.CONFIGS))
    @pytest.mark.parametrize("known", [True, False], ids=["known shape", "unknown shape"])
    def test_skipping_padding_changes_nothing_else(self, kind, known):
        config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
        shape = [3, 10] if known else [None, None]
        fed = {name: tf.placeholder(tf.int32, shape) for name in features}
        plain, packed = modeling.build_encoder(config, **fed), modeling.build_encoder(
            config, **fed, skip_padding=True)
        assert packed.sequence_output.shape.as_list() == plain.sequence_output.shape.as_list() == shape + [16]
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            results = session.run([plain.all_layers, packed.all_layers, plain.pooled_output,
                                   packed.pooled_output],
                                  {fed[name]: value for name, value in features.items()})
        tokens = features["input_mask"] == 1
        for layer, packed_layer in zip(*results[:2]):
            np.testing.assert_allclose(packed_layer[tokens], layer[tokens], rtol=0, atol=1e-5)
            assert not packed_layer[~tokens].any()
        np.testing.assert_allclose(*results[2:], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", sorted(tiny_models.CONFIGS))
    @pytest.mark.parametrize("skip_padding", [False, True])
    def test_last_layer_at_few_positions(self, kind, skip_padding):
        config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
        positions = np.array([[0, 9, 4], [0, 1, 2], [0, 0, 3]], np.int32)
        plain = encode(config, features)
        few = encode(config, features, skip_padding=skip_padding, output_positions=tf.constant(positions))
        wanted = heads.gather_positions(plain.sequence_output, positions)
        assert few.sequence_output.shape.as_list() == [3, 3, 16]
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            for pair in ((few.sequence_output, wanted), (few.pooled_output, plain.pooled_output),
                         (few.all_layers[0][:, 0], plain.all_layers[0][:, 0])):
                np.testing.assert_allclose(*session.run(list(pair)), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", ["postln", "google_fast"])
    def test_gradients_are_the_same(self, kind):
        config, features = tiny_models.CONFIGS[kind], tiny_models.batch()
        first = tf.zeros([3, 1], tf.int32)
        plain = encode(config, features)
        less = encode(config, features, skip_padding=True, output_positions=first,
                      dropout=lambda x, rate, place: x)
        variables = tf.trainable_variables()
        found = [[tf.convert_to_tensor(gradient)
                  for gradient in tf.gradients(encoded.pooled_output, variables)]
                 for encoded in (plain, less)]
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            for gradient, other in zip(*session.run(found)):
                np.testing.assert_allclose(other, gradient, rtol=0, atol=1e-4)

    def test_batch_of_none(self):
        ids = tf.placeholder(tf.int32, [None, None])
        encoded = modeling.build_encoder(tiny_models.CONFIGS["postln"], ids, ids, skip_padding=True,
                                  output_positions=tf.zeros([tf.shape(ids)[0], 1], tf.int32))
        with tiny_models.session() as session:
            tiny_models.set_random_values(session)
            assert session.run(encoded.pooled_output, {ids: np.zeros([0, 2])}).shape == (0, 16)

    def test_rows_and_places_find_each_other(self):
        """The picture at `_Packing`."""
        config = dataclasses.replace(tiny_models.CONFIGS["postln"], num_attention_heads=2)
        packing = modeling._pack(config, tf.constant([[1, 1, 0], [1, 1, 1]]))
        with tf.Session() as session:
            places, row_at_place, part_at_place, place_of_part, is_token = session.run(packing)
        assert places.tolist() == [0, 1, 3, 4, 5]
        assert row_at_place.tolist() == [[0, 1, 1], [2, 3, 4]]
        assert part_at_place.tolist() == [[[0, 2, 2], [1, 3, 3]], [[4, 6, 8], [5, 7, 9]]]
        assert place_of_part.tolist() == [[0, 3], [1, 4], [6, 9], [7, 10], [8, 11]]
        assert is_token.tolist() == [[[[1], [1], [0]]], [[[1], [1], [1]]]]

    def test_skipping_padding_needs_a_mask(self):
        with pytest.raises(ValueError, match="skip_padding needs an input_mask"):
            modeling.build_encoder(tiny_models.CONFIGS["postln"], tf.zeros([1, 2], tf.int32),
                                   skip_padding=True)


def test_gelu_can_be_replaced_by_a_kernel():
    config, features = tiny_models.CONFIGS["postln"], tiny_models.batch()
    calls = []
    encode(config, features, kernels=kernels.Kernels(gelu=lambda x: calls.append(x.shape.as_list()) or x))
    assert calls == [[30, 24]] * 2


class TestDropout:

    def test_places_and_rates(self):
        config = dataclasses.replace(tiny_models.CONFIGS["postln"], hidden_dropout_prob=0.1,
                                     attention_probs_dropout_prob=0.2)
        places = []
        encode(config, tiny_models.batch(), dropout=lambda x, rate, place: places.append((place, rate)) or x)
        assert places == [
            ("embeddings", 0.1),
            ("layer_0/inner_0/attention_probs", 0.2),
            ("layer_0/inner_0/attention_output", 0.1),
            ("layer_0/inner_0/output", 0.1),
            ("layer_1/inner_0/attention_probs", 0.2),
            ("layer_1/inner_0/attention_output", 0.1),
            ("layer_1/inner_0/output", 0.1),
        ]

    def test_a_rate_of_zero_drops_nothing(self):
        def fail(*_):
            raise AssertionError("dropout at rate 0")
        encode(tiny_models.CONFIGS["postln"], tiny_models.batch(), dropout=fail)


def test_gradients_reach_every_variable():
    config, features = tiny_models.CONFIGS["google_fast"], tiny_models.batch()
    encoded = encode(config, features)
    loss = tf.reduce_sum(tf.square(encoded.sequence_output)) + tf.reduce_sum(encoded.pooled_output)
    gradients = tf.gradients(loss, tf.trainable_variables())
    assert all(gradient is not None for gradient in gradients)
