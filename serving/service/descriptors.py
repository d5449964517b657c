"""How many connections each interface may have, so that neither takes the files and sockets that the other, or a model's loading, needs."""
import resource
from typing import NamedTuple

OF_REST, OF_GRPC = 1.125, 3                    # for each connection: REST's newcomers are refused beside those that are open; a
                                               # connection of gRPC has an end here, and two of the socket to gRPC's server
KEPT_BACK = 128                                # libraries, the log, the event loop, a version that is loaded
WANTED = 65536                                 # at most: some systems allow a billion, and some libraries walk over all


class Connections(NamedTuple):
    """At most, of each interface."""
    rest: int
    grpc: int


def raise_limit() -> int:
    """Raises this process' limit of descriptors as far as it may; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


def share(limit: int, rest: int, grpc: int) -> Connections:
    """As many connections as wanted, or, where `limit` is lower, parts of it in the same ratio, after what is kept back."""
    free, wanted = max(2, limit - KEPT_BACK), OF_REST * rest + OF_GRPC * grpc
    share_that_fits = min(1.0, free / wanted)
    return Connections(max(1, int(rest * share_that_fits)), max(1, int(grpc * share_that_fits)))
