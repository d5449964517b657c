import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server import main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Process:
    """A server of the versions in `base_path`."""

    def __init__(self, base_path, *flags):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--model_base_path", str(base_path), "--port", "0",
             "--rest_api_port", "0", *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.host, rest_port, grpc_port = re.search(
            rb"http://(\S+):(\d+), gRPC at \1:(\d+)\n", self._process.stdout.readline()).groups()
        self.rest_port, self.grpc_port = int(rest_port), int(grpc_port)

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.rest_port, path), data,
                                    timeout=200) as answer:
            return json.loads(answer.read().decode())

    def end(self):
        """Its exit status, what it wrote, and its errors, after SIGTERM."""
        self._process.send_signal(signal.SIGTERM)
        out, err = self._process.communicate(timeout=200)
        return self._process.returncode, out.decode(), err.decode()


def predict(*flags):
    out = subprocess.run([sys.executable, "-m", "serving.predict", "--text_a", "北京", "--text_b", "你好",
                          *flags], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(out.decode("utf-8"))


def ask_until(process, stop):
    """Asks without a pause until `stop` is set; returns the statuses."""
    statuses = []
    while not stop.is_set():
        try:
            process.ask("/v1/models/albert:predict", {"instances": [{"text_a": "北京", "text_b": ""}]})
            statuses.append(200)
        except urllib.error.HTTPError as error:
            statuses.append(error.code)
    return statuses


def test_serves_switches_without_a_failed_request_and_ends(version, tmp_path):
    shutil.copytree(version, str(tmp_path / "7"))
    process = Process(tmp_path, "--access_log", "false")
    try:
        # The official stubs over a plain channel.
        with grpc.insecure_channel("127.0.0.1:%d" % process.grpc_port) as channel:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "albert"
            for name in ("text_a", "text_b"):
                request.inputs[name].CopyFrom(tf.make_tensor_proto(["北京"]))
            found = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=200)
            assert found.model_spec.version.value == 7

        # The other command, with and without the server.
        answers = [predict("--server", "http://127.0.0.1:%d" % process.rest_port),
                   predict("--model_dir", str(tmp_path))]
        assert answers[0]["label"] == answers[1]["label"]
        assert answers[0]["probabilities"] == pytest.approx(answers[1]["probabilities"], abs=1e-5)

        statuses, stop = [], threading.Event()
        asking = threading.Thread(target=lambda: statuses.extend(ask_until(process, stop)))
        asking.start()
        os.mkdir(str(tmp_path / "8"))          # half copied
        shutil.copy(str(tmp_path / "7" / "saved_model.pb"), str(tmp_path / "8"))
        wait_until(
            lambda: process.ask("/v1/models/albert/versions/8")["model_version_status"][0]["state"] == "END")
        shutil.rmtree(str(tmp_path / "8"))
        shutil.copytree(version, str(tmp_path / "8"))
        wait_until(lambda: process.ask(
            "/v1/models/albert/versions/8")["model_version_status"][0]["state"] == "AVAILABLE")
        shutil.rmtree(str(tmp_path / "7"))
        shutil.rmtree(str(tmp_path / "8"))
        process.ask("/readyz")
        stop.set()
        asking.join()
        assert set(statuses) == {200}
    finally:
        status, out, err = process.end()
    assert status == 0
    assert out == "Shutting down; finishing pending requests\n"
    for said in ("model albert: version 8 cannot be served",
                 "model albert: version 8 serves, and takes about ", "model albert: version 7 drains"):
        assert said in err
    assert "Traceback" not in err


