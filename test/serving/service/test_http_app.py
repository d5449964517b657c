import asyncio
import gzip
import json
import os

import grpc
import httpx
import pytest
from served import make_inference, run

from serving.saved_model import SavedModel
from serving.service.errors import RequestError
from serving.service.http_app import HttpApp, HttpLimits
from serving.service.model_configs import ModelConfig
from serving.service.monitoring import Monitor

PREDICT = "/v1/models/albert:predict"
TEXTS = {"inputs": {"text_a": ["北京"], "text_b": [""]}}


@pytest.fixture
def with_client(saved_model, version):
    """Runs a coroutine function of a client, and of the application that it asks."""
    def serve(ask, **limits):
        async def session():
            monitor = Monitor()
            inference = await make_inference(saved_model, os.path.dirname(version), monitor)
            app = HttpApp(inference, monitor,
                          HttpLimits(**{"max_body_bytes": 10000, "timeout_seconds": 30, **limits}))
            async with httpx.AsyncClient(app=app, base_url="http://server") as client:
                await ask(client, app)
        run(session())
    return serve


def test_predict(with_client, saved_model):
    async def ask(client, app):
        wanted = saved_model.run({"text_a": ["北京"], "text_b": [""]})
        for path in (PREDICT, "/v1/models/albert/versions/7:predict"):
            answer = await client.post(path, json=TEXTS)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
            assert answer.json()["outputs"]["probabilities"][0] == pytest.approx(wanted["probabilities"][0])
        rows = await client.post(PREDICT, json={"instances": [{"text_a": {"b64": "5YyX5Lqs"}, "text_b": ""}]})
        assert rows.json()["predictions"][0]["label"] == wanted["label"][0].decode()
        ids = await client.post(PREDICT, json={"signature_name": "encode", **TEXTS})
        assert ids.json()["outputs"]["input_mask"] == [[1, 1, 1, 1]]
    with_client(ask)


def test_classify(with_client, saved_model):
    async def ask(client, app):
        asked = {"signature_name": "classify", "examples": [{"text_a": "x"}]}
        answer = await client.post("/v1/models/albert:classify", json=asked)
        assert [label for label, _ in answer.json()["results"][0]] == saved_model.labels
    with_client(ask)


def test_regress(regression_version):
    async def ask():
        model = SavedModel(regression_version)
        inference = await make_inference(model, os.path.dirname(regression_version))
        app = HttpApp(inference, Monitor(), HttpLimits(max_body_bytes=10000, timeout_seconds=30))
        async with httpx.AsyncClient(app=app, base_url="http://server") as client:
            asked = {"signature_name": "regress", "examples": [{"text_a": "北京", "text_b": "你好"}]}
            (wanted,) = model.values([("北京", "你好")])
            answer = await client.post("/v1/models/albert:regress", json=asked)
            assert answer.json() == {"results": [pytest.approx(wanted, abs=1e-6)]}
            answer = await client.post(PREDICT, json={"instances": [{"text_a": "北京", "text_b": "你好"}]})
            assert answer.json() == {"predictions": [pytest.approx(wanted, abs=1e-6)]}
            asked["signature_name"] = "classify"
            answer = await client.post("/v1/models/albert:classify", json=asked)
            assert answer.status_code == 400
            assert 'Serving signature name: "classify" not found' in answer.json()["error"]
    run(ask())


def test_status_and_metadata(with_client):
    async def ask(client, app):
        state = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for path in ("/v1/models/albert", "/v1/models/albert/versions/7"):
            assert (await client.get(path)).json() == {"model_version_status": [state]}
        found = (await client.get("/v1/models/albert/metadata")).json()
        assert found["model_spec"] == {"name": "albert", "signature_name": "", "version": "7"}
        signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["inputs"]["text_a"]["dtype"] == "DT_STRING"
    with_client(ask)


