"""Runs the warm-up records of a loaded version on it, each checked like a request, since the file is
untrusted, too."""
import itertools
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
from serving.service.inference import (CLASSIFY_METHOD, DEFAULT_SIGNATURE, EXAMPLES_INPUT, PREDICT_METHOD,
                                       REGRESS_METHOD, check_arrays, signature_for, signatures_for)
from serving.service.limits import Limits
from serving.service.tf_examples import safe_inputs

MAX_RECORDS = 1000                             # TensorFlow Serving's
METHODS = {"predict_log": PREDICT_METHOD, "classify_log": CLASSIFY_METHOD, "regress_log": REGRESS_METHOD}
MULTI_INFERENCE = "multi_inference_log"
KINDS = (*METHODS, MULTI_INFERENCE)
_NO_LIMITS = Limits(*[sys.maxsize] * 4)         # whoever may put a model here may also run it


def replay(folder: str, model: SavedModel) -> None:
    """Runs the records in `folder`, if any, on its `model`. Raises UserError for the first that fails."""
    path = os.path.join(folder, warmup.FILE)
    if not os.path.exists(path):
        return
    with open(path, "rb") as stream:
        records = itertools.islice(read_frames(stream, path), MAX_RECORDS + 1)
        if sum(1 for _ in records) > MAX_RECORDS:
            raise UserError("%s: has more than %d records" % (path, MAX_RECORDS))
    with open(path, "rb") as stream:  # not by TensorFlow, whose reader crashes at a length of 2^40
        for number, record in enumerate(read_frames(stream, path)):
            try:
                _ask(model, record)
            except (errors.RequestError, tf.errors.OpError) as error:
                raise UserError("%s: record %d: %s" % (path, number, one_line(error)))


def _ask(model: SavedModel, record: bytes) -> None:
    kind, request = _request_in(record)
    inputs = (messages.predict_inputs(request) if kind == "predict_log" else
              {EXAMPLES_INPUT: np.array(messages.serialized_examples(request), dtype=object)})
    if kind == MULTI_INFERENCE:
        signatures = signatures_for(model, request.tasks)
        if not signatures:
            raise errors.invalid("the request has no tasks")
    else:
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signatures = {name: signature_for(model, name, METHODS[kind])}
    for signature in signatures.values():      # one, or with the same input
        check_arrays(signature, inputs, _NO_LIMITS)
        inputs = safe_inputs(inputs, signature, model.example_tensors)
    if len(signatures) > 1:
        model.run_joined(inputs, *signatures)
    else:
        model.run(inputs, *signatures)


def _request_in(record: bytes) -> Tuple[str, Any]:
    """The kind and the request of a serialized PredictionLog."""
    try:
        log = PredictionLog.FromString(record)
    except DecodeError:
        raise errors.invalid("no tensorflow.serving.PredictionLog")
    kind = log.WhichOneof("log_type")
    if kind not in KINDS:
        raise errors.invalid("wanted a %s, got %s" % (" or ".join(KINDS), kind or "none"))
    return kind, getattr(log, kind).request
