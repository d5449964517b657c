"""TensorFlow Serving's gRPC services, PredictionService and ModelService, and gRPC's health protocol.

Requests arrive as bytes: this file checks their cost and parses them; gRPC does neither.

    called ──► receiving ──whole──► parsed and checked ──► answered: a response, or the status of a RequestError
                   │                                          ▲
                   └──too late, or gives way to a new call────┘
"""
import asyncio
import collections
import contextlib
import logging
import os
import socket
import tempfile
import time
from typing import (Any, Awaitable, Callable, Dict, Iterator, NamedTuple, Optional, Tuple, Type, TypeVar,
                    Union)

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc._cython.cygrpc import ExecuteBatchError
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import (GetModelMetadataRequest, GetModelMetadataResponse,
                                                            SignatureDefMap)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from etl.common.command_line import UserError
from serving.service import compression, errors, messages, model_configs
from serving.service.grpc_relay import MAX_FRAME_BYTES, Relay, RelayLimits, unlinked
from serving.service.inference import CLASSIFY_METHOD, PREDICT_METHOD, REGRESS_METHOD, Inference
from serving.service.limits import Limits, check_inputs, check_message, not_parsed, some
from serving.service.models import Models
from serving.service.monitoring import REQUEST_ID_HEADER, Monitor, request_id_from

METADATA_FIELD = "signature_def"            # the only one there is
MAX_STREAMS = 128                           # per connection; clients queue further calls themselves
MAX_HEALTH_CALLS = 100                      # counted separately: other calls must not block health checks
WINDOW_BYTES = 65535                        # of an unread stream
# what gRPC raises when the client has disconnected or its deadline has passed
CALL_IS_OVER = (ExecuteBatchError, grpc.aio.UsageError)

SomeMessage = TypeVar("SomeMessage", bound=Message)


class GrpcLimits(NamedTuple):
    """Limits on calls."""
    max_message_bytes: int
    max_calls: int                             # under way at once
    receive_seconds: float                     # until a call's request has come whole


class GrpcOptions(NamedTuple):
    """What else is asked of the interface."""
    channel_arguments: Tuple[Tuple[str, int], ...]     # gRPC's own, by name
    allows_reload: bool                        # whether clients may choose the models


