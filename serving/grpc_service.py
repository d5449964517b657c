"""TensorFlow Serving's gRPC services, PredictionService and ModelService, over one model."""
import asyncio
import time
from typing import Any, Awaitable, Callable

import grpc
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceServicer, add_ModelServiceServicer_to_server
from tensorflow_serving.apis.prediction_service_pb2_grpc import (PredictionServiceServicer,
                                                                 add_PredictionServiceServicer_to_server)

from serving import errors, messages
from serving.inference import CLASSIFY_METHOD, Inference
from serving.monitoring import REQUEST_ID_HEADER, Monitor, request_id_from

METADATA_FIELD = "signature_def"               # the only one there is


class PredictionService(PredictionServiceServicer):
    """Predict, Classify, GetModelMetadata; no signature is for Regress and MultiInference."""

    def __init__(self, inference: Inference, monitor: Monitor) -> None:
        self._inference, self._monitor = inference, monitor

    async def Predict(self, request: Any, context: Any) -> Any:
        async def answer() -> Any:
            target = self._inference.find(request.model_spec)
            found = await self._inference.predict(target, messages.predict_inputs(request))
            return messages.predict_response(target.spec, found, request.output_filter)
        return await answered(self._monitor, "Predict", context, answer)

    async def Classify(self, request: Any, context: Any) -> Any:
        async def answer() -> Any:
            target = self._inference.find(request.model_spec, CLASSIFY_METHOD)
            found = await self._inference.classify(target, messages.serialized_examples(request))
            return messages.classify_response(target.spec, found)
        return await answered(self._monitor, "Classify", context, answer)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:
        async def answer() -> Any:
            if list(request.metadata_field) != [METADATA_FIELD]:
                raise errors.invalid("Metadata field must be %s, got %s"
                                     % (METADATA_FIELD, ", ".join(request.metadata_field) or "none"))
            target = self._inference.find(request.model_spec)
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=target.spec)
            response.metadata[METADATA_FIELD].Pack(
                get_model_metadata_pb2.SignatureDefMap(signature_def=target.version.model.signatures))
            return response
        return await answered(self._monitor, "GetModelMetadata", context, answer)


    async def Regress(self, request: Any, context: Any) -> Any:
        return await answered(self._monitor, "Regress", context, _not_implemented)

    async def MultiInference(self, request: Any, context: Any) -> Any:
        return await answered(self._monitor, "MultiInference", context, _not_implemented)


class ModelService(ModelServiceServicer):
    """GetModelStatus; which model is served is said by flags, not by HandleReloadConfigRequest."""

    def __init__(self, inference: Inference, monitor: Monitor) -> None:
        self._inference, self._monitor = inference, monitor

    async def GetModelStatus(self, request: get_model_status_pb2.GetModelStatusRequest, context: Any) -> Any:
        async def answer() -> Any:
            return self._inference.versions.status(request.model_spec)
        return await answered(self._monitor, "GetModelStatus", context, answer)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:
        return await answered(self._monitor, "HandleReloadConfigRequest", context, _not_implemented)


class GrpcServer:
    """Both services, and health by the gRPC Health Checking Protocol, at `port`."""

    def __init__(self, inference: Inference, monitor: Monitor, host: str, port: int, max_message_bytes: int) -> None:
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0),
                                                ("grpc.max_receive_message_length", max_message_bytes)])
        add_PredictionServiceServicer_to_server(PredictionService(inference, monitor), self._server)
        add_ModelServiceServicer_to_server(ModelService(inference, monitor), self._server)
        add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port("%s:%d" % (host, port))

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Takes no further call, and gives those under way `seconds`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


async def answered(monitor: Monitor, method: str, context: Any, answer: Callable[[], Awaitable[Any]]) -> Any:
    """What `answer` gives, counted and logged; its RequestError becomes the call's status."""
    start = time.perf_counter()
    request_id = request_id_from(dict(context.invocation_metadata() or ()).get(REQUEST_ID_HEADER))
    code = grpc.StatusCode.INTERNAL
    try:
        await context.send_initial_metadata(((REQUEST_ID_HEADER, request_id),))
        response = await answer()
        code = grpc.StatusCode.OK
        return response
    except errors.RequestError as error:
        code = error.code
        await context.abort(code, str(error))
    except asyncio.CancelledError:             # by the client, or its deadline has passed
        code = grpc.StatusCode.CANCELLED
        raise
    finally:
        monitor.count("grpc", method, code.name, time.perf_counter() - start, request_id, client=context.peer())


async def _not_implemented() -> Any:
    raise errors.RequestError(grpc.StatusCode.UNIMPLEMENTED, "Not implemented by this server")
