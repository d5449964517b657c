"""TensorFlow Serving's gRPC messages ↔ arrays by name."""
from typing import Any, Dict, Iterable, List, Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2

from serving.service import errors, limits
from serving.service.limits import Described, Limits

Arrays = Dict[str, np.ndarray]


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
        response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
    return response


def output_names(wanted: Iterable[str], outputs: Iterable[str]) -> List[str]:
    """The names in `wanted`, each once, or all outputs when it is empty. Raises RequestError for a name that
    is not in `outputs`."""
    chosen = dict.fromkeys(wanted)
    for name in chosen:
        if name not in outputs:
            raise errors.invalid("output tensor alias not found in signature: %s Outputs expected to be in "
                                 "the set {%s}." % (name[:200], ",".join(sorted(outputs))))
    return list(chosen or outputs)


def check_examples(request: classification_pb2.ClassificationRequest, most: Limits) -> None:
    """Checks that the examples of a request, each with its context, are within the limits, without building
    them."""
    kind = request.input.WhichOneof("kind")
    examples = getattr(request.input, kind).examples if kind else ()
    context = request.input.example_list_with_context.context     # empty for the other kind
    limits.check_examples(len(examples), len(context.features.feature), context.ByteSize(), most)


def serialized_examples(request: classification_pb2.ClassificationRequest) -> List[bytes]:
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
    """One Classifications per row of classes and scores [batch, labels]."""
    response = classification_pb2.ClassificationResponse(model_spec=spec)
    for labels, scores in zip(outputs["classes"], outputs["scores"]):
        classes = response.result.classifications.add().classes
        for label, score in zip(labels, scores):
            classes.add(label=label.decode("utf-8"), score=score)
    return response


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
