"""One request of either interface: its version and signature, the check of its inputs, its place in a
batch."""
import functools
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import grpc
import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis.inference_pb2 import InferenceTask

from serving.service.batching import Batcher, Work
from serving.service.errors import RequestError, invalid
from serving.service.limits import Described, Limits, check_inputs
from serving.service.messages import Arrays
from serving.saved_model import POSITIONS
from serving.service.tf_examples import safe_inputs
from serving.service.models import Model, Models
from serving.service.versions import ServedVersion

DEFAULT_SIGNATURE = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
CLASSIFY_METHOD = tf.saved_model.signature_constants.CLASSIFY_METHOD_NAME
REGRESS_METHOD = tf.saved_model.signature_constants.REGRESS_METHOD_NAME
PREDICT_METHOD = tf.saved_model.signature_constants.PREDICT_METHOD_NAME
METHODS = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)
EXAMPLES_INPUT = tf.saved_model.signature_constants.CLASSIFY_INPUTS    # and REGRESS_INPUTS
# of which a signature for these methods has at least one
OUTPUTS = {CLASSIFY_METHOD: {"classes", "scores"}, REGRESS_METHOD: {"outputs"}}


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
        return self._target(model, version, spec.name, name, signature)

    def find_tasks(self, tasks: Sequence[InferenceTask]) -> List[Target]:
        """The targets of a MultiInferenceRequest's tasks. As in TensorFlow Serving, the first one's version
        is that of all."""
        spec = tasks[0].model_spec if tasks else model_pb2.ModelSpec()
        model = self.models.find(spec)
        version = model.versions.find(spec)
        return [self._target(model, version, spec.name, name, signature)
                for name, signature in signatures_for(version.model, tasks).items()]

    def _target(self, model: Model, version: ServedVersion, model_name: str, name: str,
                signature: Any) -> Target:
        spec = model_pb2.ModelSpec(name=model_name, signature_name=name)
        spec.version.value = version.number
        return Target(version, model.queue, spec, signature, limits_of(version.model, self.limits))

    def require_room(self, name: str) -> None:
        """Refuses a request when the queue of its model is full, before any of it has been read."""
        queue = self.models.queue_of(name)
        if queue:
            queue.require_room(1)

    async def predict(self, target: Target, inputs: Arrays) -> Arrays:
        """Arrays by output name, for arrays by input name."""
        model, name = target.version.model, target.spec.signature_name
        return await self._submit([target], inputs, lambda joined: model.run(joined, name))

    async def of_examples(self, target: Target, examples: List[bytes]) -> Arrays:
        """Arrays by output name, for serialized tf.Examples: classes and scores [examples, labels], or one of
        both, of a signature for Classify, outputs [examples] or [examples, 1] of one for Regress."""
        return (await self.of_tasks([target], examples))[0]

    async def of_tasks(self, targets: Sequence[Target], examples: List[bytes]) -> List[Arrays]:
        """The same for each of the targets that `find_tasks` gives, computed once."""
        inputs = {EXAMPLES_INPUT: np.array(examples, dtype=object)}
        if len(targets) == 1:
            answers = [await self.predict(targets[0], inputs)]
        else:
            model, names = targets[0].version.model, [target.spec.signature_name for target in targets]
            joined = await self._submit(targets, inputs, lambda inputs: model.run_joined(inputs, *names))
            answers = [{output: joined["%s/%s" % (name, output)] for output in target.signature.outputs}
                       for name, target in zip(names, targets)]
        for target, answer in zip(targets, answers):
            check_answer(target.signature.method_name, answer)
        return answers

    async def _submit(self, targets: Sequence[Target], inputs: Arrays,
                      run: Callable[[Arrays], Arrays]) -> Arrays:
        """What `run` gives for checked inputs of the targets, of one version, in their turn."""
        version, queue, _, signature, limits = targets[0]
        num_rows = check_arrays(signature, inputs, limits)
        inputs = safe_inputs(inputs, signature, version.model.example_tensors)
        names = tuple(target.spec.signature_name for target in targets)
        shapes = tuple(array.shape[1:] for array in inputs.values())
        key = ((version, names, tuple(inputs), shapes)
               if all(is_batchable(target.signature) for target in targets) else object())
        with version.in_use():
            return await queue.submit(Work(key, run, inputs, num_rows))


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
    if method in OUTPUTS and not OUTPUTS[method].intersection(signature.outputs):
        raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, "No %s found in the outputs of signature %s"
                           % (" or ".join(sorted(OUTPUTS[method])), name))
    return signature


def signatures_for(model: Any, tasks: Sequence[InferenceTask]) -> Dict[str, Any]:
    """The SignatureDefs, by name, that a MultiInferenceRequest's tasks ask of a model.

    Raises RequestError unless each is for Classify or Regress and named once, and all take the same input of
    the same model.
    """
    found: Dict[str, Any] = {}
    for task in tasks:
        if task.model_spec.name != tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name, got %s "
                          "and %s" % (tasks[0].model_spec.name, task.model_spec.name or "none"))
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in found:
            raise invalid("Duplicate evaluation of signature: %s" % name)
        if task.method_name not in OUTPUTS:
            raise RequestError(
                grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: %s; wanted %s"
                % (task.method_name or "none", " or ".join(OUTPUTS)))
        found[name] = signature_for(model, name, task.method_name)
        if len({_input_tensors(signature) for signature in found.values()}) > 1:
            raise invalid("Input tensor must be the same for all Signatures: that of %s is not" % name)
    return found


def check_answer(method: str, outputs: Arrays) -> None:
    """Raises RequestError for outputs of a signature that are no answer to Classify or Regress: its shapes
    need not tell before."""
    for name in OUTPUTS[method].intersection(outputs):
        shape, is_regress = outputs[name].shape, method == REGRESS_METHOD
        if is_regress and len(shape) != 1 and shape[1:] != (1,):
            raise invalid("Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
                          "%s" % list(shape))
        if not is_regress and len(shape) != 2:
            raise invalid("Expected %s Tensor shape to be [batch_size num_classes] but got %s"
                          % (name, list(shape)))
        if (name == "classes") != (outputs[name].dtype == object):
            raise invalid("Expected %s Tensor of %s. Got: %s"
                          % (name, "DT_STRING" if name == "classes" else "DT_FLOAT", outputs[name].dtype))


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


def _input_tensors(signature: Any) -> str:
    return ",".join(sorted(info.name for info in signature.inputs.values()))


@functools.lru_cache(maxsize=64)
def _enum_of(dtype: np.dtype) -> int:
    """TensorFlow's number for NumPy's type."""
    return tf.as_dtype(dtype).as_datatype_enum
