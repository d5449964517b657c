import signal
import socket
import subprocess
import sys

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from etl import worker
from etl.command_line import UserError
from etl.worker import WorkerConfig, main, start_pool


@pytest.fixture
def sleepers(monkeypatch):
    """Workers that do nothing, in the order in which they were started."""
    started = []

    def start(command, **kwargs):
        started.append(Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        started[-1].command = command
        return started[-1]

    Popen = subprocess.Popen
    monkeypatch.setattr(worker.subprocess, "Popen", start)
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("flags", [{}, {"id": "1"}, {"listen": "127.0.0.1:1", "id": "1", "provision_endpoint": "x:1"}])
def test_a_worker_or_a_pool(flags):
    with pytest.raises(ValueError, match="^wants either listen, or both id and provision_endpoint$"):
        WorkerConfig(**flags)


def test_a_pool_starts_workers_for_who_asks_and_ends_all_with_itself(sleepers):
    pool = start_pool("127.0.0.1:0")
    with grpc.insecure_channel("127.0.0.1:%d" % pool.port) as channel:
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
        request.provision_endpoint.url = "127.0.0.1:7"
        assert service.StartWorker(request, timeout=100).error == ""
        assert sleepers[0].command == [sys.executable, "-m", "etl.worker", "--id", "1-1", "--provision_endpoint", "127.0.0.1:7"]
        assert sleepers[0].poll() is None
        service.StartWorker(request, timeout=100)      # of another task manager, which counts alike
        service.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=100)
        assert [process.poll() for process in sleepers] == [None, None]
        pool.stop()
    assert [process.poll() for process in sleepers] == [-signal.SIGKILL] * 2


def test_a_worker_that_cannot_be_started_is_told(monkeypatch):
    pool = start_pool("127.0.0.1:0")
    monkeypatch.setattr(worker.sys, "executable", "/gone/python")
    with grpc.insecure_channel("127.0.0.1:%d" % pool.port) as channel:
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        answer = service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1"), timeout=100)
    pool.stop()
    assert "/gone/python" in answer.error


@pytest.mark.parametrize("address", ["127.0.0.1:%d", "nowhere.invalid:%d"])
def test_an_address_that_is_taken_or_none(address, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = address % taken.getsockname()[1]
        with pytest.raises(UserError) as error:
            start_pool(address)
    assert str(error.value) == "--listen: cannot listen at %s: in use, or not of this host" % address


def test_a_second_pool_on_one_port_is_refused():
    pool = start_pool("127.0.0.1:0")
    with pytest.raises(UserError, match="^--listen: cannot listen at 127.0.0.1:%d: in use" % pool.port):
        start_pool("127.0.0.1:%d" % pool.port)
    pool.server.stop(None)


def test_a_pool_as_a_command():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    pool = subprocess.Popen([sys.executable, "-m", "etl.worker", "--listen", address], stdout=subprocess.PIPE)
    try:
        assert pool.stdout.readline().decode() == "Starting workers for who asks at %s\n" % address
        pool.terminate()
        assert pool.wait(100) == 0
    finally:
        pool.kill()
        pool.communicate()


def test_a_worker_to_whom_nobody_answers_ends():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        command = [sys.executable, "-m", "etl.worker", "--id", "1", "--provision_endpoint", "127.0.0.1:%d" % nobody.getsockname()[1]]
        assert subprocess.run(command, stderr=subprocess.PIPE, timeout=100).returncode == 1


def test_a_port_alone_is_no_address():
    with pytest.raises(ValueError, match="^listen must be HOST:PORT, got 50000$"):
        WorkerConfig(listen="50000")


def test_bad_flags_are_one_line(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().err == "etl.worker: error: wants either listen, or both id and provision_endpoint (see --help)\n"
