"""Requests that TensorFlow Serving replays when it loads a version, so that no user waits for the first one.

They are in assets.extra/tf_serving_warmup_requests, a TFRecord file of tensorflow.serving.PredictionLog.
"""
import os
from typing import TYPE_CHECKING, Any, List, Mapping, Sequence

import tensorflow.compat.v1 as tf

from estimator.data.tasks import Example
from etl.common.command_line import UserError
from serving.version_files import EXTRA_FOLDER

if TYPE_CHECKING:
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

FILE = os.path.join(EXTRA_FOLDER, "tf_serving_warmup_requests")
MODEL_NAME = "default"                         # the server's own default; a replay ignores it


def predict_log(signature: str, inputs: Mapping[str, Any]) -> "PredictionLog":
    """A PredictionLog of a Predict request: arrays, or lists of bytes, by input name."""
    log = _new_log()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = MODEL_NAME, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log


def classify_log(signature: str, samples: Sequence[Example]) -> "PredictionLog":
    """A PredictionLog of a Classify request with `examples_of` the samples."""
    log = _new_log()
    _ask(log.classify_log.request, signature, samples)
    return log


def regress_log(signature: str, samples: Sequence[Example]) -> "PredictionLog":
    """A PredictionLog of a Regress request with `examples_of` the samples."""
    log = _new_log()
    _ask(log.regress_log.request, signature, samples)
    return log


def examples_of(samples: Sequence[Example]) -> List[tf.train.Example]:
    """Each sample with its text_a, and text_b if there is one."""
    examples = []
    for sample in samples:
        examples.append(tf.train.Example())
        features = examples[-1].features.feature
        features["text_a"].bytes_list.value.append(sample.text_a.encode("utf-8"))
        if sample.text_b:
            features["text_b"].bytes_list.value.append(sample.text_b.encode("utf-8"))
    return examples


def write(folder: str, logs: Sequence["PredictionLog"]) -> None:
    """Writes the records of the exported model in `folder`, which has an assets.extra/; the same logs give
    the same bytes."""
    with tf.io.TFRecordWriter(os.path.join(folder, FILE)) as writer:
        for log in logs:
            writer.write(log.SerializeToString(deterministic=True))


def _ask(request: Any, signature: str, samples: Sequence[Example]) -> None:
    request.model_spec.name, request.model_spec.signature_name = MODEL_NAME, signature
    request.input.example_list.examples.extend(examples_of(samples))


def _new_log() -> "PredictionLog":
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        raise UserError("tensorflow-serving-api is not installed, and the warm-up requests are made of its "
                        "messages: pip install tensorflow-serving-api==1.15.0, or this project with [serve]")
    return prediction_log_pb2.PredictionLog()
