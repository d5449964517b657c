import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import prediction_log_pb2

from estimator.data.tasks import Example
from serving.exporting import warmup
from serving.saved_model import SavedModel


def logs_of(version):
    for record in tf.io.tf_record_iterator(version + "/assets.extra/tf_serving_warmup_requests"):
        yield prediction_log_pb2.PredictionLog.FromString(record)


def test_every_request_replays(version):
    saved, replayed = SavedModel(version), []
    for log in logs_of(version):
        if log.HasField("classify_log"):
            request = log.classify_log.request
            inputs = {"inputs": [example.SerializeToString()
                                 for example in request.input.example_list.examples]}
        else:
            request = log.predict_log.request
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        assert all(len(values) == 4 for values in saved.run(inputs, signature).values())
        replayed.append(signature)
    assert replayed == ["predict_ids", "serving_default", "classify"]


def test_a_regression_is_warmed_up_by_numbers(regression_version):
    kinds = [(log, log.WhichOneof("log_type")) for log in logs_of(regression_version)]
    assert [(kind, getattr(log, kind).request.model_spec.signature_name) for log, kind in kinds] == [
        ("predict_log", "predict_ids"), ("predict_log", "serving_default"), ("regress_log", "regress")]


def test_messages():
    log = warmup.predict_log("serving_default", {"text_a": ["北".encode("utf-8")], "text_b": [b""]})
    assert log.predict_log.request.model_spec.name == "default"
    assert tf.make_ndarray(log.predict_log.request.inputs["text_a"]).tolist() == ["北".encode("utf-8")]
    log = warmup.classify_log("classify", [Example("北", "京", None), Example("好", None, None)])
    first, second = log.classify_log.request.input.example_list.examples
    assert first.features.feature["text_b"].bytes_list.value[0].decode("utf-8") == "京"
    assert list(second.features.feature) == ["text_a"]
    log = warmup.regress_log("regress", [Example("好", None, None)])
    assert log.regress_log.request.model_spec.signature_name == "regress"
    assert list(log.regress_log.request.input.example_list.examples) == [second]
