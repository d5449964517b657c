"""A build's worker processes on this host communicate with Beam's runner over Unix sockets, in a folder that
only this user can access.

Beam 2.48 uses TCP ports, on all addresses and without authentication, and unpickles whatever it receives
there: anyone who reaches one of them can run any code. It has no setting for that. So this file replaces what
Beam calls: its servers listen on sockets that are named by numbers, which Beam treats as ports, and its
workers' channels connect to them. Anything else is refused: with a Beam that works differently, the build
fails instead of listening on a port.
"""
import itertools
import os
import urllib.parse
from typing import Any

import grpc
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.runners.worker.channel_factory import GRPCChannelFactory

FOLDER_VARIABLE = "ETL_WORKER_SOCKETS"         # tells a worker the folder
BEAMS_ADDRESS = "[::]:0"                       # what Beam 2.48 requests: any port on all addresses


def listen_at_sockets(folder: str) -> None:
    """Makes the servers of this process's runner listen in the folder, and tells its workers the folder."""
    os.environ[FOLDER_VARIABLE] = folder
    worker_handlers.grpc = local_job_service.grpc = _Grpc(folder)


def connect_to_sockets(folder: str) -> None:
    """Makes Beam's worker code connect only to sockets in the folder."""
    connect = GRPCChannelFactory.insecure_channel

    def insecure_channel(target: str, options: Any = None) -> grpc.Channel:
        host, _, number = target.rpartition(":")
        if host != "localhost" or not number.isdigit():
            raise RuntimeError("Beam's worker connects to %s, which is no socket of its runner's" % target)
        return connect(_url(folder, number), options)

    GRPCChannelFactory.insecure_channel = staticmethod(insecure_channel)


def work() -> None:
    """Runs a worker started by Beam's runner, until it ends."""
    connect_to_sockets(os.environ[FOLDER_VARIABLE])
    sdk_worker_main.main([])


class _Grpc:
    """Everything that Beam's runner may use of gRPC: servers. Any other name is an AttributeError."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # as ports they would be privileged: no other user's process can answer there
        self._numbers = itertools.count(1)

    def server(self, *args: Any, **kwargs: Any) -> grpc.Server:
        """A gRPC server, with the same arguments, that listens in the folder."""
        server = grpc.server(*args, **kwargs)
        listen = server.add_insecure_port

        def add_insecure_port(address: str) -> int:
            if address != BEAMS_ADDRESS:
                raise RuntimeError("Beam's runner wants to listen at %s, not at %s"
                                   % (address, BEAMS_ADDRESS))
            number = next(self._numbers)
            listen(_url(self._folder, str(number)))
            return number

        server.add_insecure_port = add_insecure_port
        return server


def _url(folder: str, number: str) -> str:
    """gRPC's name of a socket; it decodes % and would treat # and ? as the path's end."""
    return "unix:" + urllib.parse.quote(os.fsencode(os.path.join(folder, number)))


if __name__ == "__main__":
    work()
