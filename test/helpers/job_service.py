"""Beam's own job service: an engine without Java, for tests of what runs on other machines in earnest. On
loopback alone."""
import contextlib
import logging
import os
import subprocess
import sys
import time

PATIENCE_SECONDS = 60


@contextlib.contextmanager
def job_service(folder):
    """While the block runs, the service answers at the address that it is given; what it says goes to a file
    in `folder`."""
    port_file = os.path.join(folder, "job_service.port")
    with open(os.path.join(folder, "job_service.log"), "ab") as log:
        service = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--port_file", port_file],
                                   stdout=log, stderr=log)
    try:
        deadline = time.time() + PATIENCE_SECONDS
        while not os.path.exists(port_file):
            assert service.poll() is None and time.time() < deadline, open(log.name).read()
            time.sleep(0.05)
        with open(port_file) as stream:
            yield "localhost:" + stream.read()
    finally:
        service.kill()
        service.wait()


def serve(argv):
    """Is the service. Beam's four ports for workers are meant for all addresses, and its name for them is
    the host's."""
    import grpc
    from apache_beam.runners.portability import local_job_service_main
    from apache_beam.runners.portability.fn_api_runner import worker_handlers
    make_server = grpc.server

    def server(*args, **kwargs):
        made = make_server(*args, **kwargs)
        listen = made.add_insecure_port
        made.add_insecure_port = lambda address: listen(address.replace("[::]", "127.0.0.1"))
        return made

    grpc.server = server
    worker_handlers.ExternalWorkerHandler.host_from_worker = lambda self: "127.0.0.1"
    logging.basicConfig(level=logging.INFO)
    local_job_service_main.run(argv)


if __name__ == "__main__":
    serve(sys.argv[1:])
