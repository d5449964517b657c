import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from served import LIMITS
from tensorflow_serving.apis import classification_pb2, model_pb2, predict_pb2

from serving.service import messages
from serving.service.errors import RequestError

SPEC = model_pb2.ModelSpec(name="albert", signature_name="x")


def example(**features):
    made = tf.train.Example()
    for name, text in features.items():
        made.features.feature[name].bytes_list.value.append(text.encode())
    return made


def test_tensors_of_a_predict_request():
    request = predict_pb2.PredictRequest()
    request.inputs["text_a"].CopyFrom(tf.make_tensor_proto(["北京".encode(), b"\xff"]))
    request.inputs["ids"].CopyFrom(tf.make_tensor_proto([[1, 2]], tf.int32))
    found = messages.predict_inputs(request)
    assert found["text_a"].tolist() == ["北京".encode(), b"\xff"]
    assert found["ids"].tolist() == [[1, 2]] and found["ids"].dtype == np.int32


@pytest.mark.parametrize("tensor, message", [
    ({"dim": [{"size": 10 ** 12}]}, "must have at most 1048576 elements"),
    ({"dim": [{"size": 2 ** 40}, {"size": 2 ** 40}]}, "must have at most"),
    ({"dim": [{"size": -1}]}, "must have at most"),
    ({"unknown_rank": True}, "its shape must be known"),
    ({"dim": [{"size": 2 ** 62}] * 254}, "must have at most"),
    ({"dim": [{"size": 0}, {"size": 2 ** 40}]}, "must have at most"),
])
def test_impossible_shapes_take_no_memory(tensor, message):
    request = predict_pb2.PredictRequest()
    request.inputs["x"].MergeFrom(tf.make_tensor_proto([7], tf.int32))
    request.inputs["x"].tensor_shape.CopyFrom(tf.TensorShape([]).as_proto())
    for dim in tensor.get("dim", []):
        request.inputs["x"].tensor_shape.dim.add(size=dim["size"])
    request.inputs["x"].tensor_shape.unknown_rank = tensor.get("unknown_rank", False)
    with pytest.raises(RequestError, match=message):
        messages.predict_inputs(request)


@pytest.mark.parametrize("dtype", [tf.resource.as_datatype_enum, 23, 99])
def test_types_that_are_none(dtype):
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([7], tf.int32))
    request.inputs["x"].dtype = dtype
    with pytest.raises(RequestError, match="input x: "):
        messages.predict_inputs(request)


def test_content_that_does_not_fill_the_shape():
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1, 2, 3], [4, 5, 6]], tf.int32))
    request.inputs["x"].tensor_content = b"123"
    with pytest.raises(RequestError, match="input x: "):
        messages.predict_inputs(request)


def test_more_values_than_the_shape_has_are_not_read():
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([7, 8, 9], tf.int32))
    request.inputs["x"].ClearField("tensor_content")
    request.inputs["x"].string_val.extend([b""] * 4)
    with pytest.raises(RequestError, match="input x: its shape has 3 elements, got 4 values"):
        messages.predict_inputs(request)


@pytest.mark.parametrize("shape", [[1], [2, 3], []])
def test_texts_without_values(shape):
    request = predict_pb2.PredictRequest()
    request.inputs["x"].dtype = tf.string.as_datatype_enum
    request.inputs["x"].tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    with pytest.raises(RequestError, match="input x: its shape has %d elements, got no string_val"
                       % np.prod(shape, dtype=int)):
        messages.predict_inputs(request)


def test_what_a_tensor_leaves_out_is_as_tensorflow_has_it():
    request = predict_pb2.PredictRequest()
    request.inputs["zeros"].dtype = tf.int32.as_datatype_enum
    request.inputs["zeros"].tensor_shape.dim.add(size=2)
    request.inputs["texts"].CopyFrom(tf.make_tensor_proto(["x"], shape=[3]))
    request.inputs["none"].CopyFrom(tf.make_tensor_proto([], tf.string))
    found = messages.predict_inputs(request)
    assert (found["zeros"].tolist() == [0, 0] and found["texts"].tolist() == [b"x"] * 3
            and found["none"].tolist() == [])


def test_types_and_shapes_of_tensors_that_are_not_built():
    request = predict_pb2.PredictRequest()
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[7, 8, 9]], tf.int32))
    assert messages.described_inputs(request) == {"x": (tf.int32.as_datatype_enum, [1, 3])}


def test_outputs_are_given_as_asked_for():
    assert messages.output_names(["b", "a"], {"a", "b", "c"}) == ["b", "a"]
    assert sorted(messages.output_names([], {"a", "b"})) == ["a", "b"]
    with pytest.raises(RequestError, match="duplicate output tensor alias: b"):
        messages.output_names(["b", "a", "b"], {"a", "b", "c"})


