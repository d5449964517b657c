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
GARBAGE_OBJECTS = 20000  # between two collections; Python's default is 700


@contextlib.contextmanager
def outputs_apart() -> Iterator[int]:
    """While the block runs, logging never blocks on its reader, and the libraries' lines go only to standard
    error.

    Yields the descriptor of standard output. Must be entered before gRPC is imported.
    """
    errors = log_without_waiting()
    # otherwise its core logs malformed calls, which anyone may send
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with output_apart() as output:
            yield output
    finally:
        errors.close()


def bind(host: str, port: int, name: str) -> socket.socket:
    """A socket to listen on; until it listens, connections are refused. Raises UserError, naming the flag,
    if it cannot be bound."""
    with _named(host, port, name):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        return listening


def listen(bound: socket.socket, name: str) -> None:
    """Raises UserError, naming the flag, if another process is listening there by now."""
    host, port = bound.getsockname()[:2]
    with _named(host, port, name):
        bound.listen(1024)


@contextlib.contextmanager
def _named(host: str, port: int, name: str) -> Iterator[None]:
    """Turns a system error into a UserError that names the flag."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise UserError("--host: %s: %s: not an address of this machine" % (host, reason))
        advice = "; give another, or 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        raise UserError("--%s: %s:%d: %s%s" % (name, host, port, reason, advice))


def log_without_waiting() -> LineLog:
    """Makes Python's logging write to standard error without ever blocking on its reader."""
    errors, root = LineLog(2), logging.getLogger()
    handler = LineLogHandler(errors)
    handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.handlers = [handler]
    return errors


def connections_that_fit(config: ServerConfig) -> descriptors.MaxConnections:
    """How many connections each interface may have; warns if that is fewer than the flags ask for."""
    limit = descriptors.raise_limit()
    found = descriptors.share(limit, config.max_connections, config.max_grpc_connections)
    if found.rest < config.max_connections:
        LOG.warning("--max_connections %d and --max_grpc_connections %d do not fit into %d descriptors "
                    "(ulimit -n); using %d and %d",
                    config.max_connections, config.max_grpc_connections, limit, *found)
    return found


def look_for_less_garbage() -> None:
    """Makes Python collect garbage less often, and only among objects created from now on.

    The libraries have 170,000 objects: a full collection visits all of them, which stops everything for 70
    ms, and happens more often the more requests there are. A request's objects are freed by reference
    counting.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
