import dataclasses
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from exported import LABELS

from estimator.weights import model_folder
from etl.text.pairs import pack_pair
from etl.text.tokenization import load_tokenizer
from serving.exporting import reference, signatures
from serving.saved_model import SavedModel

QUESTIONS = [("北京ABC", "北京"), ("你好", ""), ("", ""), ("京" * 40, "好" * 40), ("京", "手" * 99)]
MILLION = 10 ** 6


@pytest.fixture(scope="module")
def saved(version):
    return SavedModel(version)


@pytest.fixture(scope="module")
def model(finetuned):
    return model_folder.read(finetuned)


def texts(questions):
    texts_a, texts_b = zip(*questions)
    return {"text_a": texts_a, "text_b": texts_b}


def example(text_a, text_b=None):
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode("utf-8")]))
                for name, text in (("text_a", text_a), ("text_b", text_b)) if text is not None}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def wanted_ids(model, questions):
    tokenizer = load_tokenizer(model.tokenizer)
    packed = [pack_pair(tokenizer, text_a, text_b, model.max_seq_length) for text_a, text_b in questions]
    rows = max(len(pair.input_ids) for pair in packed)
    return {"input_ids": [pair.input_ids.tolist() + [0] * (rows - len(pair.input_ids)) for pair in packed],
            "input_mask": [[1] * len(pair.input_ids) + [0] * (rows - len(pair.input_ids)) for pair in packed],
            "segment_ids": [pair.segment_ids.tolist() + [0] * (rows - len(pair.segment_ids))
                            for pair in packed]}


def test_text_ids_and_examples_give_what_the_trained_model_gives(saved, model, finetuned):
    ids = wanted_ids(model, QUESTIONS)
    arrays = {name: np.array(rows, np.int32) for name, rows in ids.items()}
    wanted = reference.outputs(model, tf.train.latest_checkpoint(finetuned), arrays)
    examples = [example(text_a, text_b or None) for text_a, text_b in QUESTIONS]
    for inputs, signature in ((texts(QUESTIONS), "serving_default"), (ids, "predict_ids"),
                              ({"examples": examples}, "examples")):
        found = saved.run(inputs, signature)
        np.testing.assert_allclose(found["probabilities"], wanted, rtol=0, atol=1e-5)
        assert found["logits"].shape == (5, 3)
        assert [label.decode("utf-8") for label in found["label"]] == [
            LABELS[index] for index in wanted.argmax(axis=1)]
    classified = saved.run({"inputs": examples}, "classify")
    np.testing.assert_allclose(classified["scores"], wanted, rtol=0, atol=1e-5)
    assert classified["classes"].tolist() == [[label.encode("utf-8") for label in LABELS]] * 5


def test_a_regression_s_signatures_give_what_the_trained_model_gives(regression_version):
    folder = os.path.join(regression_version, "..", "..", "finetune")
    model, saved = model_folder.read(folder), SavedModel(regression_version)
    ids = wanted_ids(model, QUESTIONS)
    wanted = reference.outputs(model, tf.train.latest_checkpoint(folder),
                               {name: np.array(rows, np.int32) for name, rows in ids.items()})
    examples = [example(text_a, text_b or None) for text_a, text_b in QUESTIONS]
    for inputs, signature, output in (
            (texts(QUESTIONS), "serving_default", "value"), (ids, "predict_ids", "value"),
            ({"examples": examples}, "examples", "value"), ({"inputs": examples}, "regress", "outputs")):
        found = saved.run(inputs, signature)
        assert list(found) == [output] and found[output].shape == (5,)
        np.testing.assert_allclose(found[output], wanted, rtol=0, atol=1e-5)
    assert saved.values([("北京ABC", "北京"), ("你好", None)]) == pytest.approx(wanted[:2].tolist(), abs=1e-5)
    assert "classify" not in saved.signatures


