import json

import pytest

from serving.monitoring import Monitor, request_id_from


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
    assert found == {"request_id": "r1", "api": "grpc", "method": "Predict", "code": "OK", "seconds": 0.012346,
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