@pytest.mark.parametrize("array, field, values", [
    (np.array([[0.25, 0.75], [0.5, -1]], np.float32), "float_val", [0.25, 0.75, 0.5, -1]),
    (np.array(2.5, np.float32), "float_val", [2.5]), (np.array([1.5, 2.5]), "double_val", [1.5, 2.5]),
    (np.array([1, 2], np.float16), "half_val", [0x3c00, 0x4000]),
    (np.array([1, 2], tf.bfloat16.as_numpy_dtype), "half_val", [0x3f80, 0x4000]),
    (np.array([[1], [-2]], np.int32), "int_val", [1, -2]),
    (np.array([3, 255], np.uint8), "int_val", [3, 255]),
    (np.array([3, -4], tf.qint8.as_numpy_dtype), "int_val", [3, -4]),
    (np.array([2 ** 62, -1]), "int64_val", [2 ** 62, -1]),
    (np.array([7, 8], np.uint32), "uint32_val", [7, 8]),
    (np.array([2 ** 63, 8], np.uint64), "uint64_val", [2 ** 63, 8]),
    (np.array([True, False]), "bool_val", [True, False]),
    (np.array([1 + 2j, 3], np.complex64), "scomplex_val", [1, 2, 3, 0]),
    (np.array([1 + 2j, 3], np.complex128), "dcomplex_val", [1, 2, 3, 0]),
    (np.array([b"1", "北".encode()], dtype=object), "string_val", [b"1", "北".encode()]),
    (np.zeros([0, 3], np.float32), "float_val", []),
    (np.array([[1, 2], [3, 4]], np.float32).T, "float_val", [1, 3, 2, 4]),
], ids=lambda value: value.dtype.name if isinstance(value, np.ndarray) else "")
def test_values_stand_in_the_field_of_their_type(array, field, values):
    tensor = messages.predict_response(SPEC, {"x": array}, ()).outputs["x"]
    assert list(getattr(tensor, field)) == values and not tensor.tensor_content
    if field in ("uint32_val", "uint64_val"):      # which 1.15's Python does not read
        return
    made = tf.make_ndarray(tensor)
    assert (made.shape, made.dtype) == (array.shape, array.dtype) and made.tolist() == array.tolist()


@pytest.mark.parametrize("rows, context, message", [
    (9, {}, "at most 8 rows, got 9"),
    (8, {str(number): "" for number in range(80)}, "at most 100 fields"),
    (1, {"x": "x" * 1000}, "context: an example must have at most 1000 bytes"),
])
def test_examples_are_counted_before_a_context_is_copied_to_them(rows, context, message):
    request = classification_pb2.ClassificationRequest()
    request.input.example_list_with_context.context.CopyFrom(example(**context))
    request.input.example_list_with_context.examples.extend([example()] * rows)
    with pytest.raises(RequestError, match=message):
        messages.check_examples(request, LIMITS._replace(max_fields=100))


def test_predict_response_with_all_outputs_or_those_wanted():
    outputs = {"label": np.array([b"1"], dtype=object), "probabilities": np.array([[0.25, 0.75]], np.float32)}
    found = messages.predict_response(SPEC, outputs, ())
    assert found.model_spec == SPEC
    assert tf.make_ndarray(found.outputs["probabilities"]).tolist() == [[0.25, 0.75]]
    assert sorted(found.outputs) == ["label", "probabilities"]
    assert sorted(messages.predict_response(SPEC, outputs, ["label"]).outputs) == ["label"]
    with pytest.raises(RequestError,
                       match="alias not found in signature: x Outputs expected to be in the set {label,prob"):
        messages.predict_response(SPEC, outputs, ["x"])


def test_examples_with_and_without_context():
    request = classification_pb2.ClassificationRequest()
    request.input.example_list.examples.extend([example(text_a="北"), example(text_a="京")])
    found = [tf.train.Example.FromString(item) for item in messages.serialized_examples(request)]
    assert found == [example(text_a="北"), example(text_a="京")]
    request.input.example_list_with_context.context.CopyFrom(example(text_b="好", text_a="x"))
    request.input.example_list_with_context.examples.extend([example(text_a="北")])
    assert [tf.train.Example.FromString(item) for item in messages.serialized_examples(request)] == [
        example(text_a="北", text_b="好")]


def test_no_examples():
    with pytest.raises(RequestError, match="Input is empty"):
        messages.serialized_examples(classification_pb2.ClassificationRequest())


def test_regress_response():
    for outputs in ([0.25, 1.5], [[0.25], [1.5]]):
        found = messages.regress_response(SPEC, {"outputs": np.array(outputs, np.float32)})
        assert [item.value for item in found.result.regressions] == [0.25, 1.5] and found.model_spec == SPEC


def test_a_signature_for_classify_may_have_one_of_both_outputs():
    scores = {"scores": np.array([[0.25, 0.75]], np.float32)}
    (found,) = messages.classify_response(SPEC, scores).result.classifications
    assert [(item.label, item.score) for item in found.classes] == [("", 0.25), ("", 0.75)]
    (found,) = messages.classify_response(
        SPEC, {"classes": np.array([[b"a", b"\xff"]], dtype=object)}).result.classifications
    assert [(item.label, item.score) for item in found.classes] == [("a", 0), ("\ufffd", 0)]


def test_a_result_for_each_task():
    found = messages.multi_inference_response([
        (SPEC, True, {"outputs": np.array([0.25], np.float32)}),
        (SPEC, False, {"scores": np.array([[0.5]], np.float32)})]).results
    assert [item.value for item in found[0].regression_result.regressions] == [0.25]
    assert found[1].classification_result.classifications[0].classes[0].score == 0.5
    assert [result.WhichOneof("result") for result in found] == ["regression_result", "classification_result"]
    assert found[0].model_spec == SPEC


def test_classify_response():
    outputs = {"classes": np.array([["相同".encode(), b"no"]], dtype=object),
               "scores": np.array([[0.25, 0.75]], np.float32)}
    (found,) = messages.classify_response(SPEC, outputs).result.classifications
    assert [(item.label, item.score) for item in found.classes] == [("相同", 0.25), ("no", 0.75)]