@pytest.mark.parametrize("method, path, body, status, message", [
    ("POST", PREDICT, b"{", 400, "JSON Parse error"),
    ("POST", PREDICT, b'{"inputs": {"text_a": ["\xff"]}}', 400,
     "JSON Parse error: the body is not UTF-8: invalid start byte at byte 0xff"),
    ("POST", PREDICT, b"{}", 400, "Missing 'inputs' or 'instances' key"),
    ("POST", PREDICT, b'{"signature_name": "x", "instances": [1]}', 400,
     'Serving signature name: "x" not found'),
    ("POST", PREDICT, b'{"inputs": {"text_a": ["x"], "text_b": []}}', 400, "the same number of rows"),
    ("POST", PREDICT, b'{"signature_name": "examples", "inputs": [{"b64": "/w=="}]}', 400,
     "Could not parse example"), ("POST", "/v1/models/albert:classify", b'{"examples": [{"text_a": "x"}]}',
                                  400, "Was: tensorflow/serving/predict"),
    ("POST", "/v1/models/other:predict", b'{"inputs": 1}', 404,
     "Servable not found for request: Latest(other)"),
    ("POST", "/v1/models/albert/versions/8:predict", b'{"inputs": 1}', 404,
     "for request: Specific(albert, 8)"),
    ("GET", "/v1/models/albert/versions/8", None, 404, "Could not find version 8 of model albert"),
    ("GET", "/v1/models/albert/versions/99999999999999999999", None, 400, "Failed to convert version"),
    ("GET", "/v1/models/..%2f..%2fetc", None, 400, "Malformed request: GET /v1/models/../../etc"),
    ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/albert:predict; it takes POST"),
    ("GET", "/v1/models/albert/versions/7:regress", None, 400, "/versions/7:regress; it takes POST"),
    ("GET", "/v1/models/albert:ask", None, 400, "Malformed request: GET /v1/models/albert:ask"),
    ("POST", "/v1/models/albert:regress", b'{"examples": [{"text_a": "x"}]}', 400,
     "Expected signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict"),
    ("POST", "/v1/models/albert:tag", b'{"instances": ["x"]}', 400, 'signature name: "tag" not found'),
    ("POST", "/v1/models/albert:tag", b'{"instances": ["x"], "signature_name": "encode"}', 400,
     "'signature_name' must be tag, or left out, got encode"),
    ("GET", "/v1/models/albert/", None, 400, "Malformed request: GET /v1/models/albert/"),
    ("DELETE", "/v1/models/albert", None, 400, "Malformed request: DELETE /v1/models/albert"),
    ("GET", "/page.html", None, 404, "Malformed request: GET /page.html"),
    ("POST", PREDICT, b" " * 10001, 413, "at most 10000 bytes"),
])
def test_errors(with_client, method, path, body, status, message):
    async def ask(client, app):
        answer = await client.request(method, path, content=body)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"] and message in answer.json()["error"]
    with_client(ask)


