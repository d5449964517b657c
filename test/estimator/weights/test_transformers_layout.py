import dataclasses
import json

import numpy as np
import pytest

import albert_config
import tiny_models
import tiny_training
from albert_config import AlbertConfig
from estimator.weights import safetensors, transformers_layout
from estimator.weights.model_folder import Labelling
from etl.common.command_line import UserError

GOOGLE, BERT = tiny_models.CONFIGS["google"], tiny_models.CONFIGS["bert"]
WIDE = tiny_models.CONFIGS["google_wide"]
ALBERT_FIELDS = {
    "model_type": "albert", "architectures": ["AlbertForPreTraining"], "vocab_size": 20, "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 12,
    "type_vocab_size": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "embedding_size": 6, "num_hidden_groups": 1, "inner_group_num": 2, "hidden_act": "gelu_new"}


@pytest.mark.parametrize("config, ours, theirs", [
    (GOOGLE, "bert/embeddings/word_embeddings", "albert.embeddings.word_embeddings.weight"),
    (GOOGLE, "bert/embeddings/LayerNorm/gamma", "albert.embeddings.LayerNorm.weight"),
    (GOOGLE, "bert/encoder/embedding_hidden_mapping_in/kernel",
     "albert.encoder.embedding_hidden_mapping_in.weight"),
    (GOOGLE, "bert/encoder/transformer/group_1/inner_group_0/attention_1/self/query/bias",
     "albert.encoder.albert_layer_groups.1.albert_layers.0.attention.query.bias"),
    (GOOGLE, "bert/encoder/transformer/group_0/inner_group_1/attention_1/output/dense/kernel",
     "albert.encoder.albert_layer_groups.0.albert_layers.1.attention.dense.weight"),
    (GOOGLE, "bert/encoder/transformer/group_0/inner_group_0/LayerNorm/beta",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm.bias"),
    (GOOGLE, "bert/encoder/transformer/group_0/inner_group_0/ffn_1/intermediate/output/dense/kernel",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight"),
    (GOOGLE, "bert/encoder/transformer/group_0/inner_group_0/LayerNorm_1/gamma",
     "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.weight"),
    (GOOGLE, "bert/pooler/dense/kernel", "albert.pooler.weight"),
    (GOOGLE, "cls/predictions/transform/LayerNorm/gamma", "predictions.LayerNorm.weight"),
    (GOOGLE, "cls/predictions/output_bias", "predictions.bias"),
    (GOOGLE, "cls/seq_relationship/output_weights", "sop_classifier.classifier.weight"),
    (GOOGLE, "output_bias", "classifier.bias"),
    (BERT, "bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings.weight"),
    (BERT, "bert/encoder/layer_1/attention/output/LayerNorm/beta",
     "bert.encoder.layer.1.attention.output.LayerNorm.bias"),
    (BERT, "bert/pooler/dense/bias", "bert.pooler.dense.bias"),
    (BERT, "cls/predictions/transform/dense/kernel", "cls.predictions.transform.dense.weight"),
    (BERT, "cls/seq_relationship/output_bias", "cls.seq_relationship.bias"),
    (BERT, "output_weights", "classifier.weight"),
])
def test_names(config, ours, theirs):
    assert transformers_layout.their_name(config, ours) == theirs


def test_kernels_are_transposed_and_tables_are_not():
    kernel, table = np.arange(6.0).reshape(2, 3), np.arange(4.0).reshape(2, 2)
    found = transformers_layout.to_theirs(BERT, {"bert/pooler/dense/kernel": kernel,
                                                 "bert/embeddings/word_embeddings": table})
    np.testing.assert_array_equal(found["bert.pooler.dense.weight"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["bert.embeddings.word_embeddings.weight"], table)
    shapes = {"bert/pooler/dense/kernel": (2, 3), "bert/embeddings/word_embeddings": (2, 2)}
    back = transformers_layout.to_ours(BERT, found, shapes)
    np.testing.assert_array_equal(back["bert/pooler/dense/kernel"], kernel)


def test_whole_kernel():
    kernel = np.array([[[1, 10], [2, 20]], [[3, 30], [4, 40]], [[5, 50], [6, 60]]],
                      np.float32)      # [6 / 2, 4 / 2, 2]
    np.testing.assert_array_equal(transformers_layout.whole_kernel(kernel), [
        [1, 2, 0, 0], [0, 0, 10, 20], [3, 4, 0, 0], [0, 0, 30, 40], [5, 6, 0, 0], [0, 0, 50, 60]])


def test_groups_that_are_used_unevenly_are_written_out_one_for_each_layer():
    config = dataclasses.replace(GOOGLE, num_hidden_layers=3, num_hidden_groups=2,
                                 inner_group_num=1)    # groups 0, 0, 1
    scope = "bert/encoder/transformer/group_%d/inner_group_0/LayerNorm/beta"
    written, values = transformers_layout.written_out(config, {
        scope % 0: np.zeros(2), scope % 1: np.ones(2), "bert/pooler/dense/bias": np.full(2, 5)})
    assert written == dataclasses.replace(config, num_hidden_groups=3)
    assert {name: value[0] for name, value in values.items()} == {
        scope % 0: 0, scope % 1: 0, scope % 2: 1, "bert/pooler/dense/bias": 5}


@pytest.mark.parametrize("config, message", [
    (tiny_models.CONFIGS["postln"],
     "albert_zh family .* has no counterpart in transformers: it projects the embeddings"),
    (tiny_models.CONFIGS["preln"], "albert_zh family"),
    (dataclasses.replace(GOOGLE, num_hidden_groups=2, inner_group_num=2),
     "inner_group_num is 2: transformers needs as many layers per group, but num_hidden_layers is 2 and "
     "num_hidden_groups 2"),])
def test_models_without_a_counterpart(config, message):
    with pytest.raises(UserError, match=message):
        transformers_layout.require_counterpart(config)


@pytest.mark.parametrize("name", ["tiny_google", "small_google", "tiny_google_fast", "base_google_fast",
                                  "bert_config"])
def test_shipped_configs_with_a_counterpart(name):
    transformers_layout.require_counterpart(albert_config.load(name))


NAMES = {"bert/embeddings/word_embeddings": (2, 2), "cls/predictions/output_bias": (2,)}
TABLE, COPY = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
BIAS, BIAS_COPY = "cls.predictions.bias", "cls.predictions.decoder.bias"


def test_second_copies_are_no_weights_of_their_own_and_may_be_the_only_ones():
    weights = {TABLE: np.eye(2), COPY: np.eye(2), BIAS_COPY: np.ones(2)}
    found = transformers_layout.to_ours(BERT, weights, NAMES)
    np.testing.assert_array_equal(found["cls/predictions/output_bias"], [1, 1])


def test_older_names_of_a_normalization():
    shapes = {"bert/embeddings/LayerNorm/gamma": (2,)}
    found = transformers_layout.to_ours(BERT, {"bert.embeddings.LayerNorm.gamma": np.ones(2)}, shapes)
    np.testing.assert_array_equal(found["bert/embeddings/LayerNorm/gamma"], [1, 1])


@pytest.mark.parametrize("weights, message", [
    ({TABLE: np.eye(2), BIAS: np.ones(2), COPY: np.ones((2, 2))}, COPY + " is not " + TABLE),
    ({TABLE: np.eye(2)}, "1 missing: " + BIAS),
    ({TABLE: np.eye(2), BIAS: np.ones(2), "bert.extra": np.ones(2)}, "1 unknown here: bert.extra"),
    ({TABLE: np.eye(3), BIAS: np.ones(2)}, "1 of another shape: " + TABLE),
])
def test_weights_that_are_not_these(weights, message):
    with pytest.raises(UserError, match=message):
        transformers_layout.to_ours(BERT, weights, NAMES)


def test_embeddings_as_wide_as_the_model_have_the_identity_for_a_projection():
    theirs = transformers_layout.to_theirs(WIDE, {})
    np.testing.assert_array_equal(theirs["albert.encoder.embedding_hidden_mapping_in.weight"], np.eye(16))
    assert transformers_layout.to_ours(WIDE, theirs, {}) == {}
    with pytest.raises(UserError,
                       match="must be the identity, since embedding_size and hidden_size are both 16"):
        transformers_layout.to_ours(
            WIDE, dict(theirs, **{"albert.encoder.embedding_hidden_mapping_in.bias": np.ones(16)}), {})


def describe(folder, names=()):
    return transformers_layout.read_description(folder, names, folder)


PARTS = {"bert.embeddings.word_embeddings.weight": np.eye(2), "bert.pooler.dense.weight": np.eye(2),
         "bert.pooler.dense.bias": np.ones(2), "cls.predictions.bias": np.ones(2)}
PART_SHAPES = {"bert/embeddings/word_embeddings": (2, 2), "bert/pooler/dense/kernel": (2, 2),
               "bert/pooler/dense/bias": (2,), "cls/predictions/output_bias": (2,)}


def test_an_encoder_alone_has_shorter_names_and_no_heads():
    weights = {name[len("bert."):]: value for name, value in PARTS.items() if name.startswith("bert.")}
    found = transformers_layout.to_ours(BERT, weights, PART_SHAPES, ["bert/pooler/", "cls/predictions/"])
    assert set(PART_SHAPES) - set(found) == {"cls/predictions/output_bias"}


@pytest.mark.parametrize("gone, missing", [
    (["bert.pooler.dense.bias"], "1 missing: bert.pooler.dense.bias"),
    (["bert.embeddings.word_embeddings.weight"], "1 missing: bert.embeddings.word_embeddings.weight"),
    (["bert.pooler.dense.bias", "bert.pooler.dense.weight"], None)])
def test_parts_that_may_lack_do_so_as_a_whole(gone, missing):
    weights = {name: value for name, value in PARTS.items() if name not in gone}
    if missing:
        with pytest.raises(UserError, match=missing):
            transformers_layout.to_ours(BERT, weights, PART_SHAPES, ["bert/pooler/"])
    else:
        assert len(transformers_layout.to_ours(BERT, weights, PART_SHAPES, ["bert/pooler/"])) == 2


@pytest.fixture
def folder(tmp_path):
    """A folder of transformers' layout without weights; `fields` are changed in its config.json, None leaves
    one out."""
    def make(**changes):
        fields = {name: value for name, value in dict(ALBERT_FIELDS, **changes).items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        tiny_training.write_vocabulary(tmp_path / "vocab.txt")
        return str(tmp_path)
    return make


def test_a_description_is_read(folder):
    description, num_labels, may_lack, notes = describe(folder())
    assert description.config == AlbertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=12, attention_probs_dropout_prob=0.1, embedding_size=6, num_hidden_groups=1,
        inner_group_num=2)
    assert (description.max_seq_length, description.labels, description.tokenizer.do_lower_case,
            notes) == (12, (), True, [])
    assert num_labels is None and may_lack == ()


def test_labels_and_the_exact_gelu(folder, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 10}')
    description, num_labels, _, notes = describe(folder(
        architectures=["AlbertForSequenceClassification"], hidden_act="gelu", id2label={"1": "坏", "0": "好"},
        finetuning_task="x"))
    assert (description.task, description.labels, description.max_seq_length) == ("x", ("好", "坏"), 10)
    assert not description.tokenizer.do_lower_case
    assert num_labels == 2 and len(notes) == 1 and notes[0].startswith("hidden_act is gelu, x Φ(x), there")
    unnamed = describe(folder(architectures=["AlbertForSequenceClassification"]))
    assert unnamed.model.labels == ("0", "1")


@pytest.mark.parametrize("architectures, names, num_labels, may_lack", [
    (["AlbertForMaskedLM"], (), None, ("bert/pooler/", "cls/seq_relationship/")),
    (["AlbertModel"], (), None, ("bert/pooler/", "cls/predictions/", "cls/seq_relationship/")),
    (None, ("albert.embeddings.LayerNorm.weight",), None,
     ("bert/pooler/", "cls/predictions/", "cls/seq_relationship/")),
    (None, ("classifier.weight",), 2, ())])
def test_what_a_model_is_for(folder, architectures, names, num_labels, may_lack):
    found = describe(folder(architectures=architectures), names)
    assert (found.num_labels, found.may_lack) == (num_labels, may_lack)


def test_one_label_is_a_regression(folder):
    found = describe(folder(architectures=["AlbertForSequenceClassification"], id2label={"0": "LABEL_0"}))
    assert (found.num_labels, found.model.labels) == (0, ())


def test_several_labels_are_a_kind_of_their_own(folder):
    found = describe(folder(architectures=["AlbertForSequenceClassification"],
                            problem_type="multi_label_classification", id2label={"0": "a", "1": "b"}))
    assert (found.num_labels, found.model.labels, found.model.task) == (2, ("a", "b"), "multi_label")
    assert (found.model.kind, found.model.labelling) == ("multi_label", Labelling("0.5"))


@pytest.mark.parametrize("changes, message", [
    (dict(model_type="roberta"), "config.json: model_type must be one of bert, albert, got 'roberta'"),
    (dict(architectures=["AlbertForTokenClassification"]), "config.json: architectures must be one of "
     "AlbertForPreTraining, AlbertForMaskedLM, AlbertModel, AlbertForSequenceClassification, got "
     r"\['AlbertForTokenClassification'\]"),
    (dict(architectures=["AlbertForSequenceClassification"], problem_type="multi_label_classification",
          id2label={"0": "a"}),
     "config.json: problem_type is multi_label_classification with 1 labels: such a head has no place here"),
    (dict(architectures=["AlbertForSequenceClassification"], problem_type="regression"),
     "config.json: problem_type is regression with 2 labels"),
    (dict(layer_norm_eps=1e-5), "config.json: layer_norm_eps must be 1e-12, got 1e-05"),
    (dict(hidden_act="mish"), "config.json: hidden_act must be one of .*, got mish"),
    (dict(embedding_size=None), "config.json: missing field embedding_size"),
    (dict(hidden_size=17), "config.json: hidden_size must be a multiple of num_attention_heads"),
    (dict(vocab_size=21), "vocab_size is 21 in the config, but the vocabulary .* has 20 entries"),
    (dict(architectures=["AlbertForSequenceClassification"], id2label={"1": "a"}),
     "id2label must name the labels"),
    (dict(architectures=["AlbertForSequenceClassification"], id2label={"0": "a", "1": "a"}),
     "a different name"),
    (dict(architectures=["AlbertForSequenceClassification"], id2label={"0": "a", "1": "\ud800"}),
     r"id2label: .ud800 is half a"),
    (dict(architectures=["AlbertForSequenceClassification"], id2label={"0": 3, "1": 4}), "a different name"),
])
def test_a_description_without_a_place_here(folder, changes, message):
    with pytest.raises(UserError, match=message):
        describe(folder(**changes))


@pytest.mark.parametrize("written, message", [
    ("[]", "must be a JSON object, got list"),
    ('{"do_lower_case": "no"}', "do_lower_case must be true or false, got 'no'"),
    ('{"model_max_length": "10"}', "model_max_length must be at least 3, got '10'"),
    ('{"model_max_length": 2}', "model_max_length must be at least 3, got 2"),
])
def test_a_tokenizers_description_that_is_none(folder, tmp_path, written, message):
    (tmp_path / "tokenizer_config.json").write_text(written)
    with pytest.raises(UserError, match="tokenizer_config.json: " + message):
        describe(folder())


@pytest.mark.parametrize("written", ['{"model_max_length": 1000000000000000019884624838656}',
                                     '{"model_max_length": 1e30}', '{"model_max_length": null}'])
def test_no_text_is_longer_than_there_are_positions(folder, tmp_path, written):
    (tmp_path / "tokenizer_config.json").write_text(written)
    assert describe(folder()).model.max_seq_length == 12


def test_values_that_are_not_finite(folder, tmp_path):
    safetensors.write(str(tmp_path / "model.safetensors"), {"bert.a": np.array([1, np.nan], np.float32)})
    with pytest.raises(UserError, match="model.safetensors: values that are not finite in bert.a"):
        transformers_layout.read_weights(folder())


def test_what_is_not_there(folder, tmp_path):
    with pytest.raises(UserError,
                       match="model.safetensors: no such file: in transformers, model.save_pretrained"):
        transformers_layout.read_weights(folder())
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UserError,
                       match="no vocabulary: neither vocab.txt nor spiece.model nor tokenizer.json is there"):
        describe(str(tmp_path))
