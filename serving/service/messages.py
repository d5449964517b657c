"""TensorFlow Serving's gRPC messages ↔ arrays by name."""
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Tuple, Union

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import classification_pb2, inference_pb2, predict_pb2, regression_pb2

from serving.service import errors, limits
from serving.service.limits import Described, Limits

Arrays = Dict[str, np.ndarray]
RequestOfExamples = Union[classification_pb2.ClassificationRequest, regression_pb2.RegressionRequest,
                          inference_pb2.MultiInferenceRequest]

# The field of a TensorProto that holds the values of a type, and as what they stand there.
_FIELDS = {
    tf.float32: ("float_val", np.float32), tf.float64: ("double_val", np.float64),
    tf.half: ("half_val", np.uint16), tf.bfloat16: ("half_val", np.uint16),            # their bits
    tf.int32: ("int_val", np.int32), tf.int16: ("int_val", np.int16), tf.int8: ("int_val", np.int8),
    tf.uint16: ("int_val", np.uint16), tf.uint8: ("int_val", np.uint8),
    tf.qint32: ("int_val", np.int32), tf.qint16: ("int_val", np.int16), tf.qint8: ("int_val", np.int8),
    tf.quint16: ("int_val", np.uint16), tf.quint8: ("int_val", np.uint8),
    tf.int64: ("int64_val", np.int64), tf.uint32: ("uint32_val", np.uint32),
    tf.uint64: ("uint64_val", np.uint64), tf.bool: ("bool_val", np.bool_),
    tf.complex64: ("scomplex_val", np.float32), tf.complex128: ("dcomplex_val", np.float64),  # in pairs
    tf.string: ("string_val", object)}


def described_inputs(request: predict_pb2.PredictRequest) -> Dict[str, Described]:
    """Types and shapes of a request's tensors. Raises RequestError for an invalid shape."""
    return {name: _described(name, tensor) for name, tensor in request.inputs.items()}


def predict_inputs(request: predict_pb2.PredictRequest) -> Arrays:
    """The tensors of a request. Raises RequestError for one that is malformed or has too many elements."""
    return {name: _array(name, tensor) for name, tensor in request.inputs.items()}


def predict_response(spec: Any, outputs: Mapping[str, np.ndarray],
                     wanted: Iterable[str]) -> predict_pb2.PredictResponse:
    """The outputs named by `wanted`, or all of them when it is empty. Raises RequestError for an unknown
    name."""
    names = output_names(wanted, outputs)
    response = predict_pb2.PredictResponse(model_spec=spec)
    for name in names:
        _fill(response.outputs[name], outputs[name])
    return response


def output_names(wanted: Iterable[str], outputs: Iterable[str]) -> List[str]:
    """The names in `wanted`, or all outputs when it is empty. Raises RequestError for a name that is not in
    `outputs`, or occurs twice."""
    chosen: Dict[str, None] = {}
    for name in wanted:
        if name not in outputs:
            raise errors.invalid("output tensor alias not found in signature: %s Outputs expected to be in "
                                 "the set {%s}." % (name[:200], ",".join(sorted(outputs))))
        if name in chosen:
            raise errors.invalid("duplicate output tensor alias: %s" % name)
        chosen[name] = None
    return list(chosen or outputs)


def check_examples(request: RequestOfExamples, most: Limits) -> None:
    """Checks that the examples of a request, each with its context, are within the limits, without building
    them."""
    kind = request.input.WhichOneof("kind")
    examples = getattr(request.input, kind).examples if kind else ()
    context = request.input.example_list_with_context.context     # empty for the other kind
    limits.check_examples(len(examples), len(context.features.feature), context.ByteSize(), most)


def serialized_examples(request: RequestOfExamples) -> List[bytes]:
    """The examples of a request, each completed with features of the context. Raises RequestError if there
    are none."""
    kind = request.input.WhichOneof("kind")
    examples = getattr(request.input, kind).examples if kind else ()
    if not examples:
        raise errors.invalid("Input is empty.")
    if kind == "example_list":
        return [example.SerializeToString() for example in examples]
    context = request.input.example_list_with_context.context
    return [merged(context, example).SerializeToString() for example in examples]