def test_a_failure_of_our_own_is_told_in_json(with_client, monkeypatch, caplog):
    async def ask(client, app):
        async def fails(target, inputs):
            raise AttributeError("a secret")
        monkeypatch.setattr(app._inference, "predict", fails)
        answer = await client.post(PREDICT, json=TEXTS, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
        assert answer.json() == {"error": "The server failed; its log says more of request mine"}
    with_client(ask)
    assert "request mine failed" in caplog.text and "a secret" in caplog.text


BODY = json.dumps(TEXTS).encode()


@pytest.mark.parametrize("encoding, body, status, message", [
    ("identity", BODY, 200, None), ("gzip", gzip.compress(BODY), 200, None),
    ("X-GZIP ", gzip.compress(BODY), 200, None), ("gzip, identity", gzip.compress(BODY), 200, None),
    ("Identity,GZip,", gzip.compress(BODY), 200, None), ("", BODY, 200, None),
    ("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), 200, None),
    ("br", BODY, 415, "The content-encoding must be gzip or identity, got br"),
    ("gzip, gzip", BODY, 415, "The content-encoding must be gzip or identity, got gzip, gzip"),
    ("gzip, br", gzip.compress(BODY), 415, "The content-encoding must be gzip or identity, got gzip, br"),
    ("gzip", BODY, 400, "Could not decompress a request of %d bytes as gzip: it begins with b'{\"inputs\": {"
     % len(BODY)),
    ("gzip", gzip.compress(BODY)[:-1], 400, "bytes as gzip: it is incomplete"),
    ("gzip", b"", 400, "Could not decompress a request of 0 bytes as gzip: it is empty"),
    ("gzip", gzip.compress(bytes(10001)), 413, "Decompressed request is larger than max (10000)"),
    ("gzip", gzip.compress(bytes(6000)) * 2, 413, "Decompressed request is larger than max (10000)"),
    ("identity", gzip.compress(BODY), 400,
     "the body is compressed by gzip, which its Content-Encoding must say"),
], ids=lambda value: "body" if isinstance(value, bytes) else None)     # gzip's bytes tell the time
def test_a_body_in_an_encoding(with_client, encoding, body, status, message):
    async def ask(client, app):
        answer = await client.post(PREDICT, content=body, headers={"content-encoding": encoding})
        assert answer.status_code == status
        assert message is None or message in answer.json()["error"]
    with_client(ask)


def test_a_list_of_encodings_may_stand_in_several_fields(with_client):
    async def ask(client, app):
        for fields, status in ((("identity", "gzip"), 200), (("gzip", "identity"), 200),
                               (("gzip", "br"), 415)):
            answer = await client.post(PREDICT, content=gzip.compress(BODY),
                                       headers=[("content-encoding", field) for field in fields])
            assert answer.status_code == status
    with_client(ask)


def test_a_body_without_a_length_is_limited_too(with_client):
    async def ask(client, app):
        async def chunks():
            for _ in range(11):
                yield b" " * 1000
        assert (await client.post(PREDICT, content=chunks())).status_code == 413
    with_client(ask)


def test_time_is_limited(with_client):
    async def ask(client, app):
        async def endless():
            yield b"{"
            await asyncio.sleep(10)
        answer = await client.post(PREDICT, content=endless())
        assert (answer.status_code, answer.json()) == (504, {"error": "Timed out after 0.05 s"})
    with_client(ask, timeout_seconds=0.05)


def test_a_client_that_goes_is_noticed(with_client, monkeypatch):
    async def ask(client, app):
        cancelled = asyncio.Event()

        async def never(target, inputs):
            try:
                await asyncio.sleep(10)
            finally:
                cancelled.set()
        monkeypatch.setattr(app._inference, "predict", never)
        body = json.dumps(TEXTS).encode()
        messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            pass
        await app({"type": "http", "method": "POST", "path": PREDICT, "headers": [], "query_string": b"",
                   "client": None}, receive, send)
        assert cancelled.is_set()
        metrics = (await client.get("/monitoring/prometheus/metrics")).text
        assert 'serving_request_seconds_count{api="rest",code="499",method="predict"} 1.0' in metrics
    with_client(ask)


def test_a_full_queue_is_503(with_client, monkeypatch):
    async def ask(client, app):
        async def refuse(target, inputs):
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "full")
        monkeypatch.setattr(app._inference, "predict", refuse)
        answer = await client.post(PREDICT, json=TEXTS)
        assert (answer.status_code, answer.json()) == (503, {"error": "full"})
    with_client(ask)


def test_what_would_find_the_queue_full_is_refused_before_it_is_read(with_client, monkeypatch):
    async def ask(client, app):
        asked = ("POST", PREDICT, "mine", ("127.0.0.1", 1))
        assert not app.is_overloaded() and app.refuse_if_full(*asked) is None
        monkeypatch.setattr(app._inference.models.queue_of("albert"), "_max_enqueued_rows", 0)
        full = b'{"error":"The batch scheduling queue is full: 0 rows are waiting"}'
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"mine"),
                   (b"content-security-policy", b"frame-ancestors 'none'")]
        assert app.is_overloaded() and app.refuse_if_full(*asked) == (503, headers, full)
        assert app.refuse_if_full("POST", "/v1/models/albert/metadata", None, None) is None
        assert app.refuse_if_full("GET", PREDICT, None, None) is None
        assert app.refuse_if_full("POST", "/v1/models/other:predict", None, None) is None
        answer = await client.post("/v1/models/albert/versions/7:classify", data=b"no JSON",
                                   headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.content) == (503, full)
        assert answer.headers.raw == [*headers, (b"content-length", b"%d" % len(full))]
        metrics = (await client.get("/monitoring/prometheus/metrics")).text
        for method in ("predict", "classify"):
            assert 'serving_request_seconds_count{api="rest",code="503",method="%s"} 1.0' % method in metrics
        assert 'serving_rejections_total{reason="queue_full"} 2.0' in metrics
    with_client(ask)


