"""Prometheus metrics, and an access log of one JSON object per line. Neither contains the texts
of requests."""
import re
import time
import uuid
from typing import Any, Optional

import orjson
import prometheus_client as prometheus

from serving.service.line_log import LineLog

METRICS_PATH = "/monitoring/prometheus/metrics"    # where TensorFlow Serving has them, too
METRICS_TYPE = prometheus.CONTENT_TYPE_LATEST
REQUEST_ID_HEADER = "x-request-id"
SECONDS = (.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Monitor:
    """The metrics of one server, as attributes, and its access log, which goes to standard output,
    `descriptor`, if `access_log`.

    Attributes:
      output: standard output, also for other lines.
    """

    def __init__(self, access_log: bool = False, descriptor: int = 1) -> None:
        self._access_log = access_log
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)          # memory, CPU time, open files
        self._requests = prometheus.Histogram(
            "serving_request_seconds", "Time from a request's head to its answer", ["api", "method", "code"],
            buckets=SECONDS, registry=registry)
        self.queue_seconds = prometheus.Histogram(
            "serving_queue_seconds", "Time a request waited for the model", buckets=SECONDS,
            registry=registry)
        self.batch_rows = prometheus.Histogram("serving_batch_rows", "Rows of a batch", buckets=SIZES,
                                               registry=registry)
        self.batch_requests = prometheus.Histogram("serving_batch_requests", "Requests of a batch",
                                                   buckets=SIZES, registry=registry)
        self.queue_rows = prometheus.Gauge("serving_queue_rows", "Rows that are waiting", ["model"],
                                           registry=registry)
        self.rejections = prometheus.Counter("serving_rejections", "Requests that were not run, by reason",
                                             ["reason"], registry=registry)
        self.versions = prometheus.Gauge("serving_model_versions", "1 for the state of a version",
                                         ["model", "version", "state"], registry=registry)
        self._lost_log_lines = prometheus.Counter("serving_lost_log_lines",
                                                  "Lines of the access log that were not written",
                                                  registry=registry)
        self.output = LineLog(descriptor, self._lost_log_lines.inc)
        self.load_failures = prometheus.Counter("serving_load_failures", "Versions that could not be loaded",
                                                registry=registry)

    def expose(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return prometheus.generate_latest(self._registry)

    def count(self, api: str, method: str, code: Any, seconds: float, request_id: str, **facts: Any) -> None:
        """Counts an answered request and logs it."""
        self._requests.labels(api, method, code).observe(seconds)
        if self._access_log:
            line = {"time": time.time(), "request_id": request_id, "api": api, "method": method, "code": code,
                    "seconds": round(seconds, 6), **facts}
            self.output.write(orjson.dumps(line) + b"\n")


def request_id_from(given: Optional[str]) -> str:
    """The request id that the client gave, if it is safe to log; else a new one."""
    return given if given and re.fullmatch(r"[\w.:/+=-]{1,128}", given, re.ASCII) else uuid.uuid4().hex
