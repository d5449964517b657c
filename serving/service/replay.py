"""Runs the warm-up records of a loaded version on it, each checked like a request, since the file is
untrusted, too."""
import os
import sys
from typing import Any, Tuple

import numpy as np
import tensorflow.compat.v1 as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from etl.common.command_line import UserError, one_line
from etl.records.examples import read_frames
from serving.exporting import warmup
from serving.saved_model import SavedModel
from serving.service import errors, messages
from serving.service.inference import DEFAULT_SIGNATURE, check_arrays
from serving.service.limits import Limits
from serving.service.tf_examples import safe_inputs

_NO_LIMITS = Limits(*[sys.maxsize] * 4)         # whoever may put a model here may also run it


def replay(folder: str, model: SavedModel) -> None:
    """Runs the records in `folder`, if any, on its `model`. Raises UserError for the first that fails."""
    path = os.path.join(folder, warmup.FILE)
    if not os.path.exists(path):
        return
    with open(path, "rb") as stream:  # not by TensorFlow, whose reader crashes at a length of 2^40
        for number, record in enumerate(read_frames(stream, path)):
            try:
                _ask(model, record)
            except (errors.RequestError, tf.errors.OpError) as error:
                raise UserError("%s: record %d: %s" % (path, number, one_line(error)))


def _ask(model: SavedModel, record: bytes) -> None:
    name, inputs = _request_in(record)
    signature = model.signatures.get(name)
    if signature is None:
        raise errors.invalid("the model has no signature %s, only %s"
                             % (name, ", ".join(sorted(model.signatures))))
    check_arrays(signature, inputs, _NO_LIMITS)
    model.run(safe_inputs(inputs, signature, model.example_tensors), name)


def _request_in(record: bytes) -> Tuple[str, Any]:
    """Signature and inputs of a serialized PredictionLog; a request that names no signature means the
    default one."""
    try:
        log = PredictionLog.FromString(record)
    except DecodeError:
        raise errors.invalid("no tensorflow.serving.PredictionLog")
    kind = log.WhichOneof("log_type")
    if kind not in ("predict_log", "classify_log"):
        raise errors.invalid("wanted a predict_log or classify_log, got %s" % (kind or "none"))
    request = getattr(log, kind).request
    inputs = (messages.predict_inputs(request) if kind == "predict_log" else
              {tf.saved_model.signature_constants.CLASSIFY_INPUTS: np.array(
                  messages.serialized_examples(request), dtype=object)})
    return request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs
