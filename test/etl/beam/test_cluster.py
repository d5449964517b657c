import contextlib
import http.server
import json
import socket
import threading

import pytest

from etl.beam import cluster
from etl.beam.cluster import ClusterConfig, reach, read_token
from etl.common.command_line import UserError

FLINK = {"runner": "FlinkRunner", "parallelism": 4, "flink_master": "10.0.0.1:8081"}
PORTABLE = {"runner": "PortableRunner", "parallelism": 4, "job_endpoint": "10.0.0.1:8099"}


@pytest.mark.parametrize("flags, message", [
    ({"runner": "DirectRunner", "parallelism": 2},
     "parallelism is for FlinkRunner and PortableRunner, got runner DirectRunner"),
    ({"runner": "DirectRunner", "environment_type": "PROCESS"},
     "environment_type is for FlinkRunner and PortableRunner, got runner DirectRunner"),
    ({"runner": "PortableRunner", "parallelism": 2},
     "runner PortableRunner needs job_endpoint, HOST:PORT of the engine's job server"),
    (dict(PORTABLE, flink_master="x:1"),
     "flink_master and flink_job_server_jar are for FlinkRunner, got runner PortableRunner"),
    ({"runner": "FlinkRunner", "parallelism": 2}, "runner FlinkRunner needs flink_master, HOST:PORT of the "
     "cluster's web page, or job_endpoint, HOST:PORT of a running job server"),
    (dict(FLINK, job_endpoint="x:1"),
     "the job server at job_endpoint has its own cluster: omit flink_master and flink_job_server_jar"),
    (dict(FLINK, flink_master="http://x:8081"), "flink_master must be HOST:PORT, got http://x:8081"),
    (dict(FLINK, flink_master="[auto]"), "flink_master must be HOST:PORT, got [auto]"),
    (dict(PORTABLE, job_endpoint="embed"), "job_endpoint must be HOST:PORT, got embed"),
    (dict(FLINK, parallelism=None),
     "runner FlinkRunner needs parallelism of at least 1, the number of ranges processed at once, got None"),
    (dict(FLINK, parallelism=0),
     "runner FlinkRunner needs parallelism of at least 1, the number of ranges processed at once, got 0"),
    (dict(FLINK, environment_type="EXTERNAL"),
     "environment_type EXTERNAL needs environment_config: HOST:PORT of the worker pools, as each host "
     "sees its own"), (dict(FLINK, environment_type="PROCESS"),
                       "environment_type PROCESS needs environment_config: path of etl-worker on each host"),
    (dict(FLINK, environment_type="EXTERNAL", environment_config='{"url": "x:1"}'),
     'environment_config must be HOST:PORT for environment_type EXTERNAL, got {"url": "x:1"}'),
    (dict(FLINK, worker_token_file="token"),
     "worker_token_file is for environment_type EXTERNAL, got environment_type LOOPBACK"),
    (dict(FLINK, environment_type="PROCESS", environment_config="x", worker_token_file="token"),
     "worker_token_file is for environment_type EXTERNAL, got environment_type PROCESS"),
    ({"runner": "DirectRunner", "worker_token_file": "token"},
     "worker_token_file is for FlinkRunner and PortableRunner, got runner DirectRunner"),
    (dict(FLINK, environment_config="x"), "environment_type LOOPBACK takes no environment_config, got x"),
])
def test_bad_flags(flags, message):
    with pytest.raises(ValueError) as error:
        ClusterConfig(**flags)
    assert str(error.value) == message


@pytest.mark.parametrize("flags, options", [
    ({"runner": "DirectRunner"}, ()),
    (FLINK, ("--flink_master=10.0.0.1:8081", "--flink_version=1.15", "--parallelism=4",
             "--sdk_worker_parallelism=4",
             "--environment_type=LOOPBACK", "--job_server_timeout=86400", "--expansion_port=-1")),
    (dict(FLINK, flink_job_server_jar="x.jar", environment_type="EXTERNAL",
          environment_config="127.0.0.1:50000"),
     ("--flink_master=10.0.0.1:8081", "--flink_version=1.15", "--flink_job_server_jar=x.jar",
      "--parallelism=4", "--sdk_worker_parallelism=4", "--environment_type=EXTERNAL",
      "--environment_config=127.0.0.1:50000", "--job_server_timeout=86400", "--expansion_port=-1")),
])
def test_beams_options(flags, options):
    assert ClusterConfig(**flags).beam_options("1.15") == options


def test_beams_options_without_a_version():
    options = ClusterConfig(**dict(PORTABLE, environment_type="PROCESS",
                                   environment_config="/with blank/etl-worker")).beam_options(None)
    assert options == ("--job_endpoint=10.0.0.1:8099", "--parallelism=4", "--sdk_worker_parallelism=4",
                       "--environment_type=PROCESS",
                       '--environment_config={"command": "/with blank/etl-worker"}',
                       "--job_server_timeout=86400")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"0123456789abcdef\n")
    path.chmod(0o600)
    return path


def test_beams_options_with_a_token(token_file):
    config = ClusterConfig(**dict(PORTABLE, environment_type="EXTERNAL", environment_config="h:5",
                                  worker_token_file=str(token_file)))
    assert ('--environment_config={"url": "h:5", "params": {"etl_token": "0123456789abcdef"}}'
            in config.beam_options(None))


@pytest.mark.parametrize("mode", [0o400, 0o640])
def test_a_token(token_file, mode):
    token_file.chmod(mode)
    assert read_token(str(token_file), "token_file") == "0123456789abcdef"


@pytest.mark.parametrize("content, count", [
    (b"", 0), (b"\n", 0), (b"0123456789abcde", 15), (b"0123456789abcdef 0", 18),
    (b"0123456789abcdef\nx", 18), (b"\xff" * 16, 16), (b"\0" * 16, 16), (b"x" * 1001, 1001)])
def test_what_is_no_token_is_not_repeated(token_file, content, count):
    token_file.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_token(str(token_file), "token_file")
    assert str(error.value) == ("--token_file: %s must hold one word of 16 to 1000 printable ASCII "
                                "characters, got %d characters; openssl rand -hex 32 makes one"
                                % (token_file, count))


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_token_that_every_user_may_read_or_write(token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(UserError, match="^--token_file: %s: every user of this host can read or write it: "
                       "chmod 600$" % token_file):
        read_token(str(token_file), "token_file")


def test_no_token(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match="^--worker_token_file: no such file: %s$" % path):
            read_token(str(path), "worker_token_file")


def test_place():
    assert ClusterConfig(**FLINK).place == "FlinkRunner at 10.0.0.1:8081, parallelism 4"


@pytest.fixture
def nobody():
    """An address at which nobody answers: bound, but not listened at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield "127.0.0.1:%d" % bound.getsockname()[1]


@contextlib.contextmanager
def web_page(content, status=200):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/overview" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:%d" % server.server_port
        server.shutdown()


@pytest.mark.parametrize("flag, thing", [("job_endpoint", "job server"), ("flink_master", "Flink")])
def test_nobody_answers(monkeypatch, nobody, flag, thing):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: name)
    with pytest.raises(UserError) as error:
        reach(ClusterConfig("FlinkRunner", parallelism=1, **{flag: nobody}))
    assert str(error.value) == "--%s: no %s answers at %s: Connection refused" % (flag, thing, nobody)


def test_a_port_that_cannot_be():
    with pytest.raises(UserError, match="^--job_endpoint: no job server answers at 127.0.0.1:99999: "):
        reach(ClusterConfig("FlinkRunner", parallelism=1, job_endpoint="127.0.0.1:99999"))


def test_a_job_server_answers():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert reach(ClusterConfig("PortableRunner", parallelism=1,
                                   job_endpoint="127.0.0.1:%d" % server.getsockname()[1])) is None


@pytest.mark.parametrize("content, status, message", [
    ({"flink-version": "1.17.1"}, 200, "%s runs Flink 1.17.1, Beam 2.48 works with 1.12 to 1.16"),
    ({}, 200, "%s runs Flink None, Beam 2.48 works with 1.12 to 1.16"),
    ([], 200, "%s runs Flink None, Beam 2.48 works with 1.12 to 1.16"),
    (None, 404, "no Flink answers at %s: HTTP Error 404: Not Found")])
def test_what_answers_is_not_a_flink_that_beam_knows(monkeypatch, content, status, message):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: name)
    with web_page(json.dumps(content).encode(), status) as address, pytest.raises(UserError) as error:
        reach(ClusterConfig("FlinkRunner", parallelism=1, flink_master=address))
    assert str(error.value) == "--flink_master: " + message % address


def test_a_flink_answers(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: name)
    jar = tmp_path / "x.jar"
    with web_page(b'{"flink-version": "1.16.3"}') as address:
        with pytest.raises(UserError, match="^--flink_job_server_jar: no such file: .*x.jar$"):
            reach(ClusterConfig("FlinkRunner", parallelism=1, flink_master=address,
                                flink_job_server_jar=str(jar)))
        jar.write_bytes(b"")
        assert reach(ClusterConfig("FlinkRunner", parallelism=1, flink_master=address,
                                   flink_job_server_jar=str(jar))) == "1.16"


def test_no_java(monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="^--flink_master: java is not on PATH, and Beam's job server for "
                       "Flink needs it; or name one"):
        reach(ClusterConfig(**FLINK))