def merged(context: tf.train.Example, example: tf.train.Example) -> tf.train.Example:
    """The features of both; those of the example win."""
    whole = tf.train.Example()
    for part in (context, example):
        for name, feature in part.features.feature.items():
            whole.features.feature[name].CopyFrom(feature)
    return whole


def classify_response(spec: Any,
                      outputs: Mapping[str, np.ndarray]) -> classification_pb2.ClassificationResponse:
    """One Classifications per row of `classes_of` the outputs."""
    response = classification_pb2.ClassificationResponse(model_spec=spec)
    _fill_classes(response.result, outputs)
    return response


def classes_of(outputs: Mapping[str, np.ndarray]) -> Iterator[Iterator[Tuple[bytes, float]]]:
    """Label and score of each class, for each row of classes and scores [batch, labels]. A signature may have
    one of both: its labels are then empty, or its scores 0."""
    either = outputs.get("scores", outputs.get("classes"))
    labels = outputs.get("classes", np.full(np.shape(either), b"", object))
    scores = outputs.get("scores", np.zeros(np.shape(either), np.float32))
    return (zip(*row) for row in zip(labels, scores))


def regress_response(spec: Any, outputs: Mapping[str, np.ndarray]) -> regression_pb2.RegressionResponse:
    """One Regression for each row of outputs, floats [batch] or [batch, 1]."""
    response = regression_pb2.RegressionResponse(model_spec=spec)
    _fill_numbers(response.result, outputs)
    return response


def multi_inference_response(answers: Iterable[Tuple[Any, bool, Mapping[str, np.ndarray]]]
                             ) -> inference_pb2.MultiInferenceResponse:
    """One InferenceResult for each spec and its outputs: numbers if the bool says so, else classes."""
    response = inference_pb2.MultiInferenceResponse()
    for spec, are_numbers, outputs in answers:
        result = response.results.add(model_spec=spec)
        if are_numbers:
            _fill_numbers(result.regression_result, outputs)
        else:
            _fill_classes(result.classification_result, outputs)
    return response


def _fill_classes(result: classification_pb2.ClassificationResult, outputs: Mapping[str, np.ndarray]) -> None:
    for row in classes_of(outputs):
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label.decode("utf-8", "replace"), score=score)


def _fill_numbers(result: regression_pb2.RegressionResult, outputs: Mapping[str, np.ndarray]) -> None:
    for value in outputs["outputs"].ravel().tolist():
        result.regressions.add(value=value)


def _fill(tensor: Any, array: np.ndarray) -> None:
    """Fills a TensorProto as TensorFlow Serving does, whose clients read the field of the type:
    tf.make_tensor_proto puts more than one number into tensor_content."""
    dtype = tf.as_dtype(array.dtype)
    field, kind = _FIELDS[dtype]
    tensor.dtype = dtype.as_datatype_enum
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    values = np.ascontiguousarray(array).ravel()
    getattr(tensor, field).extend((values if kind is object else values.view(kind)).tolist())


def _described(name: str, tensor: Any) -> Described:
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank:
        raise errors.invalid("input %s: its shape must be known" % name)
    limits.check_elements(name, sizes)
    return Described(tensor.dtype, sizes)


def _array(name: str, tensor: Any) -> np.ndarray:
    elements = int(np.prod(_described(name, tensor).shape, dtype=int))
    for field, values in tensor.ListFields():  # values of other types take as long to read
        parts = 2 if "complex" in field.name else 1
        if field.name.endswith("_val") and len(values) > max(elements, 1) * parts:
            raise errors.invalid("input %s: its shape has %d elements, got %d values"
                                 % (name, elements, len(values)))
    if (tensor.dtype == tf.string.as_datatype_enum and elements and not tensor.string_val
        and not tensor.tensor_content):
        # Numbers without values are zeros in TensorFlow; strings would become objects that are not bytes.
        raise errors.invalid("input %s: its shape has %d elements, got no string_val" % (name, elements))
    try:
        return tf.make_ndarray(tensor)
    except KeyError:                           # a type that NumPy lacks, such as resources
        raise errors.invalid("input %s: Unsupported tensor type: %d" % (name, tensor.dtype))
    except (TypeError, ValueError) as error:
        raise errors.invalid("input %s: %s" % (name, error))
