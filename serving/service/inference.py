"""One request of either interface: its version and signature, the check of its inputs, its place in a
batch."""
import functools
from typing import Any, List, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import model_pb2

from serving.service.batching import Batcher, Work
from serving.service.errors import invalid
from serving.service.limits import Described, Limits, check_inputs
from serving.service.messages import Arrays
from serving.saved_model import POSITIONS
from serving.service.tf_examples import safe_inputs
from serving.service.versions import ServedVersion, Versions

DEFAULT_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
CLASSIFY_METHOD = tf.saved_model.signature_constants.CLASSIFY_METHOD_NAME


class Target(NamedTuple):
    """What a request is for; spec has the name, version and signature in full."""
    version: ServedVersion
    spec: model_pb2.ModelSpec
    signature: Any                             # SignatureDef
    limits: Limits                             # for one request to this version


class Inference:
    """Answers requests for the versions of one model. All methods raise RequestError."""

    def __init__(self, versions: Versions, batcher: Batcher, limits: Limits) -> None:
        self.versions = versions
        self._batcher, self.limits = batcher, limits

    def find(self, spec: model_pb2.ModelSpec, method: str = "") -> Target:
        """The version and signature that `spec` names; `method`, if given, must be the signature's
        method_name."""
        version = self.versions.find(spec)
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = version.model.signatures.get(name)
        if signature is None:
            raise invalid('Serving signature name: "%s" not found in signature def' % name)
        if method and signature.method_name != method:
            raise invalid("Expected signature method_name to be %s. Was: %s"
                          % (method, signature.method_name))
        full = model_pb2.ModelSpec(name=spec.name, signature_name=name)
        full.version.value = version.number
        return Target(version, full, signature, limits_of(version.model, self.limits))

    def has_room(self) -> bool:
        return self._batcher.has_room(1)

    def require_room(self) -> None:
        """Refuses a request when the queue is full, before any of it has been read."""
        self._batcher.require_room(1)

    async def predict(self, target: Target, inputs: Arrays) -> Arrays:
        """Arrays by output name, for arrays by input name."""
        num_rows = check_arrays(target.signature, inputs, target.limits)
        model, name = target.version.model, target.spec.signature_name
        inputs = safe_inputs(inputs, target.signature, model.example_tensors)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        key = (target.version.number, name, tuple(inputs),
               shapes) if is_batchable(target.signature) else object()
        with target.version.in_use():
            return await self._batcher.submit(Work(key, lambda joined: model.run(joined, name), inputs,
                                                   num_rows))

    async def classify(self, target: Target, examples: List[bytes]) -> Arrays:
        """classes and scores [examples, labels], for serialized tf.Examples."""
        return await self.predict(target, {"inputs": np.array(examples, dtype=object)})


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
