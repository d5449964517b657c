"""TensorFlow Serving's gRPC services, PredictionService and ModelService, and gRPC's health protocol, over one model.

Requests arrive as bytes: what they would cost, and whether they are messages at all, is looked at here, not by gRPC.
"""
import asyncio
import collections
import contextlib
import functools
import os
import socket
import tempfile
import time
from typing import Any, Awaitable, Callable, Dict, Iterator, NamedTuple, Optional

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2, prediction_service_pb2

from serving.service import errors, messages
from serving.service.grpc_relay import MAX_FRAME_BYTES, Relay, RelayLimits, unlinked
from serving.service.inference import CLASSIFY_METHOD, Inference
from serving.service.limits import Limits, check_inputs, check_message, some
from serving.service.monitoring import REQUEST_ID_HEADER, Monitor, request_id_from

METADATA_FIELD = "signature_def"               # the only one there is
MAX_STREAMS = 128                              # of a connection; a client makes its further calls wait
MAX_HEALTH_CALLS = 100                         # apart from others, which may not keep health from answering
WINDOW_BYTES = 65535                           # of a stream that nobody has looked at yet


class GrpcLimits(NamedTuple):
    """What calls may take."""
    max_message_bytes: int
    max_calls: int                             # under way at once
    receive_seconds: float                     # until a call's request has come whole


class Calls:
    """Calls under way, at most `most`. One whose request has not come whole gives way to a new one, the oldest first."""

    def __init__(self, most: int, receive_seconds: float) -> None:
        self._most, self._seconds = most, receive_seconds
        self._count = 0
        self._receiving: Dict["asyncio.Future[None]", None] = collections.OrderedDict()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Raises RequestError when there are too many."""
        if self._count >= self._most and not self._give_way():
            raise self._too_many()
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def received(self, context: Any) -> bytes:
        """The request of a call. Raises RequestError when it takes too long, or has given way."""
        loop = asyncio.get_event_loop()
        message, arrived = asyncio.ensure_future(context.read()), loop.create_future()
        message.add_done_callback(lambda _: _settle(arrived))
        timer = loop.call_later(self._seconds, _settle, arrived, errors.RequestError(
            grpc.StatusCode.DEADLINE_EXCEEDED, "The request must have come whole after %g s" % self._seconds))
        self._receiving[arrived] = None
        try:
            await arrived                      # the read itself ends with the call: gRPC has no other way to end it
        finally:
            timer.cancel()
            self._receiving.pop(arrived, None)
        found = await message
        if not isinstance(found, bytes):       # the client has ended the call's request without any
            raise errors.invalid("The call has no request")
        return found

    def _give_way(self) -> bool:
        for arrived in self._receiving:
            del self._receiving[arrived]
            _settle(arrived, self._too_many())
            return True
        return False

    def _too_many(self) -> errors.RequestError:
        return errors.RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "At most %d calls may be under way" % self._most)


class PredictionService:
    """Predict, Classify, GetModelMetadata; no signature is for Regress and MultiInference."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def Predict(self, request: Any) -> Any:
        target = self._inference.find(request.model_spec)
        wanted = messages.output_names(request.output_filter, target.signature.outputs)
        check_inputs(target.signature, messages.described_inputs(request), target.limits)
        found = await self._inference.predict(target, messages.predict_inputs(request))
        return messages.predict_response(target.spec, found, wanted)

    async def Classify(self, request: Any) -> Any:
        target = self._inference.find(request.model_spec, CLASSIFY_METHOD)
        messages.check_examples(request, target.limits)
        found = await self._inference.classify(target, messages.serialized_examples(request))
        return messages.classify_response(target.spec, found)

    async def GetModelMetadata(self, request: Any) -> Any:
        if list(request.metadata_field) != [METADATA_FIELD]:
            raise errors.invalid("Metadata field must be %s, got %s" % (METADATA_FIELD, some(request.metadata_field) or "none"))
        target = self._inference.find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=target.spec)
        response.metadata[METADATA_FIELD].Pack(
            get_model_metadata_pb2.SignatureDefMap(signature_def=target.version.model.signatures))
        return response


class ModelService:
    """GetModelStatus; which model is served is said by flags, not by HandleReloadConfigRequest."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def GetModelStatus(self, request: get_model_status_pb2.GetModelStatusRequest) -> Any:
        return self._inference.versions.status(request.model_spec)


class Health:
    """gRPC's health protocol for the server as a whole, whose name is "". Set `ending` and it says no."""

    def __init__(self, limits: Limits, receive_seconds: float) -> None:
        self.ending = asyncio.Event()
        self._limits = limits
        self._checks, self._watches = (Calls(MAX_HEALTH_CALLS, receive_seconds) for _ in range(2))

    def handler(self) -> Any:
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, serialize)})

    async def _check(self, _: Any, context: Any) -> Any:
        try:
            with self._checks.counted():
                service = _parsed(await self._checks.received(context), health_pb2.HealthCheckRequest, self._limits).service
                if service:
                    raise errors.RequestError(grpc.StatusCode.NOT_FOUND, "unknown service")
                return self._response(service)
        except errors.RequestError as error:
            return _refuse(context, error)

    async def _watch(self, _: Any, context: Any) -> None:
        try:
            with self._watches.counted():
                service = _parsed(await self._watches.received(context), health_pb2.HealthCheckRequest, self._limits).service
                await context.write(self._response(service))
                await self.ending.wait()
                if not service:
                    await context.write(self._response(service))
        except errors.RequestError as error:
            _refuse(context, error)

    def _response(self, service: str) -> Any:
        statuses = health_pb2.HealthCheckResponse
        status = (statuses.SERVICE_UNKNOWN if service else
                  statuses.NOT_SERVING if self.ending.is_set() else statuses.SERVING)
        return statuses(status=status)


