"""A worker started by an engine or a pool: Beam's worker code, with the address of its task manager."""
import logging
import os

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format


def work(worker_id: str, provision_endpoint: str) -> None:
    """Gets its instructions and works until the task manager closes the connection; ends the process."""
    try:
        with grpc.insecure_channel(provision_endpoint) as channel:
            service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
            info = service.GetProvisionInfo(beam_provision_api_pb2.GetProvisionInfoRequest(),
                                            metadata=[("worker_id", worker_id)], timeout=60).info
        os.environ.update(WORKER_ID=worker_id,
                          PIPELINE_OPTIONS=json_format.MessageToJson(info.pipeline_options),
                          CONTROL_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.control_endpoint),
                          LOGGING_API_SERVICE_DESCRIPTOR=text_format.MessageToString(info.logging_endpoint))
        sdk_worker_main.main([])
    except BaseException:
        logging.getLogger("etl.beam.worker").exception("worker %s ends", worker_id)
        os._exit(1)                            # whatever its threads are doing: nothing waits for it any more
    os._exit(0)
