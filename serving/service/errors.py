"""Why a request fails: a gRPC status code, for either interface, and a message for the caller."""
import grpc
import tensorflow.compat.v1 as tf

MAX_MESSAGE = 400                              # characters
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504, grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413, grpc.StatusCode.CANCELLED: 499}


class RequestError(Exception):
    """`code`, a grpc.StatusCode, and a message, whose middle is left out when it is long.

    A message quotes the input, which may be megabytes; gRPC's trailers hold 8 KiB, with nine bytes per
    Chinese character.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(shortened(message))
        self.code = code

    @property
    def http_status(self) -> int:
        return _HTTP_STATUSES.get(self.code, 500)


def shortened(message: str) -> str:
    """The beginning and the end of a message, as text that can be sent."""
    if len(message) > MAX_MESSAGE:
        message = message[:MAX_MESSAGE // 2] + " … " + message[-MAX_MESSAGE // 2:]
    return message.encode("utf-8", "replace").decode("utf-8")


def invalid(message: str) -> RequestError:
    """An error of the caller."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """The graph's error for an input, without the names of its operations."""
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.INTERNAL), error.message.split("\n")[0])
