import os
import re
import struct

import examples_model
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from mistakes import message_of
from served import make_versions, run
from tensorflow_serving.apis import prediction_log_pb2

from estimator.data.tasks import Example
from etl.records.examples import frame
from serving.exporting import warmup
from serving.saved_model import SavedModel
from serving.service import replay
from serving.service.errors import RequestError

NO_EXAMPLES = {  # bytes that end TensorFlow's parser when it is given them, or could
    "cut off": b"\n\x0c\n\n\n\x06text_a\x12\x40",
    "a length before the beginning": b"\n\xc7\n\x11\n\x06text_b\x120\n\x05\n\xffabc",
    "an end of a group": b"\n\x02\n\x00\x0c\n\x00",
}
# What nobody understands in an entry of the map, and a name that comes twice: an Example, but not as
# TensorFlow writes one.
ODD_EXAMPLE = (b"\n\x54\n\x14\n\x06text_a\x12\n\n\x08\n\x06\xe6\x89\x8b\xe6\x9c\xba\n \n\x06text_a\x12\x16\n"
               b"\x14\n\x07\x8a\xd0\xe4y\xd8"
               b"\x00\xe7\n\x01\x00\n\x06\xe6\x89\x8b\xe6\x9c\xba\n\x1a\n\x06text_a\x1a\x10\x12\n\n"
               b"\x08\x04\xf7ZN\x7f\x95\xe3B\x12\x02\n\x00")

pytestmark = pytest.mark.filterwarnings("ignore:Unexpected end-group tag:RuntimeWarning")


def version_with(tmp_path, *records):
    """A version's folder, as far as its warm-up records go: PredictionLogs or their bytes."""
    path = tmp_path / warmup.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(frame(record if isinstance(record, bytes) else record.SerializeToString())
                              for record in records))
    return str(tmp_path)


def examples_log(*serialized):
    return warmup.predict_log("examples", {"examples": list(serialized)})


class Listener:
    """Stands for the model it is given, and writes down what is asked."""

    def __init__(self, model):
        self.signatures, self.example_tensors, self.asked, self._run = (model.signatures,
                                                                        model.example_tensors, [], model.run)

    def run(self, inputs, signature):
        self.asked.append((signature, sorted(inputs)))
        return self._run(inputs, signature)


def test_what_an_export_wrote_is_asked(saved_model, version):
    listener = Listener(saved_model)
    replay.replay(version, listener)
    assert listener.asked == [("predict_ids", ["input_ids", "input_mask", "segment_ids"]),
                              ("serving_default", ["text_a", "text_b"]), ("classify", ["inputs"])]


def test_no_records_no_replay(tmp_path):
    replay.replay(str(tmp_path), None)


def test_without_a_signature_s_name_the_default_one_is_asked(tmp_path, saved_model):
    listener = Listener(saved_model)
    replay.replay(version_with(tmp_path, warmup.predict_log("", {"text_a": [b"x"], "text_b": [b""]})),
                  listener)
    assert listener.asked == [("serving_default", ["text_a", "text_b"])]


@pytest.mark.parametrize("serialized", list(NO_EXAMPLES.values()), ids=list(NO_EXAMPLES))
def test_what_is_no_example_never_reaches_the_model(tmp_path, saved_model, serialized):
    good, listener = warmup.classify_log("classify", [Example("北", None, None)]), Listener(saved_model)
    said = message_of(replay.replay, version_with(tmp_path, good, examples_log(b"", serialized)), listener)
    assert said.endswith("tf_serving_warmup_requests: record 1: Could not parse example input of %d bytes"
                         % len(serialized))
    assert listener.asked == [("classify", ["inputs"])]


def test_an_example_that_is_written_oddly_is_one_without_a_text(tmp_path, saved_model):
    assert "record 0: " in message_of(replay.replay, version_with(tmp_path, examples_log(ODD_EXAMPLE)),
                                      saved_model)


def regress_log():
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.name = "x"
    log.regress_log.request.input.example_list.examples.add()
    return log


def session_run_log():
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.request.model_spec.name = "x"
    return log


def without_values():
    log = warmup.predict_log("examples", {"examples": [b""]})
    log.predict_log.request.inputs["examples"].ClearField("string_val")
    return log


