"""What a server does to its own process: outputs, listening sockets, descriptors, garbage collection."""
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
from typing import Iterator

from etl.common.command_line import UserError
from serving.service import descriptors
from serving.service.flags import ServerConfig
from serving.service.line_log import LineLog, LineLogHandler, output_apart

LOG = logging.getLogger("serving")
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GARBAGE_OBJECTS = 20000  # between two looks for unreachable ones; Python's default is 700


@contextlib.contextmanager
def outputs_apart() -> Iterator[int]:
    """While the block runs, logging never blocks on its reader, and the libraries' lines reach standard
    error alone.

    Gives the descriptor of standard output. To be entered before gRPC is imported.
    """
    errors = log_without_waiting()
    # else its core has lines to say of odd calls, which anybody may send
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with output_apart() as output:
            yield output
    finally:
        errors.close()


def end_at_once_on_signals() -> None:
    """Has SIGTERM and SIGINT end the process, until an event loop takes them over.

    Python's own SIGINT is an exception, which may come anywhere in a library that is being imported; and of a
    container's first process the system keeps all signals that it has no handler for.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


def bind(host: str, port: int, name: str) -> socket.socket:
    """A socket to listen at; until it listens, whoever connects is refused. Raises UserError, naming the
    flag, when there can be none."""
    with _named(host, port, name):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        return listening


def listen(bound: socket.socket, name: str) -> None:
    """Raises UserError, naming the flag, when another process listens there by now."""
    host, port = bound.getsockname()[:2]
    with _named(host, port, name):
        bound.listen(1024)


@contextlib.contextmanager
def _named(host: str, port: int, name: str) -> Iterator[None]:
    """Turns an error of the system into a UserError that names the flag."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError("--host: %s: %s: not an address of this machine" % (host, reason))
        advice = "; give another, or 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise UserError("--%s: %s:%d: %s%s" % (name, host, port, reason, advice))


def log_without_waiting() -> LineLog:
    """Has Python's logging write to standard error without ever blocking on its reader."""
    errors, root = LineLog(2), logging.getLogger()
    handler = LineLogHandler(errors)
    handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.handlers = [handler]
    return errors


def connections_that_fit(config: ServerConfig) -> descriptors.MaxConnections:
    """How many connections each interface may have; warns when that is fewer than the flags say."""
    limit = descriptors.raise_limit()
    found = descriptors.share(limit, config.max_connections, config.max_grpc_connections)
    if found.rest < config.max_connections:
        LOG.warning("--max_connections %d and --max_grpc_connections %d do not fit into %d descriptors "
                    "(ulimit -n); using %d and %d",
                    config.max_connections, config.max_grpc_connections, limit, *found)
    return found


def look_for_less_garbage() -> None:
    """Has Python collect garbage less often, and only among objects made from now on.

    The libraries are 170,000 objects: a full collection visits all of them, which stops everything for 70
    ms, and comes more often the more requests there are. What a request leaves behind is freed by
    reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
