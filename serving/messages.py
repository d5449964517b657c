"""TensorFlow Serving's gRPC messages ↔ arrays by name."""
from typing import Any, Dict, Iterable, List, Mapping

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2

from serving import errors

Arrays = Dict[str, np.ndarray]
MAX_ELEMENTS = 1 << 20                         # of one tensor


def predict_inputs(request: predict_pb2.PredictRequest) -> Arrays:
    """The tensors of a request. Raises RequestError for one that is malformed or larger than MAX_ELEMENTS."""
    return {name: _array(name, tensor) for name, tensor in request.inputs.items()}


def predict_response(spec: Any, outputs: Mapping[str, np.ndarray], wanted: Iterable[str]) -> predict_pb2.PredictResponse:
    """The outputs named by `wanted`, or all of them when it names none. Raises RequestError for a name that is not there."""
    for name in wanted:
        if name not in outputs:
            raise errors.invalid("output tensor alias not found in signature: %s Outputs expected to be in the set {%s}."
                                 % (name, ",".join(sorted(outputs))))
    response = predict_pb2.PredictResponse(model_spec=spec)
    for name in list(wanted) or outputs:
        response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
    return response


def serialized_examples(request: classification_pb2.ClassificationRequest) -> List[bytes]:
    """The examples of a request, each with the features of the context that it lacks. Raises RequestError for none."""
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


def classify_response(spec: Any, outputs: Mapping[str, np.ndarray]) -> classification_pb2.ClassificationResponse:
    """One Classifications for each row of classes and scores [batch, labels]."""
    response = classification_pb2.ClassificationResponse(model_spec=spec)
    for labels, scores in zip(outputs["classes"], outputs["scores"]):
        classes = response.result.classifications.add().classes
        for label, score in zip(labels, scores):
            classes.add(label=label.decode("utf-8"), score=score)
    return response


def _array(name: str, tensor: Any) -> np.ndarray:
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    # Looked at before anything is made of it: one value and a shape are enough to ask for any amount of memory.
    if tensor.tensor_shape.unknown_rank or min(sizes, default=0) < 0 or np.prod(sizes, dtype=float) > MAX_ELEMENTS:
        raise errors.invalid("input %s: its shape %s is not that of at most %d elements" % (name, sizes, MAX_ELEMENTS))
    try:
        return tf.make_ndarray(tensor)
    except KeyError:                           # a type that NumPy has not, of resources say
        raise errors.invalid("input %s: Unsupported tensor type: %d" % (name, tensor.dtype))
    except (TypeError, ValueError) as error:
        raise errors.invalid("input %s: %s" % (name, error))
