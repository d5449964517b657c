"""One request of either interface: its version and signature, the check of its inputs, its place in a
batch."""
import functools
from typing import Any, List, NamedTuple

import grpc
import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import model_pb2

from serving.service.batching import Batcher, Work
from serving.service.errors import RequestError, invalid
from serving.service.limits import Described, Limits, check_inputs
from serving.service.messages import Arrays
from serving.saved_model import POSITIONS
from serving.service.tf_examples import safe_inputs
from serving.service.models import Models
from serving.service.versions import ServedVersion

DEFAULT_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
CLASSIFY_METHOD = tf.saved_model.signature_constants.CLASSIFY_METHOD_NAME
REGRESS_METHOD = tf.saved_model.signature_constants.REGRESS_METHOD_NAME
PREDICT_METHOD = tf.saved_model.signature_constants.PREDICT_METHOD_NAME
METHODS = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
EXAMPLES_INPUT = tf.saved_model.signature_constants.CLASSIFY_INPUTS    # and REGRESS_INPUTS


class Target(NamedTuple):
    """What a request is for; spec has the name, version and signature in full."""
    version: ServedVersion
    queue: Batcher
    spec: model_pb2.ModelSpec
    signature: Any                             # SignatureDef
    limits: Limits                             # for one request to this version


class Inference:
    """Answers requests for the models. All methods raise RequestError."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits

    def find(self, spec: model_pb2.ModelSpec, method: str,
             unknown: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> Target:
        """The version and signature that `spec` names, for one of the methods; `unknown` is the status of a
        signature that is not there."""
        model = self.models.find(spec)
        version = model.versions.find(spec)
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = signature_for(version.model, name, method, unknown)
        full = model_pb2.ModelSpec(name=spec.name, signature_name=name)
        full.version.value = version.number
        return Target(version, model.queue, full, signature, limits_of(version.model, self.limits))

    def require_room(self, name: str) -> None:
        """Refuses a request when the queue of its model is full, before any of it has been read."""
        queue = self.models.queue_of(name)
        if queue:
            queue.require_room(1)

    async def predict(self, target: Target, inputs: Arrays) -> Arrays:
        """Arrays by output name, for arrays by input name."""
        num_rows = check_arrays(target.signature, inputs, target.limits)
        model, name = target.version.model, target.spec.signature_name
        inputs = safe_inputs(inputs, target.signature, model.example_tensors)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        key = (target.version, name, tuple(inputs), shapes) if is_batchable(target.signature) else object()
        with target.version.in_use():
            return await target.queue.submit(Work(key, lambda joined: model.run(joined, name), inputs,
                                                  num_rows))

    async def of_examples(self, target: Target, examples: List[bytes]) -> Arrays:
        """Arrays by output name, for serialized tf.Examples: classes and scores [examples, labels] of a
        signature for Classify, outputs [examples] or [examples, 1] of one for Regress."""
        return await self.predict(target, {EXAMPLES_INPUT: np.array(examples, dtype=object)})


def signature_for(model: Any, name: str, method: str,
                  unknown: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> Any:
    """The SignatureDef of that name. Raises RequestError when there is none, or it is not for the method;
    Predict may ask those of the others, too."""
    signature = model.signatures.get(name)
    if signature is None:
        raise RequestError(unknown, 'Serving signature name: "%s" not found in signature def, which has %s'
                           % (name, ", ".join(sorted(model.signatures))))
    methods = METHODS if method == PREDICT_METHOD else (method,)
    if signature.method_name not in methods:
        raise invalid("Expected signature method_name to be %s. Was: %s"
                      % (" or ".join(methods), signature.method_name or "none"))
    return signature


def limits_of(model: Any, limits: Limits) -> Limits:
    """`limits`, and no row longer than the model has positions for."""
    positions = model.card.get("config", {}).get(POSITIONS, limits.max_ids_length)
    return limits._replace(max_ids_length=min(positions, limits.max_ids_length))


def check_arrays(signature: Any, inputs: Arrays, limits: Limits) -> int:
    """Checks `inputs` against `signature`; returns their number of rows."""
    num_rows = check_inputs(signature, {name: Described(_enum_of(array.dtype), array.shape)
                                        for name, array in inputs.items()}, limits)
    for name, array in inputs.items():
        if array.dtype == object and max(map(len, array.flat), default=0) > limits.max_text_bytes:
            raise invalid("input %s: a text must have at most %d bytes, got %d"
                          % (name, limits.max_text_bytes, max(map(len, array.flat))))
    return num_rows


def is_batchable(signature: Any) -> bool:
    """Whether rows get the same outputs in any batch: not if an output is as long as the batch's longest
    row."""
    shapes = [info.tensor_shape for info in signature.outputs.values()]
    return all(len(shape.dim) and all(dim.size >= 0 for dim in shape.dim[1:]) for shape in shapes)


@functools.lru_cache(maxsize=64)
def _enum_of(dtype: np.dtype) -> int:
    """TensorFlow's number for NumPy's type."""
    return tf.as_dtype(dtype).as_datatype_enum
