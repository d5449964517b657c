import asyncio
import gc
import gzip
import logging
import os
import sys
import tempfile
import types
import zlib

import examples_model
import grpc
import pytest
import tensorflow.compat.v1 as tf
from grpc._cython.cygrpc import ExecuteBatchError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served import LIMITS, make_inference, run
from tensorflow_serving.apis import (classification_pb2, get_model_metadata_pb2, get_model_status_pb2,
                                     inference_pb2, model_management_pb2, model_service_pb2_grpc, predict_pb2,
                                     prediction_service_pb2_grpc, regression_pb2)

from serving.saved_model import SavedModel
from serving.service.process import bind
from serving.service.errors import RequestError
from serving.service.grpc_relay import RelayLimits
from serving.service.grpc_service import (MAX_STREAMS, Calls, Doors, GrpcLimits, GrpcOptions, GrpcServer,
                                          PredictionService, answered, inflated)
from serving.service.monitoring import Monitor


@pytest.fixture
def with_channel(saved_model, version):
    """Runs a coroutine function of a channel to a server and the server's monitor, and of the server if it
    wants that."""
    def serve(ask, wants_server=False, channel_arguments=(), allows_reload=True):
        async def session():
            monitor = Monitor()
            inference = await make_inference(saved_model, os.path.dirname(version), monitor)
            listening = bind("127.0.0.1", 0, "port")
            listening.listen()
            server = GrpcServer(inference, monitor, listening, GrpcLimits(100000, 8, 30),
                                RelayLimits(4, 1 << 20), GrpcOptions(channel_arguments, allows_reload))
            await server.start()
            async with grpc.aio.insecure_channel("127.0.0.1:%d" % server.port) as channel:
                await ask(channel, monitor, *[server] * wants_server)
            await server.stop(1)
        run(session())
    return serve


@pytest.fixture
def with_stubs(with_channel):
    """Runs a coroutine function of the official stubs, and the server's monitor, against a server."""
    def serve(ask, **options):
        with_channel(lambda channel, monitor: ask(
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel), health_pb2_grpc.HealthStub(channel), monitor),
            **options)
    return serve


