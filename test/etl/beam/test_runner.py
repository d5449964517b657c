import json

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from etl.beam import runner, worker_pool


def test_another_user_of_the_host_gets_no_worker_from_the_commands_pool(monkeypatch):
    asked = []
    monkeypatch.setattr(worker_pool.Pool, "start", lambda self, *names: asked.append(names))
    flags = dict(flag[2:].split("=", 1) for flag in runner._start_workers_here())
    environment = json.loads(flags["environment_config"])
    with grpc.insecure_channel(environment["url"]) as channel:
        service = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        with pytest.raises(grpc.RpcError, match="PERMISSION_DENIED"):
            service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="worker_1"), timeout=100)
        service.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1", params=environment["params"]),
                            timeout=100)
    assert flags["environment_type"] == "EXTERNAL" and asked == [("1", "")]
