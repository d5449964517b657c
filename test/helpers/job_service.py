"""Beam's own job service: an engine without Java, for tests of what runs on other machines in earnest."""
import contextlib
import os
import subprocess
import sys
import time

PATIENCE_SECONDS = 60


@contextlib.contextmanager
def job_service(folder):
    """While the block runs, the service answers at the address that it is given; what it says goes to a file in `folder`."""
    port_file = os.path.join(folder, "job_service.port")
    with open(os.path.join(folder, "job_service.log"), "ab") as log:
        service = subprocess.Popen([sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--port_file",
                                    port_file], stdout=log, stderr=log)
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
