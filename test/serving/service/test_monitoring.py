import json
import os
import re

import httpx
import pytest
from served import make_inference, run

from serving.service.http_app import HttpApp, HttpLimits
from serving.service.monitoring import Monitor, request_id_from


def test_counted_by_interface_method_and_code():
    monitor = Monitor()
    monitor.count("rest", "predict", 200, 0.02, "r1")
    text = monitor.expose().decode()
    assert 'serving_request_seconds_bucket{api="rest",code="200",le="0.025",method="predict"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_access_log_is_a_json_object_a_line(capfdbinary):
    monitor = Monitor(access_log=True)
    monitor.count("grpc", "Predict", "OK", 0.0123456789, "r1", client="ipv4:127.0.0.1:5")
    assert monitor.output.close(60)
    (line,) = capfdbinary.readouterr().out.splitlines()
    found = json.loads(line.decode())
    assert found.pop("time") > 1e9
    assert found == {"request_id": "r1", "api": "grpc", "method": "Predict", "code": "OK",
                     "seconds": 0.012346,
                     "client": "ipv4:127.0.0.1:5"}


def test_a_log_that_cannot_be_written_is_counted_and_harms_nothing():
    monitor = Monitor(access_log=True)
    with open("/dev/full", "wb") as full:
        monitor.output._descriptor = full.fileno()
        monitor.count("rest", "predict", 200, 0.02, "r1")
        monitor.output.close(60)
    text = monitor.expose().decode()
    assert "serving_lost_log_lines_total 1.0" in text
    assert 'serving_request_seconds_count{api="rest",code="200",method="predict"} 1.0' in text


@pytest.mark.parametrize("given", ["a1", "trace/00-af.b_c:d=e+f", "x" * 128])
def test_a_caller_names_its_request(given):
    assert request_id_from(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "名", 'a"b', "a\n", "x" * 129])
def test_other_names_are_replaced(given):
    assert len(request_id_from(given)) == 32


def test_no_caller_can_make_a_metric_of_its_own(saved_model, version):
    """A label's values are kept for ever, so they come from lists of ours."""
    monitor = Monitor()

    async def ask():
        inference = await make_inference(saved_model, os.path.dirname(version), monitor)
        app = HttpApp(inference, monitor, HttpLimits(10000, 30))
        async with httpx.AsyncClient(app=app, base_url="http://server") as client:
            for number in range(20):
                for method, path in (("GET", "/p%d"), ("M%d", "/healthz"), ("POST", "/v1/models/m%d:predict"),
                                     ("GET", "/v1/models/m%d"),
                                     ("POST", "/v1/models/albert/versions/%d:classify"),
                                     ("PUT", "/v1/models/albert:m%d")):
                    await client.request(method.replace("%d", str(number)), path.replace("%d", str(number)),
                                         json={"s%d" % number: 1}, headers={"x-request-id": "r%d" % number})
    run(ask())
    series = set(re.findall(r'serving_request_seconds_count{api="(.*)",code="(.*)",method="(.*)"}',
                            monitor.expose().decode()))
    assert {method for _, _, method in series} == {"unknown", "get_health", "predict", "classify",
                                                   "get_status"}
    assert {(api, code) for api, code, _ in series} <= {("rest", "404"), ("rest", "400")}