class Calls:
    """Pending calls, at most `max_calls`. The oldest with an incomplete request gives way to a new one."""

    def __init__(self, max_calls: int, receive_seconds: float) -> None:
        self._max_calls, self._seconds = max_calls, receive_seconds
        self._count = 0
        self._receiving: Dict["asyncio.Future[None]", None] = collections.OrderedDict()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Raises RequestError when there are too many."""
        if self._count >= self._max_calls and not self._end_oldest_receiving():
            raise self._too_many()
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def received(self, context: Any) -> bytes:
        """The request of a call. Raises RequestError when it takes too long, or gives way to another call."""
        loop = asyncio.get_event_loop()
        reading = asyncio.ensure_future(context.read())  # ends with the call: gRPC has no other way to end it
        arrived = loop.create_future()  # is set when the read ends, or else by whoever ends the wait for it
        reading.add_done_callback(_note_failure)
        reading.add_done_callback(lambda _: _settle(arrived))
        timer = loop.call_later(self._seconds, _settle, arrived, self._too_late())
        self._receiving[arrived] = None
        try:
            await arrived
        finally:
            timer.cancel()
            self._receiving.pop(arrived, None)
        found = await reading
        if not isinstance(found, bytes):       # the client has ended its side of the call without a request
            raise errors.invalid("The call has no request")
        return found

    def _end_oldest_receiving(self) -> bool:
        """Whether there was one."""
        oldest = next(iter(self._receiving), None)
        if oldest is None:
            return False
        del self._receiving[oldest]
        _settle(oldest, self._too_many())
        return True

    def _too_late(self) -> errors.RequestError:
        return errors.RequestError(grpc.StatusCode.DEADLINE_EXCEEDED,
                                   "The request did not arrive completely within %g s" % self._seconds)

    def _too_many(self) -> errors.RequestError:
        return errors.RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED,
                                   "At most %d calls may be under way" % self._max_calls)


class PredictionService:
    """Predict, Classify, Regress, MultiInference, GetModelMetadata."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def Predict(self, request: PredictRequest) -> PredictResponse:
        target = self._inference.find(request.model_spec, PREDICT_METHOD, grpc.StatusCode.FAILED_PRECONDITION)
        wanted = messages.output_names(request.output_filter, target.signature.outputs)
        check_inputs(target.signature, messages.described_inputs(request), target.limits)
        found = await self._inference.predict(target, messages.predict_inputs(request))
        return messages.predict_response(target.spec, found, wanted)

    async def Classify(self, request: ClassificationRequest) -> ClassificationResponse:
        spec, found = await self._of_examples(request, CLASSIFY_METHOD)
        return messages.classify_response(spec, found)

    async def Regress(self, request: RegressionRequest) -> RegressionResponse:
        spec, found = await self._of_examples(request, REGRESS_METHOD)
        return messages.regress_response(spec, found)

    async def MultiInference(self, request: MultiInferenceRequest) -> MultiInferenceResponse:
        targets = self._inference.find_tasks(request.tasks)
        messages.check_examples(request, targets[0].limits)
        found = await self._inference.of_tasks(targets, messages.serialized_examples(request))
        return messages.multi_inference_response(
            (target.spec, target.signature.method_name == REGRESS_METHOD, outputs)
            for target, outputs in zip(targets, found))

    async def GetModelMetadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        if set(request.metadata_field) != {METADATA_FIELD}:
            raise errors.invalid("Metadata field must be %s, got %s"
                                 % (METADATA_FIELD, some(request.metadata_field) or "none"))
        version = self._inference.models.find(request.model_spec).versions.find(request.model_spec)
        response = GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version.number
        response.metadata[METADATA_FIELD].Pack(SignatureDefMap(signature_def=version.model.signatures))
        return response

    async def _of_examples(self, request: messages.RequestOfExamples,
                           method: str) -> Tuple[ModelSpec, messages.Arrays]:
        target = self._inference.find(request.model_spec, method)
        messages.check_examples(request, target.limits)
        return target.spec, await self._inference.of_examples(target, messages.serialized_examples(request))


class ModelService:
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, models: Models, allows_reload: bool) -> None:
        self._models, self._allows_reload = models, allows_reload

    async def GetModelStatus(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        return self._models.status(request.model_spec)

    async def HandleReloadConfigRequest(self, request: ReloadConfigRequest) -> ReloadConfigResponse:
        """Answers when the models that it asks for are served; when they cannot be, nothing has changed."""
        if not self._allows_reload:
            raise errors.RequestError(grpc.StatusCode.PERMISSION_DENIED, "--allow_reload_config is false")
        try:
            configs = model_configs.from_message(request.config)
        except UserError as error:
            raise errors.invalid(str(error))
        try:
            await self._models.reload(configs)
        except UserError as error:
            raise errors.RequestError(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return ReloadConfigResponse()


class Health:
    """gRPC's health protocol for the server as a whole, the service "". Once `leaving` is set it is
    NOT_SERVING; `ending` ends what watches it."""

    def __init__(self, limits: GrpcLimits, most: Limits) -> None:
        self.leaving, self.ending = asyncio.Event(), asyncio.Event()
        self.relay: Any = None                 # is told of answers
        self._limits, self._most = limits, most
        self._checks, self._watches = (Calls(MAX_HEALTH_CALLS, limits.receive_seconds) for _ in range(2))

    def handler(self) -> grpc.GenericRpcHandler:
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, serialize)})

    async def _check(self, _: Any, context: Any) -> Optional[health_pb2.HealthCheckResponse]:
        try:
            with self._checks.counted():
                service = await self._service(self._checks, context)
                if service:
                    raise errors.RequestError(grpc.StatusCode.NOT_FOUND, "unknown service")
                return self._response(service)
        except errors.RequestError as error:
            _refuse(context, error)
            return None
        except CALL_IS_OVER:
            raise asyncio.CancelledError
        finally:
            self.relay.answered(_call_of(context, self.relay), 0)

    async def _watch(self, _: Any, context: Any) -> None:
        try:
            with self._watches.counted():
                service = await self._service(self._watches, context)
                self.relay.answered(_call_of(context, self.relay), 0, ends=False)
                await context.write(self._response(service))
                if not service and not self.leaving.is_set():
                    await self.leaving.wait()
                    await context.write(self._response(service))
                await self.ending.wait()
        except errors.RequestError as error:
            _refuse(context, error)
        except CALL_IS_OVER:
            raise asyncio.CancelledError
        finally:
            self.relay.answered(_call_of(context, self.relay), 0)

    async def _service(self, calls: Calls, context: Any) -> str:
        data = inflated(await calls.received(context), self._limits.max_message_bytes)
        return str(_parsed(data, health_pb2.HealthCheckRequest, self._most).service)

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        """For any service but "" the status is SERVICE_UNKNOWN."""
        statuses = health_pb2.HealthCheckResponse
        of_server = statuses.NOT_SERVING if self.leaving.is_set() else statuses.SERVING
        return statuses(status=statuses.SERVICE_UNKNOWN if service else of_server)


