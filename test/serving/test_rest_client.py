import http.server
import json
import threading

import pytest

from etl.common.command_line import UserError
from serving.rest_client import RestClient


@pytest.fixture
def server():
    """A server with the status and the body of its next answers; what it was asked."""
    class Handler(http.server.BaseHTTPRequestHandler):
        status, body, asked = 200, b"{}", []

        def do_POST(self):
            self.asked.append(
                (self.path, json.loads(self.rfile.read(int(self.headers["content-length"])).decode())))
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *arguments):
            pass
    Handler.asked = []
    listening = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    Handler.url = "http://127.0.0.1:%d" % listening.server_port
    yield Handler
    listening.shutdown()
    listening.server_close()


def test_probabilities_by_label(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")             # is not asked for what is on this host
    server.body = b'{"results": [[["no", 0.25], ["yes", 0.75]], [["no", 1.0], ["yes", 0]]]}'
    found = RestClient(server.url + "/", "a b").probabilities([("北", None), ("京", "好")])
    assert found == [{"no": 0.25, "yes": 0.75}, {"no": 1.0, "yes": 0}]
    assert server.asked == [("/v1/models/a%20b:classify", {"signature_name": "classify", "examples": [
        {"text_a": "北", "text_b": ""}, {"text_a": "京", "text_b": "好"}]})]


def test_numbers(server):
    server.body = b'{"results": [0.25, 3]}'
    assert RestClient(server.url, "a").values([("北", None), ("京", "好")]) == [0.25, 3.0]
    assert server.asked == [("/v1/models/a:regress", {"signature_name": "regress", "examples": [
        {"text_a": "北", "text_b": ""}, {"text_a": "京", "text_b": "好"}]})]
    for body in (b'{"results": [null]}', b'{"results": [[0.5]]}', b'{"results": [true]}'):
        server.body = body
        with pytest.raises(UserError, match="not a TensorFlow Serving response: 'results' must hold numbers"):
            RestClient(server.url, "a").values([("x", None)])


@pytest.mark.parametrize("status, body, message", [
    (404, b'{"error": "Servable not found"}', ":classify: 404: Servable not found"),
    (502, b"<html>", ":classify: 502: <html>"),
    (200, b"<html>", "not a TensorFlow Serving response"),
    (200, b"{}", "not a TensorFlow Serving response: 'results' must be a list of 1, one for each text"),
    (200, b"[1]", "'results' must be a list of 1"),
    (200, b'{"results": [[["0", 1]], [["0", 1]]]}', "'results' must be a list of 1"),
    (200, b'{"results": [[["0", null]]]}', "'results' must hold pairs of label and score"),
    (200, b'{"results": [7]}', "'results' must hold pairs"),
    (200, b'{"results": [[]]}', "'results' has a text without labels"),
    (200, b'{"results": [[["\\ud800", 1]]]}',
     "not a TensorFlow Serving response: .*ud800 is half a character"),
    (200, b"[" * 150000, "not a TensorFlow Serving response: lists and objects are nested more than 64 deep"),
    (200, b'{"results": ' + b"1" * 1000000 + b"}", "not a TensorFlow Serving response: "),
    (500, b"[" * 150000, r":classify: 500: \[\[\["),
])
def test_what_goes_wrong_there(server, status, body, message):
    server.status, server.body = status, body
    with pytest.raises(UserError, match="--server: http.*" + message):
        RestClient(server.url, "albert").probabilities([("x", None)])


def test_no_server():
    with pytest.raises(UserError,
                       match="--server: http://127.0.0.1:1/v1/models/albert:classify: Connection refused"):
        RestClient("http://127.0.0.1:1", "albert").probabilities([("x", None)])