@pytest.mark.parametrize("record, message", [
    (b"\xff", "record 0: no tensorflow.serving.PredictionLog"),
    (b"", "record 0: wanted a predict_log or classify_log or regress_log or multi_inference_log, got none"),
    (regress_log(), "record 0: Expected signature method_name to be tensorflow/serving/regress. Was: "
     "tensorflow/serving/predict"),
    (session_run_log(), "record 0: wanted a predict_log or classify_log or regress_log or "
     "multi_inference_log, got session_run_log"),
    (warmup.predict_log("nothing", {}),
     'record 0: Serving signature name: "nothing" not found in signature def, which has classify, embed, '),
    (warmup.classify_log("", [Example("北", None, None)]),
     "record 0: Expected signature method_name to be tensorflow/serving/classify. Was: "
     "tensorflow/serving/predict"),
    (warmup.predict_log("", {"text_a": [b"x"]}),
     "record 0: input size does not match signature: got text_a, wanted text_a, text_b"),
    (warmup.predict_log("", {"text_a": [[b"x"]], "text_b": [b""]}),
     r"record 0: input text_a: its shape must be (?,), got [1, 1]"),
    (warmup.predict_log("examples", {"examples": b""}),
     r"record 0: input examples: its shape must be (?,), got []"),
    (without_values(), "record 0: input examples: its shape has 1 elements, got no string_val"),
    (warmup.predict_log("examples", {"examples": np.int32([1])}),
     "record 0: input examples: its type must be string, got int32"),
    (warmup.classify_log("classify", []), "record 0: Input is empty."),
], ids=lambda value: "" if isinstance(value, (bytes, str)) else value.WhichOneof("log_type"))
def test_records_that_cannot_be_answered(tmp_path, saved_model, record, message):
    with pytest.raises(Exception, match=re.escape(message)) as caught:
        replay.replay(version_with(tmp_path, record), saved_model)
    assert not isinstance(caught.value,
                          (RequestError, tf.errors.OpError))     # but a UserError, which names the file


def multi_inference_log(*signatures):
    log = prediction_log_pb2.PredictionLog()
    request = log.multi_inference_log.request
    for name in signatures:
        task = request.tasks.add(method_name="tensorflow/serving/" + name)
        task.model_spec.name, task.model_spec.signature_name = "x", name
    request.input.example_list.examples.add().ParseFromString(examples_model.example(3))
    return log


def test_tasks_of_one_record_are_asked_at_once(tmp_path, examples_version):
    class Joined(SavedModel):
        asked = []

        def run_joined(self, inputs, *signatures):
            self.asked.append(signatures)
            return super().run_joined(inputs, *signatures)

    model = Joined(examples_version)
    replay.replay(version_with(tmp_path / "good", multi_inference_log("regress", "classify"),
                               multi_inference_log("regress")), model)
    assert model.asked == [("regress", "classify")]
    for signatures, message in (((), "the request has no tasks"),
                                (("regress", "regress"), "Duplicate evaluation of signature: regress")):
        folder = version_with(tmp_path / message, multi_inference_log(*signatures))
        assert message_of(replay.replay, folder, model).endswith("record 0: " + message)


def test_more_records_than_tensorflow_serving_takes(tmp_path):
    folder = version_with(tmp_path, *[b"\xff"] * 1001)
    assert message_of(replay.replay, folder, None).endswith("tf_serving_warmup_requests: has more than 1000 "
                                                            "records")


def test_a_file_that_is_damaged(tmp_path, saved_model):
    folder = version_with(tmp_path, b"")
    with open(os.path.join(folder, warmup.FILE), "ab") as stream:
        stream.write(struct.pack("<QI", 2 ** 40, 0))
    with pytest.raises(Exception, match="record (0|1)"):
        replay.replay(folder, saved_model)


def test_the_version_before_serves_on(tmp_path, saved_model):
    def load(folder):
        replay.replay(folder, saved_model)
        return saved_model

    async def states():
        versions = make_versions(tmp_path, load)
        await versions.load_first()
        return [(status.version, status.State.Name(status.state), status.status.error_message) for status in
                versions.status(SPEC).model_version_status]
    SPEC = prediction_log_pb2.PredictionLog().predict_log.request.model_spec
    SPEC.name = "albert"
    for number, record in ((1, warmup.classify_log("classify", [Example("北", None, None)])),
                           (2, examples_log(NO_EXAMPLES["cut off"]))):
        os.makedirs(str(tmp_path / str(number)))
        (tmp_path / str(number) / "saved_model.pb").write_bytes(b"")
        version_with(tmp_path / str(number), record)
    newest, older = run(states())
    assert older == (1, "AVAILABLE",
                     "") and newest[:2] == (2, "END") and "record 0: Could not parse example" in newest[2]
