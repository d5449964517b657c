"""Why a request is not answered: a gRPC status code, whichever interface it came by, and a message for the caller."""
import grpc
import tensorflow.compat.v1 as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504, grpc.StatusCode.UNIMPLEMENTED: 501, grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.CANCELLED: 499}


class RequestError(Exception):
    """`code`, a grpc.StatusCode, and a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def http_status(self) -> int:
        return _HTTP_STATUSES.get(self.code, 500)


def invalid(message: str) -> RequestError:
    """The caller's mistake."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_tensorflow(error: tf.errors.OpError) -> RequestError:
    """What the graph says of an input, without the names of its operations."""
    return RequestError(_CODES.get(error.error_code, grpc.StatusCode.INTERNAL), error.message.split("\n")[0])