class GrpcServer:
    """All services at the socket `listening`, behind a relay."""

    def __init__(self, inference: Inference, monitor: Monitor, listening: socket.socket, limits: GrpcLimits,
                 relay_limits: RelayLimits) -> None:
        self.port = listening.getsockname()[1]
        self._health = Health(inference.limits, limits.receive_seconds)
        self._server = grpc.aio.server(options=[
            ("grpc.max_receive_message_length", limits.max_message_bytes), ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.http2.max_frame_size", MAX_FRAME_BYTES), ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.http2.bdp_probe", 0)])      # which would make windows as large as a fast client likes
        path = os.path.join(tempfile.mkdtemp(), "grpc")
        self._server.add_insecure_port("unix:" + path)
        self._relay = Relay(listening, unlinked(path), relay_limits)
        calls = Calls(limits.max_calls, limits.receive_seconds)
        services = ((prediction_service_pb2, PredictionService(inference)), (model_service_pb2, ModelService(inference)))
        handlers = [_handler(module.DESCRIPTOR.services_by_name[type(service).__name__], service, calls, inference.limits,
                             functools.partial(answered, monitor, self._relay.client_header)) for module, service in services]
        self._server.add_generic_rpc_handlers((*handlers, self._health.handler()))

    async def start(self) -> None:
        await self._server.start()
        self._relay.start()

    async def stop(self, seconds: float) -> None:
        """Takes no further call, and gives those under way `seconds`."""
        self._health.ending.set()
        await self._relay.drain(seconds)
        self._relay.close()
        await self._server.stop(0)


async def answered(monitor: Monitor, client_header: str, method: str, context: Any, answer: Callable[[], Awaitable[Any]]) -> Any:
    """What `answer` gives, counted and logged; its RequestError becomes the call's status."""
    start = time.perf_counter()
    metadata = dict(context.invocation_metadata() or ())
    request_id = request_id_from(metadata.get(REQUEST_ID_HEADER))
    code = grpc.StatusCode.INTERNAL
    try:
        await context.send_initial_metadata(((REQUEST_ID_HEADER, request_id),))
        response = await answer()
        code = grpc.StatusCode.OK
        return response
    except errors.RequestError as error:
        code = error.code
        return _refuse(context, error)
    except asyncio.CancelledError:             # by the client, or its deadline has passed
        code = grpc.StatusCode.CANCELLED
        raise
    finally:
        monitor.count("grpc", method, code.name, time.perf_counter() - start, request_id,
                      client=metadata.get(client_header, ""))


def _handler(service: Any, servicer: Any, calls: Calls, limits: Limits, answered: Callable[..., Awaitable[Any]]) -> Any:
    """Handlers for all methods of a ServiceDescriptor; those that `servicer` has not are not implemented."""
    def handler(method: Any) -> Any:
        ask: Optional[Callable[[Any], Awaitable[Any]]] = getattr(servicer, method.name, None)
        kind = method.input_type._concrete_class

        async def handle(_: Any, context: Any) -> Any:
            async def answer() -> Any:
                if ask is None:
                    raise errors.RequestError(grpc.StatusCode.UNIMPLEMENTED, "Not implemented by this server")
                with calls.counted():
                    return await ask(_parsed(await calls.received(context), kind, limits))
            return await answered(method.name, context, answer)
        # On the wire a call with one request is a stream of one; only as a stream it can be waited for with a time limit.
        return grpc.stream_unary_rpc_method_handler(handle, None, method.output_type._concrete_class.SerializeToString)
    return grpc.method_handlers_generic_handler(service.full_name, {method.name: handler(method) for method in service.methods})


def _parsed(data: bytes, kind: Any, limits: Limits) -> Any:
    check_message(data, kind.DESCRIPTOR, limits)
    try:
        return kind.FromString(data)
    except DecodeError:
        raise errors.invalid("Could not parse %d bytes as %s" % (len(data), kind.DESCRIPTOR.full_name))


def _refuse(context: Any, error: errors.RequestError) -> None:
    """Gives a call its status; what the handler then returns is not sent.

    `context.abort` would raise, and its exception keep the call's frames, and the call, until garbage is collected: gRPC
    counts it to its connection's streams as long. So does an exception that stands in a frame of its own traceback.
    """
    error.__traceback__ = None
    context.set_code(error.code)
    context.set_details(str(error))


def _settle(future: "asyncio.Future[None]", error: Optional[Exception] = None) -> None:
    """Ends a wait, unless it has ended."""
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
