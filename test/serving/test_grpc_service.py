import asyncio
import os

import grpc
import pytest
import tensorflow.compat.v1 as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served import make_inference, run
from tensorflow_serving.apis import (classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2,
                                     model_management_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc,
                                     regression_pb2)

from serving.grpc_relay import RelayLimits
from serving.grpc_service import GrpcLimits, GrpcServer
from serving.monitoring import Monitor
from serving.server import bind


@pytest.fixture
def with_stubs(saved_model, version):
    """Runs a coroutine function of the official stubs, and the server's monitor, against a server."""
    def serve(ask):
        async def session():
            monitor = Monitor()
            inference = await make_inference(saved_model, os.path.dirname(version), monitor)
            server = GrpcServer(inference, monitor, bind("127.0.0.1", 0, "port"), GrpcLimits(100000, 8, 0.5),
                                RelayLimits(4, 1 << 20))
            await server.start()
            async with grpc.aio.insecure_channel("127.0.0.1:%d" % server.port) as channel:
                await ask(prediction_service_pb2_grpc.PredictionServiceStub(channel),
                          model_service_pb2_grpc.ModelServiceStub(channel), health_pb2_grpc.HealthStub(channel), monitor)
            await server.stop(1)
        run(session())
    return serve


def predict_request(signature="serving_default", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "albert", signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def test_predict(with_stubs, saved_model):
    async def ask(prediction, model, health, monitor):
        found = await prediction.Predict(predict_request(text_a=["北京"], text_b=[""]))
        wanted = saved_model.run({"text_a": ["北京"], "text_b": [""]})
        assert tf.make_ndarray(found.outputs["probabilities"]) == pytest.approx(wanted["probabilities"])
        assert found.outputs["label"].string_val == wanted["label"].tolist()
        assert (found.model_spec.version.value, found.model_spec.signature_name) == (7, "serving_default")
        assert b'serving_request_seconds_count{api="grpc",code="OK",method="Predict"} 1.0' in monitor.expose()
    with_stubs(ask)


def test_classify(with_stubs, saved_model):
    async def ask(prediction, model, health, monitor):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name, request.model_spec.signature_name = "albert", "classify"
        feature = request.input.example_list.examples.add().features.feature["text_a"]
        feature.bytes_list.value.append("北京".encode())
        (found,) = (await prediction.Classify(request)).result.classifications
        wanted = saved_model.run({"text_a": ["北京"], "text_b": [""]})["probabilities"][0]
        assert [item.label for item in found.classes] == saved_model.labels
        assert [item.score for item in found.classes] == pytest.approx(wanted)
    with_stubs(ask)


def test_metadata_and_status(with_stubs, saved_model):
    async def ask(prediction, model, health, monitor):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "albert"
        found = await prediction.GetModelMetadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert found.metadata["signature_def"].Unpack(signatures)
        assert dict(signatures.signature_def) == saved_model.signatures
        status_request = get_model_status_pb2.GetModelStatusRequest()
        status_request.model_spec.name = "albert"
        (status,) = (await model.GetModelStatus(status_request)).model_version_status
        assert (status.version, status.state) == (7, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    with_stubs(ask)


@pytest.mark.parametrize("method, request_, code, message", [
    ("Predict", predict_request("x"), "INVALID_ARGUMENT", 'signature name: "x" not found'),
    ("Predict", predict_request(text_a=["x"]), "INVALID_ARGUMENT", "input size does not match signature"),
    ("Predict", predict_request("examples", examples=[b"\xff"]), "INVALID_ARGUMENT", "Could not parse example"),
    ("Predict", predict_request(text_a=["x" * 200000], text_b=[""]), "RESOURCE_EXHAUSTED", "larger than max"),
    ("Predict", predict_pb2.PredictRequest(), "NOT_FOUND", "Servable not found for request: Latest()"),
    ("Classify", classification_pb2.ClassificationRequest(model_spec=predict_request("classify").model_spec),
     "INVALID_ARGUMENT", "Input is empty."),
    ("GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest(), "INVALID_ARGUMENT",
     "Metadata field must be signature_def, got none"),
    ("Regress", regression_pb2.RegressionRequest(), "UNIMPLEMENTED", "Not implemented by this server"),
    ("MultiInference", inference_pb2.MultiInferenceRequest(), "UNIMPLEMENTED", "Not implemented by this server"),
])
def test_errors(with_stubs, method, request_, code, message):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await getattr(prediction, method)(request_)
        assert failed.value.code() == grpc.StatusCode[code]
        assert message in failed.value.details()
    with_stubs(ask)


def test_models_are_chosen_by_flags(with_stubs):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await model.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
        counted = b'code="UNIMPLEMENTED",method="HandleReloadConfigRequest"'
        for _ in range(100):                   # the answer is sent before it is counted
            if counted in monitor.expose():
                break
            await asyncio.sleep(0.02)
        assert counted in monitor.expose()
    with_stubs(ask)


def test_request_ids_come_back(with_stubs):
    async def ask(prediction, model, health, monitor):
        call = prediction.Predict(predict_request(text_a=["x"], text_b=[""]), metadata=(("x-request-id", "r1"),))
        assert ("x-request-id", "r1") in list(await call.initial_metadata())
        await call
    with_stubs(ask)


def test_a_deadline_that_has_passed_is_told_and_counted(with_stubs):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await prediction.Predict(predict_request(text_a=["x" * 1000] * 8, text_b=[""] * 8), timeout=0.0001)
        assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with_stubs(ask)