def predict_request(signature="serving_default", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "albert", signature
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def multi_inference_request(*signatures):
    request = inference_pb2.MultiInferenceRequest()
    for name in signatures:
        task = request.tasks.add(method_name="tensorflow/serving/" + name)
        task.model_spec.name, task.model_spec.signature_name = "albert", name
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


def test_a_temporary_folder_s_path_may_be_longer_than_a_socket_s(with_stubs, tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    async def ask(prediction, model, health, monitor):
        await prediction.Predict(predict_request(text_a=["北京"], text_b=[""]))
        assert os.listdir(str(folder)) == []
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


def test_multi_inference(examples_version):
    async def ask():
        inference = await make_inference(SavedModel(examples_version), os.path.dirname(examples_version))
        request = multi_inference_request("regress", "classify")
        request.input.example_list.examples.add().ParseFromString(examples_model.example(3))
        numbers, classes = (await PredictionService(inference).MultiInference(request)).results
        assert [item.value for item in numbers.regression_result.regressions] == [1.5]
        ((less, more),) = (item.classes for item in classes.classification_result.classifications)
        assert (less.label, less.score, more.label, more.score) == ("less", 3, "more", 6)
        assert (classes.model_spec.signature_name, classes.model_spec.version.value) == ("classify", 5)
        for limit, message in (({"max_batch_size": 0}, "at most 0 rows, got 1"),
                               ({"max_text_bytes": 3}, "a text must have at most 3 bytes")):
            inference.limits = LIMITS._replace(**limit)
            with pytest.raises(RequestError, match=message):
                await PredictionService(inference).MultiInference(request)
    run(ask())


def test_metadata_and_status(with_stubs, saved_model):
    async def ask(prediction, model, health, monitor):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "albert"
        found = await prediction.GetModelMetadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert found.metadata["signature_def"].Unpack(signatures)
        assert (found.model_spec.signature_name, found.model_spec.version.value) == ("", 7)
        assert dict(signatures.signature_def) == saved_model.signatures
        status_request = get_model_status_pb2.GetModelStatusRequest()
        status_request.model_spec.name = "albert"
        (status,) = (await model.GetModelStatus(status_request)).model_version_status
        assert (status.version, status.state) == (7, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        assert (await health.Check(
            health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    with_stubs(ask)


@pytest.mark.parametrize("method, request_, code, message", [
    ("Predict", predict_request("x"), "FAILED_PRECONDITION", 'signature name: "x" not found'),
    ("Predict", predict_request(text_a=["x"]), "INVALID_ARGUMENT", "input size does not match signature"),
    ("Predict", predict_request("examples", examples=[b"\xff"]), "INVALID_ARGUMENT",
     "Could not parse example"),
    ("Predict", predict_request(text_a=["x" * 200000], text_b=[""]), "RESOURCE_EXHAUSTED", "larger than max"),
    ("Predict", predict_request("predict_ids",
                                **{name: [[1] * 513] for name in ("input_ids", "input_mask", "segment_ids")}),
     "INVALID_ARGUMENT", "token ids, got 513"),
    ("Predict", predict_request("北" * 30000), "FAILED_PRECONDITION", "not found in signature def"),
    ("Predict", predict_pb2.PredictRequest(model_spec=predict_request().model_spec, output_filter=["x"]),
     "INVALID_ARGUMENT", "output tensor alias not found in signature: x"),
    ("Predict", predict_pb2.PredictRequest(model_spec=predict_request().model_spec,
                                           output_filter=["label", "label"]),
     "INVALID_ARGUMENT", "duplicate output tensor alias: label"),
    ("Predict", predict_pb2.PredictRequest(output_filter=["x"] * 20000), "INVALID_ARGUMENT",
     "at most 1000 fields"),
    ("Predict", predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Classify", classification_pb2.ClassificationRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Regress", regression_pb2.RegressionRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelMetadata",
     get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), "INVALID_ARGUMENT",
     "Missing ModelSpec"),
    ("Classify", classification_pb2.ClassificationRequest(model_spec=predict_request("x").model_spec),
     "INVALID_ARGUMENT", 'signature name: "x" not found'),
    ("Regress", regression_pb2.RegressionRequest(model_spec=predict_request("x").model_spec),
     "INVALID_ARGUMENT", 'signature name: "x" not found'),
    ("Regress", regression_pb2.RegressionRequest(model_spec=predict_request().model_spec),
     "INVALID_ARGUMENT",
     "Expected signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict"),
    ("Classify", classification_pb2.ClassificationRequest(model_spec=predict_request("classify").model_spec),
     "INVALID_ARGUMENT", "Input is empty."),
    ("GetModelMetadata", get_model_metadata_pb2.GetModelMetadataRequest(), "INVALID_ARGUMENT",
     "Metadata field must be signature_def, got none"),
    ("MultiInference", inference_pb2.MultiInferenceRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("MultiInference", multi_inference_request("classify", "regress"), "INVALID_ARGUMENT",
     'signature name: "regress" not found'),           # as in each export made before there was one
    ("MultiInference", multi_inference_request("classify"), "INVALID_ARGUMENT", "Input is empty."),
])
def test_errors(with_stubs, method, request_, code, message):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await getattr(prediction, method)(request_)
        assert failed.value.code() == grpc.StatusCode[code]
        assert message in failed.value.details()
    with_stubs(ask)


def reload_request(*models):
    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in models:
        request.config.model_config_list.config.add(name=name, base_path=base_path,
                                                    model_platform="tensorflow")
    return request


def test_other_models_while_it_runs(with_stubs, version):
    async def ask(prediction, model, health, monitor):
        base_path = os.path.dirname(version)
        found = await model.HandleReloadConfigRequest(reload_request(("lcqmc", base_path),
                                                                     ("tnews", base_path)))
        assert (found.status.error_code, found.status.error_message) == (0, "")
        request = predict_request(text_a=["x"], text_b=[""])
        for name, code in (("lcqmc", "OK"), ("tnews", "OK"), ("albert", "NOT_FOUND")):
            request.model_spec.name = name
            call = prediction.Predict(request)
            assert (await call.code()).name == code
    with_stubs(ask)


@pytest.mark.parametrize("request_, code, message", [
    (reload_request(("lcqmc", "/nowhere")), "FAILED_PRECONDITION",
     "model lcqmc: No such file or directory: /nowhere"),
    (reload_request(("lcqmc", "nowhere")), "INVALID_ARGUMENT",
     "model lcqmc: base_path must be an absolute path on this machine"),
    (reload_request(), "INVALID_ARGUMENT", "wanted a model_config_list, got none"),
])
def test_other_models_that_cannot_be(with_stubs, request_, code, message):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await model.HandleReloadConfigRequest(request_)
        assert failed.value.code().name == code and message in failed.value.details()
        await prediction.Predict(predict_request(text_a=["x"], text_b=[""]))
    with_stubs(ask)


def test_connections_end_when_they_are_old_and_no_call_is_lost(with_channel):
    async def ask(channel, monitor):
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        clients = set()
        monitor.count = lambda *facts, client: clients.add(client)
        while len(clients) < 3:
            await prediction.Predict(predict_request(text_a=["x"], text_b=[""]))
    with_channel(ask, channel_arguments=(("grpc.max_connection_age_ms", 50),))


def test_models_may_be_chosen_by_flags_alone(with_stubs):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await model.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
        assert failed.value.code() == grpc.StatusCode.PERMISSION_DENIED
        counted = b'code="PERMISSION_DENIED",method="HandleReloadConfigRequest"'
        for _ in range(100):                   # the answer is sent before it is counted
            if counted in monitor.expose():
                break
            await asyncio.sleep(0.02)
        assert counted in monitor.expose()
    with_stubs(ask, allows_reload=False)


def test_metadata_of_a_model_without_a_default_signature(with_stubs, saved_model, monkeypatch):
    async def ask(prediction, model, health, monitor):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"] * 2)
        request.model_spec.name = "albert"
        signatures = get_model_metadata_pb2.SignatureDefMap()
        (await prediction.GetModelMetadata(request)).metadata["signature_def"].Unpack(signatures)
        assert list(signatures.signature_def) == ["predict_ids"]
    monkeypatch.setattr(saved_model, "signatures", {"predict_ids": saved_model.signatures["predict_ids"]})
    with_stubs(ask)


def test_request_ids_come_back(with_stubs):
    async def ask(prediction, model, health, monitor):
        call = prediction.Predict(predict_request(text_a=["x"], text_b=[""]),
                                  metadata=(("x-request-id", "r1"),))
        assert ("x-request-id", "r1") in list(await call.initial_metadata())
        await call
    with_stubs(ask)


def test_a_deadline_that_has_passed_is_told_and_counted(with_stubs):
    async def ask(prediction, model, health, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await prediction.Predict(predict_request(text_a=["x" * 1000] * 8, text_b=[""] * 8),
                                     timeout=0.0001)
        assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with_stubs(ask)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(with_channel, saved_model, compression):
    async def ask(channel, monitor):
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_request(text_a=["北京" * 100] * 2, text_b=["x"] * 2)
        assert await prediction.Predict(request, compression=compression) == await prediction.Predict(request)
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), compression=compression)).status == 1
        for path in ("/tensorflow.serving.PredictionService/Predict", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.RpcError) as failed:
                await channel.unary_unary(path)(bytes(10 ** 7), compression=compression)
            assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert failed.value.details() == "Decompressed request is larger than max (100000)"
    with_channel(ask)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_what_is_inflated(compress):
    assert inflated(compress(b"x" * 100), 100) == b"x" * 100
    for data in (b"", b"\x0a", b"\x1f", b"\x0a\x08\x0a\x06albert"):
        assert inflated(data, 1) is data


@pytest.mark.parametrize("method", ["Regress", "MultiInference", "Classify"])
@pytest.mark.parametrize("body", [b"\x12\x04\x0a\x02\x0a\x05",
                                  b"\x12\x0f\x0a\x0d\x0a\x0b\x0a\x09\x0a\x07\x0a\x01\xff\x12\x02\x0a\x00"])
def test_what_is_no_example_is_the_callers_mistake_whatever_is_asked(with_channel, method, body, capfd):
    async def ask(channel, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await channel.unary_unary("/tensorflow.serving.PredictionService/" + method)(body)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with_channel(ask)
    assert "protobuf" not in capfd.readouterr().err


class Relayed:
    """Stands for a relay, and writes down which calls are answered."""
    client_header, call_header = "client", "call"

    def __init__(self):
        self.noted = []

    def answered(self, *facts):
        self.noted.append(facts)


class Over:
    """A call that is over when its handler begins, or when it ends."""

    def __init__(self, error=None):
        self._error = error

    def invocation_metadata(self):
        return (("call", "7.1"), ("client", "ipv4:1.2.3.4:5"))

    async def send_initial_metadata(self, metadata):
        if self._error:
            raise self._error


@pytest.mark.parametrize("error", [ExecuteBatchError("over"), grpc.aio.UsageError("over")])
@pytest.mark.parametrize("is_over_at_once", [True, False])
def test_calls_that_are_over_are_cancelled_ones(error, is_over_at_once):
    async def session():
        async def answer():
            raise error
        counted, relay = [], Relayed()
        monitor = types.SimpleNamespace(count=lambda *facts, client: counted.append((facts[2], client)))
        with pytest.raises(asyncio.CancelledError):
            await answered(Doors(monitor, relay, None, None, None), "Predict",
                           Over(error if is_over_at_once else None), answer)
        assert counted == [("CANCELLED", "ipv4:1.2.3.4:5")] and relay.noted == [("7.1", 0)]
    run(session())


def test_answers_are_told_with_their_size():
    async def session():
        async def answer():
            return health_pb2.HealthCheckResponse(status=1)
        relay = Relayed()
        monitor = types.SimpleNamespace(count=lambda *facts, client: None)
        await answered(Doors(monitor, relay, None, None, None), "Check", Over(), answer)
        assert relay.noted == [("7.1", 2)]
    run(session())


def test_a_read_that_fails_after_its_call_was_refused_is_not_logged(caplog):
    async def session():
        call = Call()
        with pytest.raises(RequestError):
            await Calls(1, 0.01).received(call)
        call.request.set_exception(grpc.aio.UsageError("RPC already finished."))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del call
        gc.collect()
    run(session())
    assert caplog.records == []


def test_only_calls_that_are_over_are_left_out_of_the_log(with_channel, caplog):
    async def ask(channel, monitor):
        for error in (ExecuteBatchError("over"), grpc.aio.UsageError("over"), ValueError("a fault")):
            try:
                raise error
            except Exception:
                logging.getLogger("grpc._cython.cygrpc").error("Unexpected", exc_info=sys.exc_info())
        logging.getLogger("grpc._cython.cygrpc").error("other")
    with_channel(ask)
    assert [record.exc_info and type(record.exc_info[1])
            for record in caplog.records if "cygrpc" in record.name] == [ValueError, None]


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05", b"\x0a\x03\x0a\x01\xff", b"\x0b"])
@pytest.mark.parametrize("path", [
    "/tensorflow.serving.PredictionService/Predict", "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
    "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
def test_malformed_requests_are_told_and_leave_no_trace(with_channel, path, body, caplog, capfd):
    async def ask(channel, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            if path.endswith("Watch"):
                await channel.unary_stream(path)(body).read()
            else:
                await channel.unary_unary(path)(body)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with_channel(ask)
    assert [record for record in caplog.records
            if record.name != "serving"] == [] and "protobuf" not in capfd.readouterr().err


def test_methods_that_are_none(with_channel, caplog):
    async def ask(channel, monitor):
        with pytest.raises(grpc.RpcError) as failed:
            await channel.unary_unary("/tensorflow.serving.PredictionService/X")(b"")
        assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert b'method="X"' not in monitor.expose()
    with_channel(ask)
    assert [record for record in caplog.records if record.name != "serving"] == []


def test_refused_calls_free_their_streams_before_garbage_is_collected(with_channel):
    async def ask(channel, monitor):
        gc.disable()
        try:
            for path in ("/tensorflow.serving.PredictionService/Predict", "/grpc.health.v1.Health/Check"):
                for _ in range(MAX_STREAMS + 10):
                    with pytest.raises(grpc.RpcError) as failed:
                        await channel.unary_unary(path)(b"\xff")
                    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        finally:
            gc.enable()
    with_channel(ask)


def test_a_clients_address_is_its_own_whatever_it_sends(with_channel):
    async def ask(channel, monitor):
        noted = []
        monitor.count = lambda *facts, client: noted.append(client)
        await channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")(
            b"\x0a\x08\x0a\x06albert", metadata=(("x-client", "ipv4:9.9.9.9:9"),))
        assert noted[0].startswith("ipv4:127.0.0.1:")
    with_channel(ask)


def test_health_is_watched_until_the_end(with_channel):
    async def ask(channel, monitor, server):
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as failed:
            await health.Check(health_pb2.HealthCheckRequest(service="x"))
        assert failed.value.code() == grpc.StatusCode.NOT_FOUND
        watch, unknown = (health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "x"))
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        server.say_not_serving()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        late = health.Watch(health_pb2.HealthCheckRequest())           # calls are taken as before
        assert (await late.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.stop(10)
        assert [await each.read() for each in (watch, unknown, late)] == [grpc.aio.EOF] * 3
    with_channel(ask, wants_server=True)


def test_no_call_that_came_is_lost_at_the_end(with_channel):
    async def ask(channel, monitor, server):
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=predict_request().model_spec)
        answered = []

        async def call():
            while True:
                try:
                    answered.append(await stub.GetModelStatus(request))
                except grpc.RpcError as error:
                    return error.details()
        calls = [asyncio.ensure_future(call()) for _ in range(8)]
        while len(answered) < 50:
            await asyncio.sleep(0)
        await server.stop(10)
        assert all("connect" in details.lower()
                   for details in await asyncio.gather(*calls))     # none of them had come
    with_channel(ask, wants_server=True)


class Call:
    """A call whose request comes when it is told to."""

    def __init__(self):
        self.request = asyncio.get_event_loop().create_future()

    async def read(self):
        return await self.request


def test_a_half_sent_call_gives_way_to_a_new_one():
    async def session():
        calls = Calls(2, 60)

        async def answer(call, ends):
            with calls.counted():
                found = await calls.received(call)
                await ends
                return found
        ends = asyncio.get_event_loop().create_future()
        contexts = [Call() for _ in range(4)]
        tasks = [asyncio.ensure_future(answer(context, ends)) for context in contexts[:2]]
        await asyncio.sleep(0)
        contexts[0].request.set_result(b"0")
        while calls._receiving.keys() and len(calls._receiving) > 1:
            await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(answer(contexts[2], ends)))
        with pytest.raises(RequestError, match="At most 2 calls"):
            await tasks[1]                     # the first has come whole, so it stays
        contexts[2].request.set_result(b"2")
        while calls._receiving:
            await asyncio.sleep(0)
        with pytest.raises(RequestError, match="At most 2 calls"):
            await answer(contexts[3], ends)
        ends.set_result(None)
        assert await asyncio.gather(tasks[0], tasks[2]) == [b"0", b"2"]
        contexts[3].request.set_result(b"3")
        assert await answer(contexts[3], ends) == b"3"
    run(session())


def test_a_request_that_does_not_come_ends_its_call():
    async def session():
        with pytest.raises(RequestError, match="did not arrive completely within 0.01 s") as failed:
            await Calls(1, 0.01).received(Call())
        assert failed.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        ended = Call()
        ended.request.set_result(grpc.aio.EOF)
        with pytest.raises(RequestError, match="has no request"):
            await Calls(1, 60).received(ended)
    run(session())
