"""TensorFlow Serving's gRPC services, PredictionService and ModelService, and gRPC's health protocol, over one model.

Requests arrive as bytes: what they would cost, and whether they are messages at all, is looked at here, not by gRPC.
"""
import asyncio
import collections
import contextlib
import logging
import os
import socket
import tempfile
import time
import zlib
from typing import Any, Awaitable, Callable, Dict, Iterator, NamedTuple, Optional

import grpc
from google.protobuf.message import DecodeError
from grpc._cython.cygrpc import ExecuteBatchError
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2, prediction_service_pb2

from serving.service import errors, messages
from serving.service.grpc_relay import MAX_FRAME_BYTES, Relay, RelayLimits, unlinked
from serving.service.inference import CLASSIFY_METHOD, Inference
from serving.service.limits import Limits, check_inputs, check_message, not_parsed, some
from serving.service.monitoring import REQUEST_ID_HEADER, Monitor, request_id_from

METADATA_FIELD = "signature_def"               # the only one there is
MAX_STREAMS = 128                              # of a connection; a client makes its further calls wait
MAX_HEALTH_CALLS = 100                         # apart from others, which may not keep health from answering
WINDOW_BYTES = 65535                           # of a stream that nobody has looked at yet
CALL_IS_OVER = (ExecuteBatchError, grpc.aio.UsageError)     # what gRPC raises where the client has gone, or its deadline passed


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
        message.add_done_callback(_note_failure)
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
    """Predict, Classify, GetModelMetadata; no signature is for Regress and MultiInference, which only have their requests parsed."""

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

    def __init__(self, limits: GrpcLimits, most: Limits) -> None:
        self.ending = asyncio.Event()
        self.relay: Any = None                 # is told of answers
        self._limits, self._most = limits, most
        self._checks, self._watches = (Calls(MAX_HEALTH_CALLS, limits.receive_seconds) for _ in range(2))

    def handler(self) -> Any:
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, None, serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, serialize)})

    async def _check(self, _: Any, context: Any) -> Any:
        try:
            with self._checks.counted():
                service = await self._service(self._checks, context)
                if service:
                    raise errors.RequestError(grpc.StatusCode.NOT_FOUND, "unknown service")
                return self._response(service)
        except errors.RequestError as error:
            return _refuse(context, error)
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
                await self.ending.wait()
                if not service:
                    await context.write(self._response(service))
        except errors.RequestError as error:
            _refuse(context, error)
        except CALL_IS_OVER:
            raise asyncio.CancelledError
        finally:
            self.relay.answered(_call_of(context, self.relay), 0)

    async def _service(self, calls: Calls, context: Any) -> str:
        data = inflated(await calls.received(context), self._limits.max_message_bytes)
        return _parsed(data, health_pb2.HealthCheckRequest, self._most).service

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
        self._health = Health(limits, inference.limits)
        self._server = grpc.aio.server(options=[
            ("grpc.max_receive_message_length", limits.max_message_bytes), ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.http2.max_frame_size", MAX_FRAME_BYTES), ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            ("grpc.per_message_decompression", 0),     # which would come before max_receive_message_length
            ("grpc.http2.bdp_probe", 0)])      # which would make windows as large as a fast client likes
        _be_quiet_about_calls_that_are_over()
        path = os.path.join(tempfile.mkdtemp(), "grpc")
        self._server.add_insecure_port("unix:" + path)
        self._relay = self._health.relay = Relay(listening, unlinked(path), relay_limits)
        calls = Calls(limits.max_calls, limits.receive_seconds)
        services = ((prediction_service_pb2, PredictionService(inference)), (model_service_pb2, ModelService(inference)))
        doors = Doors(monitor, self._relay, calls, limits, inference.limits)
        handlers = [_handler(module.DESCRIPTOR.services_by_name[type(service).__name__], service, doors)
                    for module, service in services]
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


class Doors(NamedTuple):
    """What every call passes, whatever it asks."""
    monitor: Monitor
    relay: Relay
    calls: Calls
    limits: GrpcLimits
    most: Limits