class GrpcServer:
    """All services at the socket `listening`, behind a relay."""

    def __init__(self, inference: Inference, monitor: Monitor, listening: socket.socket, limits: GrpcLimits,
                 relay_limits: RelayLimits, options: GrpcOptions) -> None:
        self.port = listening.getsockname()[1]
        self._health = Health(limits, inference.limits)
        self._server = grpc.aio.server(options=[
            *options.channel_arguments,
            ("grpc.max_receive_message_length", limits.max_message_bytes),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.http2.max_frame_size", MAX_FRAME_BYTES), ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.per_message_decompression", 0),     # which would come before max_receive_message_length
            ("grpc.http2.bdp_probe", 0)])      # it would give fast clients windows of any size
        _be_quiet_about_calls_that_are_over()
        with _socket_path() as path:
            self._server.add_insecure_port("unix:" + path)
            self._relay = self._health.relay = Relay(listening, unlinked(path), relay_limits)
        calls = Calls(limits.max_calls, limits.receive_seconds)
        doors = Doors(monitor, self._relay, calls, limits, inference.limits)
        predicting, managing = (
            prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"],
            model_service_pb2.DESCRIPTOR.services_by_name["ModelService"])
        self._server.add_generic_rpc_handlers((
            _handler(predicting, PredictionService(inference), doors),
            _handler(managing, ModelService(inference.models, options.allows_reload), doors),
            self._health.handler()))

    async def start(self) -> None:
        await self._server.start()
        self._relay.start()

    def say_not_serving(self) -> None:
        """From now on that is what health says; calls are taken as before."""
        self._health.leaving.set()

    async def stop(self, seconds: float) -> None:
        """Accepts no more calls, and gives pending ones `seconds`."""
        self.say_not_serving()
        self._health.ending.set()
        await self._relay.drain(seconds)
        self._relay.close()
        await self._server.stop(0)


class Doors(NamedTuple):
    """The checks common to all calls."""
    monitor: Monitor
    relay: Relay
    calls: Calls
    limits: GrpcLimits
    most: Limits


async def answered(doors: Doors, method: str, context: Any,
                   answer: Callable[[], Awaitable[Message]]) -> Optional[Message]:
    """The response that `answer` gives, counted and logged; its RequestError becomes the call's status.

    This is the only place where calls of the model's services are refused, also under overload.
    """
    start = time.perf_counter()
    metadata = dict(context.invocation_metadata() or ())
    request_id = request_id_from(metadata.get(REQUEST_ID_HEADER))
    code, num_bytes = grpc.StatusCode.INTERNAL, 0
    try:
        await context.send_initial_metadata(((REQUEST_ID_HEADER, request_id),))
        response = await answer()
        code, num_bytes = grpc.StatusCode.OK, response.ByteSize()
        return response
    except errors.RequestError as error:
        code = error.code
        _refuse(context, error)
        return None
    except (asyncio.CancelledError, *CALL_IS_OVER):    # by the client, or its deadline has passed
        code = grpc.StatusCode.CANCELLED
        raise asyncio.CancelledError
    finally:
        doors.relay.answered(metadata.get(doors.relay.call_header, ""), num_bytes)
        doors.monitor.count("grpc", method, code.name, time.perf_counter() - start, request_id,
                            client=metadata.get(doors.relay.client_header, ""))