def test_of_two_classes_the_number_is_that_of_the_second(model):
    two = dataclasses.replace(model, labels=("否", "是"))
    with tf.Graph().as_default(), tf.Session() as session:
        answer = signatures.Answer(tf.constant([[.25, .75], [.5, .5]]), None, None)
        found = signatures._for_examples(two, tf.placeholder(tf.string, [None]), answer)
        assert list(found) == ["classify", "regress"]
        assert found["regress"].method_name == "tensorflow/serving/regress"
        assert session.run(found["regress"].outputs["outputs"].name).tolist() == [.75, .5]
        assert found["regress"].inputs["inputs"].name == found["classify"].inputs["inputs"].name
        three = signatures._for_examples(model, tf.placeholder(tf.string, [None]), answer)
        assert list(three) == ["classify"]


def test_encode_gives_what_python_gives(saved, model):
    found = saved.run(texts(QUESTIONS), "encode")
    assert {name: rows.tolist() for name, rows in found.items()} == wanted_ids(model, QUESTIONS)


def test_embed_does_not_depend_on_the_batch(saved):
    together = saved.run(texts(QUESTIONS), "embed")
    for row, question in enumerate(QUESTIONS):
        alone = saved.run(texts([question]), "embed")
        for name in ("pooled", "mean"):
            assert together[name].shape == (5, 16)
            np.testing.assert_allclose(together[name][row], alone[name][0], rtol=0, atol=1e-5)


def test_no_row_at_all(saved):
    for inputs, signature in ((texts([("", "")]), "serving_default"),
                              ({"inputs": [example("x")]}, "classify"),
                              (texts([("", "")]), "embed"), (texts([("", "")]), "encode")):
        one = saved.run(inputs, signature)
        none = saved.run({name: value[:0] for name, value in inputs.items()}, signature)
        assert {name: (0,) + value.shape[1:] for name, value in one.items()} == {
            name: value.shape for name, value in none.items()}
    assert saved.run({name: np.zeros([0, 5]) for name in signatures.IDS},
                     "predict_ids")["label"].shape == (0,)


def test_any_bytes_have_an_answer(saved):
    bad = [b"\xff\xfe", b"\xe5\x8c", b"\xf0\x9f\x91a", b"\x00", "x" * MILLION, "字" * MILLION, "京"]
    found = saved.run({"text_a": bad, "text_b": bad[::-1]})
    assert np.isfinite(found["probabilities"]).all()
    without = saved.run({"text_a": ["", "a"], "text_b": [""] * 2})["probabilities"]
    np.testing.assert_allclose(saved.run({"text_a": [b"\xff\xfe", b"\xf0\x9f\x91a"],
                                          "text_b": [""] * 2})["probabilities"], without, rtol=0, atol=1e-6)


def test_rows_of_nothing_but_padding_disturb_no_other(saved):
    ids = {"input_ids": [[2, 5, 3], [0, 0, 0]], "input_mask": [[1, 1, 1], [0, 0, 0]],
           "segment_ids": [[0] * 3] * 2}
    alone = saved.run({name: rows[:1] for name, rows in ids.items()}, "predict_ids")["probabilities"]
    found = saved.run(ids, "predict_ids")["probabilities"]
    np.testing.assert_allclose(found[:1], alone, rtol=0, atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("inputs, signature, message", [
    ({"text_a": ["x"], "text_b": []}, "serving_default", "the same number of elements"),
    ({"inputs": [b"\x01"]}, "classify", "Could not parse example"),
    ({"inputs": [b""]}, "classify", "text_a"),
    ({"input_ids": [[99999]], "input_mask": [[1]], "segment_ids": [[0]]}, "predict_ids",
     "not in \\[0, 35\\)"),
    ({"input_ids": [[5]], "input_mask": [[1]], "segment_ids": [[2]]}, "predict_ids", "not in \\[0, 2\\)"),
    ({name: [[1] * 49] for name in signatures.IDS}, "predict_ids",
     "exceeds max_position_embeddings, which is 48"),
])
def test_what_cannot_be_answered_is_an_error_of_the_request(saved, inputs, signature, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        saved.run(inputs, signature)
    assert len(saved.run(texts(QUESTIONS))["label"]) == 5


def test_without_a_tokenizer_there_are_ids_alone(model):
    with tf.Graph().as_default():
        assert list(signatures.build(model, None)) == ["predict_ids"]
