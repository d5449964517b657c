"""Two models of two versions each under load while versions, policies, labels and models change: no request
may be lost, and memory is told.

  python test/checks/clients/several_models.py --seconds 120

Half of the load asks by REST, half by gRPC, each model by its name and by its labels. Every few
seconds one thing changes: a version comes or goes, a label moves from one version to the other by
HandleReloadConfigRequest, a third model comes or goes, or a config that cannot be is refused. Whatever is
not answered with probabilities is lost.
"""
import argparse
import collections
import http.client
import itertools
import json
import os
import shutil
import sys
import threading
import time
from typing import Any, Callable, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKS = os.path.dirname(HERE)
sys.path[:0] = [os.path.dirname(os.path.dirname(CHECKS)), os.path.join(CHECKS, "attack")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow_serving.apis import (model_management_pb2, model_service_pb2_grpc, predict_pb2,
                                     prediction_service_pb2_grpc)

from target import FOLDER, Outcome, Server, end, export_model

MODELS = os.path.join(FOLDER, "several_models")
LABELS = ("stable", "canary")
ASKERS = 4                                     # at each interface
CHANGE_SECONDS = 4
LEAK_MB = 64                                   # how much larger the last third may be than the first
TEXT_A, TEXT_B = "手机没信号怎么办", "手机搜不到网络怎么处理"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    outcome = Outcome()
    shutil.rmtree(MODELS, ignore_errors=True)
    good = export_model(os.path.join(FOLDER, "export"))
    for name in ("first", "second", "third"):
        for version in (1, 2):
            shutil.copytree(good, os.path.join(MODELS, name, str(version)))
    path = os.path.join(MODELS, "models.config")
    with open(path, "w") as stream:
        stream.write(str(config("first", "second")))
    with Server("several_models", "--model_config_file", path, "--access_log", "false",
                "--max_models_memory_mb", "500") as server:
        with grpc.insecure_channel("127.0.0.1:%d" % server.grpc_port) as channel:
            run(outcome, server, Changes(good, channel), arguments.seconds)
        seconds, status = end(server.process, 60)
        outcome.tell("SIGTERM", status == 0, "status %s after %.1f s" % (status, seconds))
        with open(server.log_path, "rb") as stream:
            outcome.tell("no traceback in the log", b"Traceback" not in stream.read(), server.log_path)
    shutil.rmtree(MODELS)
    return outcome.status()


def run(outcome: Outcome, server: Server, changes: "Changes", seconds: float) -> None:
    counts: Dict[str, int] = collections.Counter()
    stop = threading.Event()
    askers = [threading.Thread(target=ask, args=(asker(port), counts, stop))
              for asker, port in ((by_rest, server.rest_port), (by_grpc, server.grpc_port))
              for _ in range(ASKERS)]
    for thread in askers:
        thread.start()
    memory: List[float] = []
    begun = time.monotonic()
    while time.monotonic() < begun + seconds and server.is_alive():
        time.sleep(CHANGE_SECONDS)
        said = changes.next()
        memory.append(server.megabytes())
        print("%5.0f s  %s  %.0f MB  %s" % (time.monotonic() - begun, said, memory[-1], dict(counts)),
              flush=True)
    stop.set()
    for thread in askers:
        thread.join(60)
    lost = {code: count for code, count in counts.items() if code != "answered"}
    outcome.tell("no request is lost", not lost and counts["answered"] > 0,
                 "%d answered, lost: %s; %d changes" % (counts["answered"], lost or "none", len(memory)))
    third = max(1, len(memory) // 3)
    first, last = np.median(memory[:third]), np.median(memory[-third:])
    outcome.tell("memory", bool(last <= first + LEAK_MB),
                 "median of the first third %.0f MB, of the last %.0f MB" % (first, last))


def config(*names: str, moved: bool = False, path: str = MODELS) -> Any:
    """These models, with the newest two versions each; the labels change places when they have `moved`."""
    found = model_management_pb2.ReloadConfigRequest().config
    for name in names:
        model = found.model_config_list.config.add(name=name, base_path=os.path.join(path, name),
                                                   model_platform="tensorflow")
        model.model_version_policy.latest.num_versions = 3
        for label, version in zip(LABELS, (2, 1) if moved else (1, 2)):
            model.version_labels[label] = version
    return found


class Changes:
    """What changes, one after the other; each says what it has done."""

    def __init__(self, good: str, channel: Any) -> None:
        self._good, self._service = good, model_service_pb2_grpc.ModelServiceStub(channel)
        self._kinds = itertools.cycle((self._add_version, self._move_labels, self._add_model, self._refuse,
                                       self._remove_version, self._remove_model))
        self.next: Callable[[], str] = lambda: next(self._kinds)()

    def _add_version(self) -> str:
        for name in ("first", "second"):
            shutil.copytree(self._good, os.path.join(MODELS, name, ".new"))
            os.rename(os.path.join(MODELS, name, ".new"), os.path.join(MODELS, name, "3"))
        return "a third version of both   "

    def _remove_version(self) -> str:
        for name in ("first", "second"):
            os.rename(os.path.join(MODELS, name, "3"), os.path.join(MODELS, name, ".old"))
            shutil.rmtree(os.path.join(MODELS, name, ".old"))
        return "two versions of both      "

    def _move_labels(self) -> str:
        return self._reload("the labels change places  ", config("first", "second", moved=True))

    def _add_model(self) -> str:
        return self._reload("a third model             ", config("first", "second", "third", moved=True))

    def _remove_model(self) -> str:
        return self._reload("two models, labels back   ", config("first", "second"))

    def _refuse(self) -> str:
        return self._reload("a config that is refused  ", config("first", "nowhere"), "FAILED_PRECONDITION")

    def _reload(self, said: str, wanted: Any, code: str = "OK") -> str:
        try:
            self._service.HandleReloadConfigRequest(
                model_management_pb2.ReloadConfigRequest(config=wanted), 60)
            found = "OK"
        except grpc.RpcError as error:
            found = error.code().name
        return said if found == code else "%s: %s, NOT %s" % (said, found, code)


def ask(ask_one: Callable[[str, str], str], counts: Dict[str, int], stop: threading.Event) -> None:
    for name, label in itertools.cycle(itertools.product(("first", "second"), ("", *LABELS))):
        if stop.is_set():
            return
        counts[ask_one(name, label)] += 1


def by_rest(port: int) -> Callable[[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"instances": [{"text_a": TEXT_A, "text_b": TEXT_B}]})

    def ask_one(name: str, label: str) -> str:
        try:
            connection.request("POST", "/v1/models/%s%s:predict" % (name, label and "/labels/" + label), body)
            answer = connection.getresponse()
            found = json.loads(answer.read().decode())
            return "answered" if len(found["predictions"][0]["probabilities"]) else "empty"
        except (OSError, http.client.HTTPException, KeyError) as error:
            connection.close()
            return "REST: %r" % error
    return ask_one


def by_grpc(port: int) -> Callable[[str, str], str]:
    service = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel("127.0.0.1:%d" % port))
    request = predict_pb2.PredictRequest()
    for name, text in (("text_a", TEXT_A), ("text_b", TEXT_B)):
        request.inputs[name].CopyFrom(tf.make_tensor_proto([text]))

    def ask_one(name: str, label: str) -> str:
        request.model_spec.name, request.model_spec.version_label = name, label
        if not label:
            request.model_spec.ClearField("version_label")
        try:
            return "answered" if service.Predict(request, 60).outputs["probabilities"].float_val else "empty"
        except grpc.RpcError as error:
            return "gRPC: %s %s" % (error.code().name, error.details())
    return ask_one


if __name__ == "__main__":
    raise SystemExit(main())