def _handler(descriptor: ServiceDescriptor, service: Union[PredictionService, ModelService],
             doors: Doors) -> grpc.GenericRpcHandler:
    """Handlers for all methods of the descriptor; those that `service` lacks are UNIMPLEMENTED for any
    request."""
    def handler(method: MethodDescriptor) -> grpc.RpcMethodHandler:
        implementation: Callable[[Message], Awaitable[Message]] = getattr(service, method.name,
                                                                          _not_implemented)
        request_class, response_class = method.input_type._concrete_class, method.output_type._concrete_class

        async def handle(_: Any, context: Any) -> Optional[Message]:
            async def answer() -> Message:
                with doors.calls.counted():
                    data = await doors.calls.received(context)
                    whole = inflated(data, doors.limits.max_message_bytes)
                    if whole is not data:
                        doors.relay.grew(_call_of(context, doors.relay), len(whole) - len(data))
                    del data
                    return await implementation(_parsed(whole, request_class, doors.most))
            return await answered(doors, method.name, context, answer)
        # On the wire a call with one request is a stream of one; only waiting for a stream can have a
        # time limit.
        return grpc.stream_unary_rpc_method_handler(handle, None, response_class.SerializeToString)
    handlers = {method.name: handler(method) for method in descriptor.methods}
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


async def _not_implemented(_: Message) -> Message:
    raise errors.RequestError(grpc.StatusCode.UNIMPLEMENTED, "Not implemented by this server")


def inflated(data: bytes, most: int) -> bytes:
    """A message decompressed from gzip or zlib ("deflate"), or `data` itself if it is not compressed.

    gRPC does not say which. But they differ: gzip's first byte would be an invalid field type in a message,
    and zlib's would be a numeric field, with which no request of these services begins.
    Raises RequestError beyond `most` bytes.
    """
    if data.startswith(compression.GZIP_START):
        return compression.inflated(data, compression.GZIP, most)
    if len(data) >= 2 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0:
        return compression.inflated(data, compression.ZLIB, most)
    return data


@contextlib.contextmanager
def _socket_path() -> Iterator[str]:
    """A path for a Unix socket, only for this process, in a new folder, which must be empty again after the
    block. It is short whatever TMPDIR is: that of a socket may have 107 bytes."""
    folder = tempfile.mkdtemp()
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield "/proc/self/fd/%d/grpc" % descriptor
    finally:
        os.close(descriptor)
        os.rmdir(folder)


def _call_of(context: Any, relay: Relay) -> str:
    """The relay's number for a call."""
    return dict(context.invocation_metadata() or ()).get(relay.call_header, "")


def _be_quiet_about_calls_that_are_over() -> None:
    """gRPC writes a traceback for each answer that its client did not wait for."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_call_that_is_over)


def _is_no_call_that_is_over(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], CALL_IS_OVER))


def _parsed(data: bytes, kind: Type[SomeMessage], limits: Limits) -> SomeMessage:
    """Raises RequestError for a message that is too large or malformed."""
    check_message(data, kind.DESCRIPTOR, limits)
    try:
        return kind.FromString(data)
    except DecodeError:
        raise not_parsed(data, kind.DESCRIPTOR)


def _refuse(context: Any, error: errors.RequestError) -> None:
    """Sets a call's status; what the handler then returns is not sent.

    `context.abort` would raise an exception that keeps the call's frames, and so the call, until garbage is
    collected; until then gRPC counts the call among its connection's streams. An error that a frame of its
    own traceback holds does the same.
    """
    error.__traceback__ = None
    context.set_code(error.code)
    context.set_details(str(error))


def _note_failure(read: "asyncio.Future[Any]") -> None:
    """Ignores the exception of an abandoned read, which asyncio would log otherwise."""
    if not read.cancelled():
        read.exception()


def _settle(future: "asyncio.Future[None]", error: Optional[Exception] = None) -> None:
    """Ends the wait for `future`, unless it is done."""
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
