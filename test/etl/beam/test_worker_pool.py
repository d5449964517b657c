import os
import signal
import socket
import subprocess
import sys

import grpc
import listening
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from etl.beam import worker_pool
from etl.beam.worker_pool import start_pool
from etl.common.command_line import UserError


@pytest.fixture
def sleepers(monkeypatch):
    """Workers that do nothing, in the order in which they were started."""
    started = []

    def start(command, **kwargs):
        started.append(Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        started[-1].command = command
        return started[-1]

    Popen = subprocess.Popen
    monkeypatch.setattr(worker_pool.subprocess, "Popen", start)
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_pool_starts_workers_for_who_asks_and_ends_all_with_itself(sleepers):
    pool = start_pool("127.0.0.1:0")
    with grpc.insecure_channel("127.0.0.1:%d" % pool.port) as channel:
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
        request.provision_endpoint.url = "127.0.0.1:7"
        assert service.StartWorker(request, timeout=100).error == ""
        assert sleepers[0].command == [sys.executable, "-m", "etl.beam.worker", "--id", "1-1",
                                       "--provision_endpoint", "127.0.0.1:7"]
        assert sleepers[0].poll() is None
        service.StartWorker(request, timeout=100)      # of another task manager, which counts alike
        service.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=100)
        assert [process.poll() for process in sleepers] == [None, None]
        pool.stop()
    assert [process.poll() for process in sleepers] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("params", [{}, {"etl_token": ""}, {"etl_token": "secret-secret-secreT"},
                                    {"etl_token": "语"}, {"token": "secret-secret-secret"}])
def test_a_pool_with_a_token_starts_nothing_for_who_lacks_it(sleepers, params):
    pool = start_pool("127.0.0.1:0", "secret-secret-secret")
    with grpc.insecure_channel("127.0.0.1:%d" % pool.port) as channel:
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1", params=params), timeout=100)
        assert (error.value.code() == grpc.StatusCode.PERMISSION_DENIED
                and "--worker_token_file" in error.value.details())
        assert sleepers == []
        service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(
            worker_id="1", params={"etl_token": "secret-secret-secret"}), timeout=100)
        assert len(sleepers) == 1 and "secret" not in str(sleepers[0].command)
        pool.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "0:0", "[::]:0"])
def test_others_than_this_host_reach_a_pool_only_if_it_has_a_token(address):
    with pytest.raises(UserError) as error:
        start_pool(address)
    assert str(error.value) == ("--listen: %s is reachable from other hosts, and anyone who "
                                "reaches it can run any code: listen on 127.0.0.1, or give a "
                                "secret with --token_file" % address)
    pool = start_pool(address, "secret-secret-secret")
    assert pool.port
    pool.server.stop(None)


def addresses_of(monkeypatch, *hosts):
    found = [(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 7))
             for host in hosts]
    monkeypatch.setattr(worker_pool.socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(worker_pool, "_is_here", lambda family, host: True)


@pytest.mark.parametrize("hosts", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::1", "fe80::1%eth0"],
                                   ["::ffff:10.0.0.1"]])
def test_a_name_that_means_an_address_besides_loopback(monkeypatch, hosts):
    addresses_of(monkeypatch, *hosts)
    with pytest.raises(UserError, match="^--listen: node:7 is reachable from other hosts"):
        start_pool("node:7")


@pytest.mark.parametrize("address", ["localhost:0", "127.0.0.2:0", "127.1:0"])
def test_names_of_loopback_need_no_token(address):
    pool = start_pool(address)
    assert {at.rsplit(":", 1)[0]
            for at in listening.listening([os.getpid()])} <= {"127.0.0.1", "127.0.0.2", "[::1]"}
    pool.server.stop(None)


@pytest.mark.parametrize("address", ["unix:50000", "unix-abstract:5", "ipv4:5"])
def test_what_grpc_would_take_for_something_else(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^--listen: cannot listen on %s: in use, or not an address of "
                       "this host$" % address):
        start_pool(address)
    assert os.listdir(str(tmp_path)) == []


def test_a_worker_that_cannot_be_started_is_told(monkeypatch):
    pool = start_pool("127.0.0.1:0")
    monkeypatch.setattr(worker_pool.sys, "executable", "/gone/python")
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
    assert (str(error.value)
            == "--listen: cannot listen on %s: in use, or not an address of this host" % address)


def test_a_second_pool_on_one_port_is_refused():
    pool = start_pool("127.0.0.1:0")
    with pytest.raises(UserError, match="^--listen: cannot listen on 127.0.0.1:%d: in use" % pool.port):
        start_pool("127.0.0.1:%d" % pool.port)
    pool.server.stop(None)


def test_what_is_no_message_leaves_no_traceback_and_a_nul_is_told(caplog):
    pool = start_pool("127.0.0.1:0")
    with grpc.insecure_channel("127.0.0.1:%d" % pool.port) as channel:
        ask = channel.unary_unary(
            "/org.apache.beam.model.fn_execution.v1.BeamFnExternalWorkerPool/StartWorker")
        with pytest.raises(grpc.RpcError):
            ask(b"\xff\xff", timeout=100)
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        answer = service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="a\0b"), timeout=100)
    pool.stop()
    assert "null byte" in answer.error and caplog.text == ""


def test_a_port_that_is_none():
    with pytest.raises(UserError, match="^--listen: cannot listen on 127.0.0.1:70000"):
        start_pool("127.0.0.1:70000")
