"""The number of connections of each interface, so that neither uses up the descriptors that the other, or
loading a model, needs."""
import resource
from typing import NamedTuple

OF_REST, OF_GRPC = 1.5, 3           # for each connection: REST opens some before those that made room close;
                                    # one of gRPC has both ends of a Unix socket, too
KEPT_BACK = 128                     # for libraries, the log, the event loop, a version that is being loaded
WANTED = 65536                      # at most: some systems allow a billion, and some libraries loop over all


class MaxConnections(NamedTuple):
    """Of each interface."""
    rest: int
    grpc: int


def raise_limit() -> int:
    """Raises this process's limit on open descriptors as far as permitted; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


def share(limit: int, rest: int, grpc: int) -> MaxConnections:
    """As many connections as wanted or, where they need more than `limit` descriptors, fewer in the
    same ratio."""
    free = max(2, limit - KEPT_BACK)
    wanted = OF_REST * rest + OF_GRPC * grpc
    ratio = min(1.0, free / wanted)
    return MaxConnections(max(1, int(rest * ratio)), max(1, int(grpc * ratio)))
