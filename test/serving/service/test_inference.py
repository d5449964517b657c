import os

import grpc
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from served import make_inference, run
from tensorflow_serving.apis import model_pb2

from serving.service.errors import RequestError
from serving.service.inference import CLASSIFY_METHOD, PREDICT_METHOD, check_arrays, is_batchable
from serving.service.limits import Limits

LIMITS = Limits(max_batch_size=2, max_text_bytes=6, max_ids_length=4, max_fields=10)


def texts(*values):
    return np.array(values, dtype=object)


def ids(*rows):
    return np.array(rows, np.int32)


@pytest.fixture
def signatures(saved_model):
    return saved_model.signatures


def test_inputs_that_fit(signatures):
    pairs = {"text_a": texts(b"x" * 6, b""), "text_b": texts(b"", b"")}
    assert check_arrays(signatures["serving_default"], pairs, LIMITS) == 2
    assert check_arrays(signatures["predict_ids"], {name: ids([2, 3])
                                                    for name in ("input_ids", "input_mask", "segment_ids")},
                        LIMITS) == 1
    assert check_arrays(signatures["classify"], {"inputs": texts()}, LIMITS) == 0


@pytest.mark.parametrize("inputs, message", [
    ({}, "input size does not match signature: got none, wanted text_a, text_b"),
    ({"text_a": texts(b"x"), "text_b": ids([1])}, "input text_b: its type must be string, got int32"),
    ({"text_a": texts(b"x"), "text_b": texts([b"x"])},
     r"input text_b: its shape must be \(\?,\), got \[1, 1\]"),
    ({"text_a": texts(b"x"), "text_b": np.array(b"x", dtype=object)}, r"shape must be \(\?,\), got \[\]"),
    ({"text_a": texts(b"x"), "text_b": texts(b"x" * 7)},
     "input text_b: a text must have at most 6 bytes, got 7"),
    ({"text_a": texts(b"x"), "text_b": texts(b"", b"")}, "the same number of rows, got text_a: 1, text_b: 2"),
    ({"text_a": texts(*[b"x"] * 2), "text_b": texts(*[b""] * 3)}, "at most 2 rows, got 3"),
    ({"text_a": texts(*[b""] * 3), "text_b": texts(*[b""] * 3)}, "at most 2 rows, got 3"),
])
def test_inputs_that_do_not(signatures, inputs, message):
    with pytest.raises(RequestError, match=message):
        check_arrays(signatures["serving_default"], inputs, LIMITS)


def test_what_runs_together(signatures):
    assert {name for name in signatures if is_batchable(signatures[name])} == {
        "serving_default", "predict_ids", "classify", "examples", "embed"}


def test_signatures_by_name_and_method(saved_model, version):
    async def find():
        inference = await make_inference(saved_model, os.path.dirname(version))
        target = inference.find(model_pb2.ModelSpec(name="albert"), PREDICT_METHOD)
        assert (target.spec.signature_name, target.spec.version.value) == ("serving_default", 7)
        assert inference.find(model_pb2.ModelSpec(name="albert", signature_name="classify"), CLASSIFY_METHOD)
        assert inference.find(model_pb2.ModelSpec(name="albert", signature_name="classify"), PREDICT_METHOD)
        unknown = model_pb2.ModelSpec(name="albert", signature_name="x")
        for given, code in (((), "INVALID_ARGUMENT"), ((grpc.StatusCode.FAILED_PRECONDITION,),
                                                       "FAILED_PRECONDITION")):
            with pytest.raises(RequestError,
                               match='Serving signature name: "x" not found in signature def, wh') as failed:
                inference.find(unknown, PREDICT_METHOD, *given)
            assert failed.value.code.name == code
        with pytest.raises(RequestError,
                           match="to be tensorflow/serving/classify. Was: tensorflow/serving/predict"):
            inference.find(model_pb2.ModelSpec(name="albert"), CLASSIFY_METHOD)
    run(find())


def test_predict_and_classify_agree(saved_model, version):
    async def ask():
        inference = await make_inference(saved_model, os.path.dirname(version))
        target = inference.find(model_pb2.ModelSpec(name="albert"), PREDICT_METHOD)
        found = await inference.predict(target, {"text_a": texts("北京".encode()), "text_b": texts(b"")})
        example = tf.train.Example()
        example.features.feature["text_a"].bytes_list.value.append("北京".encode())
        classified = await inference.of_examples(
            inference.find(model_pb2.ModelSpec(name="albert", signature_name="classify"), CLASSIFY_METHOD),
            [example.SerializeToString()])
        np.testing.assert_allclose(classified["scores"], found["probabilities"], rtol=1e-5)
    run(ask())
