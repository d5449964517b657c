import glob
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import tempfile
from concurrent import futures

import apache_beam
import grpc
import pytest
from apache_beam.runners.worker.channel_factory import GRPCChannelFactory

import listening
from etl.beam.cluster import RunnerConfig
from etl.beam.pipeline import run_map
from etl.beam.socket_folder import socket_folder
from etl.beam.worker_sockets import FOLDER_VARIABLE, _Grpc, connect_to_sockets

BEAM = os.path.dirname(apache_beam.__file__)


@pytest.fixture
def tmpdir_is(monkeypatch):
    return lambda path: monkeypatch.setattr(tempfile, "gettempdir", lambda: str(path))


@pytest.fixture
def short_folder():
    """pytest's own may leave no room in a socket's path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield pathlib.Path(folder)


@pytest.fixture
def served(tmp_path):
    """A folder in which a server of Beam's kind listens as number 1, and at no port."""
    ports = listening.listening([os.getpid()])
    with socket_folder() as folder:
        server = _Grpc(folder).server(futures.ThreadPoolExecutor(1), options=[])
        assert server.add_insecure_port("[::]:0") == 1
        server.start()
        assert listening.listening([os.getpid()]) == ports
        yield folder
        server.stop(None).wait()


def test_servers_listen_in_the_folder_under_numbers(served):
    assert os.listdir(served) == ["1"] and stat.S_ISSOCK(os.stat(os.path.join(served, "1")).st_mode)


@pytest.mark.parametrize("name", ["plain", "with %20 # ? blanks", "语料", "\udcff"])
def test_any_name_of_a_folder(short_folder, tmpdir_is, monkeypatch, name):
    (short_folder / name).mkdir()
    tmpdir_is(short_folder / name)
    with socket_folder() as folder:
        assert folder.startswith(str(short_folder / name))
        server = _Grpc(folder).server(futures.ThreadPoolExecutor(1))
        assert [server.add_insecure_port("[::]:0") for _ in range(2)] == [1, 2]
        assert sorted(os.listdir(folder)) == ["1", "2"]
        server.stop(None)


def test_a_worker_connects_to_them_and_to_nothing_else(served, monkeypatch):
    monkeypatch.setattr(GRPCChannelFactory, "insecure_channel", GRPCChannelFactory.insecure_channel)
    connect_to_sockets(served)
    with GRPCChannelFactory.insecure_channel("localhost:1",
                                             options=[("grpc.max_receive_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=100)
    for target in ("10.0.0.1:1", "localhost", "localhost:../1"):
        with pytest.raises(RuntimeError, match="^Beam's worker connects to %s, which is no socket" % target):
            GRPCChannelFactory.insecure_channel(target)


def test_what_beam_does_not_do_today_is_refused(tmp_path):
    with pytest.raises(AttributeError):
        _ = _Grpc(str(tmp_path)).aio
    with pytest.raises(RuntimeError,
                       match=r"^Beam's runner wants to listen at \[::\]:8080, not at \[::\]:0$"):
        _Grpc(str(tmp_path)).server(futures.ThreadPoolExecutor(1)).add_insecure_port("[::]:8080")


def test_where_beam_listens_and_connects_is_known():
    """A new place would be an open port, or a worker that does not find its runner: look at it, then mend
    `worker_sockets`."""
    found = {}
    for path in glob.glob(os.path.join(BEAM, "**", "*.py"), recursive=True):
        with open(path, encoding="utf-8") as stream:
            lines = [line for line in stream if re.search(r"add_(in)?secure_port\(|\bs\.bind\(|\.listen\(",
                                                          line)]
        if lines and not path.endswith("_test.py"):
            found[os.path.relpath(path, BEAM)] = len(lines)
    assert found == {
        # ours to close
        "runners/portability/fn_api_runner/worker_handlers.py": 4,
        "runners/portability/local_job_service.py": 2,
        # Beam's LOOPBACK: `pipeline` has a pool of its own in its place
        "runners/worker/worker_pool_main.py": 1,
        # never started here
        "runners/portability/abstract_job_service.py": 1, "runners/portability/expansion_service_main.py": 1,
        "testing/test_stream_service.py": 2,                   # for a transform that only tests use
        "utils/subprocess_server.py": 1}                       # looks for a free port


def ports_seen_by_a_worker(tmp_path, config):
    report = str(tmp_path / "ports")
    run_map("Look", subprocess.check_call, [[sys.executable, listening.__file__, report]], config)
    with open(report) as stream:
        return json.load(stream)


def test_a_build_of_two_processes_listens_at_no_port(tmp_path):
    assert ports_seen_by_a_worker(tmp_path, RunnerConfig("DirectRunner", 2, str(tmp_path / "log"))) == []


def test_a_build_that_starts_an_engines_workers_listens_at_one_port_of_loopback(tmp_path, job_service):
    flags = ("--job_endpoint=" + job_service, "--environment_type=LOOPBACK", "--job_server_timeout=200")
    port, = ports_seen_by_a_worker(tmp_path, RunnerConfig("PortableRunner", 1, str(tmp_path / "log"), flags,
                                                          str(tmp_path)))
    assert re.fullmatch(r"127\.0\.0\.1:\d+", port)


def test_the_folder_goes_with_a_worker_that_died(tmp_path, tmpdir_is):
    tmpdir_is(tmp_path)
    with pytest.raises(OSError, match="^a worker process died"):
        run_map("Exit", os._exit, [3], RunnerConfig("DirectRunner", 2, str(tmp_path / "log")))
    assert os.listdir(str(tmp_path)) == ["log"]
    assert FOLDER_VARIABLE not in os.environ