async def answered(doors: Doors, method: str, context: Any, answer: Callable[[], Awaitable[Any]]) -> Any:
    """What `answer` gives, counted and logged; its RequestError becomes the call's status."""
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
        return _refuse(context, error)
    except (asyncio.CancelledError, *CALL_IS_OVER):    # by the client, or its deadline has passed
        code = grpc.StatusCode.CANCELLED
        raise asyncio.CancelledError
    finally:
        doors.relay.answered(metadata.get(doors.relay.call_header, ""), num_bytes)
        doors.monitor.count("grpc", method, code.name, time.perf_counter() - start, request_id,
                            client=metadata.get(doors.relay.client_header, ""))


def _handler(service: Any, servicer: Any, doors: Doors) -> Any:
    """Handlers for all methods of a ServiceDescriptor; those that `servicer` has not are not implemented, whatever they are asked."""
    def handler(method: Any) -> Any:
        ask: Callable[[Any], Awaitable[Any]] = getattr(servicer, method.name, _not_implemented)
        kind = method.input_type._concrete_class

        async def handle(_: Any, context: Any) -> Any:
            async def answer() -> Any:
                with doors.calls.counted():
                    data = await doors.calls.received(context)
                    whole = inflated(data, doors.limits.max_message_bytes)
                    if whole is not data:
                        doors.relay.grew(_call_of(context, doors.relay), len(whole) - len(data))
                    del data
                    return await ask(_parsed(whole, kind, doors.most))
            return await answered(doors, method.name, context, answer)
        # On the wire a call with one request is a stream of one; only as a stream it can be waited for with a time limit.
        return grpc.stream_unary_rpc_method_handler(handle, None, method.output_type._concrete_class.SerializeToString)
    return grpc.method_handlers_generic_handler(service.full_name, {method.name: handler(method) for method in service.methods})


async def _not_implemented(_: Any) -> Any:
    raise errors.RequestError(grpc.StatusCode.UNIMPLEMENTED, "Not implemented by this server")


def inflated(data: bytes, most: int) -> bytes:
    """A message as it was before its client compressed it, by gzip or zlib ("deflate"), or `data` itself where it has not.

    gRPC hands over both alike. They differ: no message begins as gzip's does, with a type of field that is none, and no request of
    these services with a number, which it would do if zlib's first byte were one's. Raises RequestError beyond `most` bytes.
    """
    if data[:2] == b"\x1f\x8b":
        window_bits = 16 + zlib.MAX_WBITS
    elif len(data) >= 2 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0:
        window_bits = zlib.MAX_WBITS
    else:
        return data
    decompressor = zlib.decompressobj(window_bits)
    try:
        found = decompressor.decompress(data, most + 1)
    except zlib.error:
        raise errors.invalid("Could not decompress a message of %d bytes" % len(data))
    if len(found) > most:
        raise errors.RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "Decompressed message is larger than max (%d)" % most)
    if not decompressor.eof or decompressor.unused_data:
        raise errors.invalid("Could not decompress a message of %d bytes" % len(data))
    return found


def _call_of(context: Any, relay: Relay) -> str:
    """What the relay calls a call."""
    return dict(context.invocation_metadata() or ()).get(relay.call_header, "")


def _be_quiet_about_calls_that_are_over() -> None:
    """gRPC writes a traceback for each answer that its client did not wait for."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_call_that_is_over)


def _is_no_call_that_is_over(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], CALL_IS_OVER))


def _parsed(data: bytes, kind: Any, limits: Limits) -> Any:
    check_message(data, kind.DESCRIPTOR, limits)
    try:
        return kind.FromString(data)
    except DecodeError:
        raise not_parsed(data, kind.DESCRIPTOR)


def _refuse(context: Any, error: errors.RequestError) -> None:
    """Gives a call its status; what the handler then returns is not sent.

    `context.abort` would raise, and its exception keep the call's frames, and the call, until garbage is collected: gRPC
    counts it to its connection's streams as long. So does an exception that stands in a frame of its own traceback.
    """
    error.__traceback__ = None
    context.set_code(error.code)
    context.set_details(str(error))


def _note_failure(read: "asyncio.Future[Any]") -> None:
    """Of a read that nobody waits for any longer, which asyncio would log otherwise."""
    if not read.cancelled():
        read.exception()


def _settle(future: "asyncio.Future[None]", error: Optional[Exception] = None) -> None:
    """Ends a wait, unless it has ended."""
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)