def wait_until(is_so):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if is_so():
                return
        except urllib.error.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_what_was_asked_before_the_end_is_answered(version, tmp_path):
    shutil.copytree(version, str(tmp_path / "7"))
    process = Process(tmp_path, "--max_text_bytes", "1000000")
    with socket.create_connection(("127.0.0.1", process.rest_port)) as connection:
        body = json.dumps({"inputs": {"text_a": ["北" * 300000], "text_b": [""]}}).encode()
        head = b"POST /v1/models/albert:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        wait_until(lambda: process.ask("/healthz"))
        ended = process.end()
        assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert ended[0] == 0
    lines = [json.loads(line) for line in ended[1].splitlines() if line.startswith("{")]
    assert {"predict", "get_health"} == {line["method"] for line in lines}


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="there is no IPv6")
def test_ipv6(version):
    process = Process(os.path.dirname(version), "--host", "::1")
    try:
        assert process.host == b"[::1]"
        with urllib.request.urlopen("http://[::1]:%d/readyz" % process.rest_port, timeout=200) as answer:
            assert answer.status == 200
        with grpc.insecure_channel("[::1]:%d" % process.grpc_port) as channel:
            grpc.channel_ready_future(channel).result(timeout=200)
    finally:
        assert process.end()[0] == 0


@pytest.fixture
def port():
    """One that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_one_port_for_both_interfaces_is_refused_before_anything_is_loaded(port):
    found = subprocess.run([sys.executable, "-m", "serving.server", "--model_base_path", "missing", "--port",
                            str(port), "--rest_api_port", str(port)], cwd=ROOT, stderr=subprocess.PIPE)
    assert found.returncode == 1
    assert b"error: --port: 127.0.0.1:%d: Address already in use" % port in found.stderr


def test_a_server_that_starts_says_so_and_can_be_ended(version, port):
    process = subprocess.Popen([sys.executable, "-m", "serving.server", "--model_base_path",
                                os.path.dirname(version), "--port", "0", "--rest_api_port", str(port)],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def status_of(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().status

    def is_refused():
        try:
            return status_of("/healthz") != 200
        except ConnectionRefusedError:
            return True
    wait_until(lambda: not is_refused())
    assert status_of("/readyz") == 503         # libraries alone take two seconds
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == (b"", b"") and process.returncode == 0
    wait_until(is_refused)


def test_the_command_imports_no_library_before_its_outputs_are_apart():
    script = "import sys, serving.server; raise SystemExit(bool({'grpc', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert re.match(r"chinese-albert \d+\.\d+\.\d+, with the interfaces of TensorFlow Serving 1\.15\n$",
                    capsys.readouterr().out)


def test_no_model_is_one_line(tmp_path):
    found = subprocess.run([sys.executable, "-m", "serving.server", "--model_base_path", str(tmp_path),
                            "--port", "0", "--rest_api_port", "0"],
                           cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env=dict(os.environ, PYTHONUNBUFFERED=""))
    assert found.returncode == 1
    assert found.stderr.decode() == ("serving.server: error: --model_base_path: %s: no exported model here: "
                                     "run python -m serving.export first\n" % tmp_path)


@pytest.mark.parametrize("arguments, message", [
    (["--file_system_poll_wait_seconds", "-1"], "file_system_poll_wait_seconds must be at least 0, got -1"),
    (["--model_name", "a:b"], "model_name must be a name without / and :, got 'a:b'"),
    (["--model_config_file_poll_wait_seconds", "5"],
     "model_config_file_poll_wait_seconds is given without model_config_file"),
    (["--max_models_memory_mb", "0"], "max_models_memory_mb must be at least 1, got 0"),
    (["--enable_batching", "false", "--batching_parameters_file", "x"],
     "batching_parameters_file is given, and enable_batching is false"),
    (["--grpc_channel_arguments", "grpc.max_concurrent_streams=1"],
     "wanted some of grpc.keepalive_time_ms, "), (["--grpc_channel_arguments", "grpc.keepalive_time_ms=1s"],
     "grpc.keepalive_time_ms must be a whole number, got '1s'"),
    (["--load_timeout_seconds", "0"], "load_timeout_seconds must be at least 1, got 0"),
    (["--port", "65536"], "port must be at most 65535, got 65536"),
    (["--max_inflight_body_bytes", "4194303"],
     "max_inflight_body_bytes must be at least 4194304, got 4194303"),
    (["--max_batch_size", "0"], "max_batch_size must be at least 1, got 0"),
    (["--max_grpc_bytes", "1000"], "max_grpc_bytes must be at least max_body_bytes, 4194304, got 1000"),
    (["--max_grpc_connections", "0"], "max_grpc_connections must be at least 1, got 0"),
])
def test_bad_flags(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
