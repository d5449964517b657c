import os

import examples_model
import grpc
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from examples_model import CLASSIFY, REGRESS
from served import make_inference, run
from tensorflow_serving.apis import inference_pb2, model_pb2

from serving.service.errors import RequestError
from serving.service.inference import (CLASSIFY_METHOD, PREDICT_METHOD, check_answer, check_arrays,
                                       is_batchable, signatures_for)
from serving.saved_model import SavedModel
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


def task(signature, method, model="albert", **spec):
    made = inference_pb2.InferenceTask(method_name=method)
    made.model_spec.CopyFrom(model_pb2.ModelSpec(name=model, signature_name=signature, **spec))
    return made


def test_tasks_are_computed_at_once(examples_version):
    class Counting(SavedModel):
        counts = []

        def run_joined(self, inputs, *signatures):
            self.counts.append(len(inputs["inputs"]))
            return super().run_joined(inputs, *signatures)

    async def ask():
        inference = await make_inference(Counting(examples_version), os.path.dirname(examples_version))
        first = task("regress", REGRESS)
        first.model_spec.version.value = 5
        targets = inference.find_tasks([first, task("scores", CLASSIFY)])
        assert [(target.spec.signature_name, target.spec.version.value) for target in targets] == [
            ("regress", 5), ("scores", 5)]
        numbers, classes = await inference.of_tasks(targets, [examples_model.example(x) for x in (3, 5)])
        assert numbers["outputs"].tolist() == [1.5, 2.5] and classes["scores"].tolist() == [[3, 6], [5, 10]]
        assert Counting.counts == [2]
        (alone,) = await inference.of_tasks(inference.find_tasks([task("column", REGRESS)]),
                                            [examples_model.example(3)])
        assert alone["outputs"].tolist() == [[1.5]] and Counting.counts == [2]
        first.model_spec.version.value = 4
        with pytest.raises(RequestError, match=r"Specific\(albert, 4\)"):
            inference.find_tasks([first])
    run(ask())


@pytest.mark.parametrize("tasks, code, message", [
    ([task("regress", REGRESS), task("regress", REGRESS)], "INVALID_ARGUMENT",
     "Duplicate evaluation of signature: regress"),
    ([task("regress", REGRESS), task("classify", CLASSIFY, "other")], "INVALID_ARGUMENT",
     "must access the same model name, got albert and other"),
    ([task("regress", REGRESS), task("classify", CLASSIFY, "")], "INVALID_ARGUMENT", "got albert and none"),
    ([task("nothing", REGRESS)], "INVALID_ARGUMENT", 'Serving signature name: "nothing" not found'),
    ([task("", REGRESS)], "INVALID_ARGUMENT", 'Serving signature name: "serving_default" not found'),
    ([task("regress", CLASSIFY)], "INVALID_ARGUMENT",
     "method_name to be tensorflow/serving/classify. Was: tensorflow/serving/regress"),
    ([task("regress", "tensorflow/serving/predict")], "UNIMPLEMENTED",
     "Unsupported signature method_name: tensorflow/serving/predict; wanted "),
    ([task("regress", "")], "UNIMPLEMENTED", "Unsupported signature method_name: none"),
    ([task("regress", REGRESS), task("of_other", REGRESS)], "INVALID_ARGUMENT",
     "Input tensor must be the same for all Signatures: that of of_other is not"),
    ([task("unnamed", REGRESS)], "FAILED_PRECONDITION", "No outputs found in the outputs of signature unnam"),
])
def test_tasks_that_are_none(examples_version, tasks, code, message):
    with pytest.raises(RequestError, match=message) as refused:
        signatures_for(SavedModel(examples_version), tasks)
    assert refused.value.code.name == code


def test_no_tasks_at_all(examples_version):
    async def ask():
        inference = await make_inference(SavedModel(examples_version), os.path.dirname(examples_version))
        with pytest.raises(RequestError, match="Missing ModelSpec"):
            inference.find_tasks([])
        targets = inference.find_tasks([task("wide", REGRESS)])
        with pytest.raises(RequestError, match="either .batch_size. or .batch_size, 1. but got .1, 2."):
            await inference.of_tasks(targets, [examples_model.example(3)])
    run(ask())


@pytest.mark.parametrize("method, outputs, message", [
    (CLASSIFY, {"scores": np.zeros([2])}, r"scores Tensor shape to be \[batch_size num_classes\] but got \["),
    (CLASSIFY, {"classes": np.zeros([2, 2])}, "Expected classes Tensor of DT_STRING. Got: float64"),
    (CLASSIFY, {"scores": texts([b"x"])}, "Expected scores Tensor of DT_FLOAT. Got: object"),
    (REGRESS, {"outputs": np.array(1.0)}, r"but got \[\]")])
def test_outputs_that_are_no_answer(method, outputs, message):
    with pytest.raises(RequestError, match=message):
        check_answer(method, outputs)
