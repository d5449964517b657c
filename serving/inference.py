"""One request, whichever interface it came by: its version and signature, whether its inputs fit, its place in a batch."""
import functools
from typing import Any, List, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import model_pb2

from serving.batching import Batcher, Work
from serving.errors import invalid
from serving.messages import Arrays
from serving.tf_examples import safe_inputs
from serving.versions import ServedVersion, Versions

DEFAULT_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
CLASSIFY_METHOD = tf.saved_model.signature_constants.CLASSIFY_METHOD_NAME


class Limits(NamedTuple):
    """What one request may ask for."""
    max_batch_size: int                        # rows
    max_text_bytes: int                        # of each string


class Target(NamedTuple):
    """What a request is for; spec says name, version and signature in full."""
    version: ServedVersion
    spec: model_pb2.ModelSpec
    signature: Any                             # SignatureDef


class Inference:
    """Answers requests for the versions of one model. All methods raise RequestError."""

    def __init__(self, versions: Versions, batcher: Batcher, limits: Limits) -> None:
        self.versions = versions
        self._batcher, self._limits = batcher, limits

    def find(self, spec: model_pb2.ModelSpec, method: str = "") -> Target:
        """The version and signature that `spec` names; `method`, if given, is what the signature must be made for."""
        version = self.versions.find(spec)
        name = spec.signature_name or DEFAULT_SIGNATURE
        signature = version.model.signatures.get(name)
        if signature is None:
            raise invalid('Serving signature name: "%s" not found in signature def' % name)
        if method and signature.method_name != method:
            raise invalid("Expected signature method_name to be %s. Was: %s" % (method, signature.method_name))
        full = model_pb2.ModelSpec(name=spec.name, signature_name=name)
        full.version.value = version.number
        return Target(version, full, signature)

    def has_room(self) -> bool:
        return self._batcher.has_room(1)

    def require_room(self) -> None:
        """Refuses a request of which nothing has been read yet, when it would find the queue full."""
        self._batcher.require_room(1)

    async def predict(self, target: Target, inputs: Arrays) -> Arrays:
        """Arrays by output name, for arrays by input name."""
        num_rows = check_inputs(target.signature, inputs, self._limits)
        model, name = target.version.model, target.spec.signature_name
        inputs = safe_inputs(inputs, target.signature, model.example_tensors)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        key = (target.version.number, name, tuple(inputs), shapes) if is_batchable(target.signature) else object()
        with target.version.in_use():
            return await self._batcher.submit(Work(key, lambda joined: model.run(joined, name), inputs, num_rows))

    async def classify(self, target: Target, examples: List[bytes]) -> Arrays:
        """classes and scores [examples, labels], for serialized tf.Examples."""
        return await self.predict(target, {"inputs": np.array(examples, dtype=object)})


def check_inputs(signature: Any, inputs: Arrays, limits: Limits) -> int:
    """Whether `inputs` are what `signature` takes; returns how many rows they have."""
    if inputs.keys() != signature.inputs.keys():
        raise invalid("input size does not match signature: got %s, wanted %s"
                      % (", ".join(sorted(inputs)) or "none", ", ".join(sorted(signature.inputs))))
    for name, array in inputs.items():
        info = signature.inputs[name]
        found = _enum_of(array.dtype)
        if found != info.dtype:
            raise invalid("input %s: its type must be %s, got %s" % (name, tf.as_dtype(info.dtype).name, tf.as_dtype(found).name))
        wanted = info.tensor_shape
        if not wanted.unknown_rank and (len(wanted.dim) != array.ndim or any(
                dim.size not in (-1, size) for dim, size in zip(wanted.dim, array.shape))):
            raise invalid("input %s: its shape must be %s, got %s" % (name, tf.TensorShape(wanted), list(array.shape)))
        if found == types_pb2.DT_STRING and max(map(len, array.flat), default=0) > limits.max_text_bytes:
            raise invalid("input %s: a text must have at most %d bytes, got %d"
                          % (name, limits.max_text_bytes, max(map(len, array.flat))))
    (num_rows, *others) = {len(array) for array in inputs.values()}
    if others:
        raise invalid("all inputs must have as many rows as each other, got %s" % ", ".join(
            "%s: %d" % (name, len(array)) for name, array in sorted(inputs.items())))
    if num_rows > limits.max_batch_size:
        raise invalid("a request must have at most %d rows, got %d" % (limits.max_batch_size, num_rows))
    return num_rows


def is_batchable(signature: Any) -> bool:
    """Whether rows get the same outputs in any batch: not so where an output is as long as the batch's longest row."""
    shapes = [info.tensor_shape for info in signature.outputs.values()]
    return all(len(shape.dim) and all(dim.size >= 0 for dim in shape.dim[1:]) for shape in shapes)


@functools.lru_cache(maxsize=64)
def _enum_of(dtype: np.dtype) -> int:
    """TensorFlow's number for NumPy's type."""
    return tf.as_dtype(dtype).as_datatype_enum