@pytest.mark.parametrize("headers, status", [
    ({}, 200),
    ({"content-type": "application/x-www-form-urlencoded"}, 200),              # curl -d
    ({"origin": "http://server", "content-type": "text/plain"}, 200),
    ({"origin": "http://evil.example", "content-type": "application/json"}, 200),
    ({"origin": "http://evil.example", "content-type": "text/plain"}, 415),
    ({"origin": "null"}, 415),
    ({"sec-fetch-site": "cross-site", "content-type": "multipart/form-data"}, 415),
    ({"host": "evil.example"}, 403),
    ({"host": "127.0.0.1:8501"}, 200),
])
def test_what_pages_may_ask(with_client, headers, status):
    async def ask(client, app):
        answer = await client.post(PREDICT, content=json.dumps(TEXTS).encode(), headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        if status == 403:
            assert answer.json() == {
                "error": "Host evil.example is not allowed; --allowed_hosts can allow it"}
    with_client(ask)


def test_health_and_readiness(with_client):
    async def ask(client, app):
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        app.draining = True
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
    with_client(ask)


def test_several_models_and_their_labels(with_client, version):
    async def ask(client, app):
        folder = os.path.dirname(version)
        await app._inference.models.load([ModelConfig("albert", folder, labels={"stable": 7}),
                                          ModelConfig("中文", folder)])
        for path in ("/v1/models/albert/labels/stable", "/v1/models/%E4%B8%AD%E6%96%87"):
            assert (await client.post(path + ":predict", json=TEXTS)).status_code == 200
            assert (await client.get(path)).json()["model_version_status"][0]["version"] == "7"
            assert (await client.get(path + "/metadata")).json()["model_spec"]["version"] == "7"
        unknown = await client.post("/v1/models/albert/labels/canary:predict", json=TEXTS)
        assert (unknown.status_code, unknown.json()) == (
            400, {"error": "Unrecognized servable version label: canary"})
        for query, name in (("", "albert"), ("?name=中文", "中文")):
            found = (await client.get("/model.json" + query)).json()
            assert (found["name"], found["names"]) == (name, ["albert", "中文"])
        assert (await client.get("/model.json?name=other")).status_code == 404
        assert "/v1/models/中文:predict" in (await client.get("/openapi.json")).json()["paths"]
    with_client(ask)


def test_one_model_s_full_queue_is_no_other_s(with_client, version, monkeypatch):
    async def ask(client, app):
        folder = os.path.dirname(version)
        await app._inference.models.load([ModelConfig("albert", folder), ModelConfig("中文", folder)])
        monkeypatch.setattr(app._inference.models.queue_of("中文"), "_max_enqueued_rows", 0)
        assert app.is_overloaded()
        assert (await client.post(PREDICT, json=TEXTS)).status_code == 200
        refused = app.refuse_if_full("POST", "/v1/models/%E4%B8%AD%E6%96%87:predict", None, None)
        assert refused.status == 503
    with_client(ask)


@pytest.mark.parametrize("path", ["/metrics", None])
def test_metrics_are_where_they_are_wanted(saved_model, version, path):
    async def ask():
        inference = await make_inference(saved_model, os.path.dirname(version))
        app = HttpApp(inference, Monitor(), HttpLimits(10000, 30), metrics_path=path)
        async with httpx.AsyncClient(app=app, base_url="http://server") as client:
            assert (await client.get("/metrics")).status_code == (200 if path else 404)
            assert (await client.get("/monitoring/prometheus/metrics")).status_code == 404
    run(ask())


def test_request_ids_come_back(with_client):
    async def ask(client, app):
        assert (await client.get("/healthz", headers={"x-request-id": "r1"})).headers["x-request-id"] == "r1"
        assert len((await client.get("/none", headers={"x-request-id": "r 1"})).headers["x-request-id"]) == 32
    with_client(ask)


def test_the_page_and_what_it_shows(with_client, saved_model):
    async def ask(client, app):
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html") and "试用模型" in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        found = (await client.get("/model.json")).json()
        assert (found["name"], found["version"], found["card"]) == ("albert", 7, saved_model.card)
        assert found["vocabulary"][:2] == ["[PAD]", "[UNK]"] and "serving_default" in found["signatures"]
    with_client(ask)
