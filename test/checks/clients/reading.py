"""A model that finds answers and one that chooses among candidates, in one server: REST and gRPC must give
what the exported models give in this process, for each question alone, in batches of mixed length, and under
load.

  python test/checks/clients/reading.py
"""
import concurrent.futures
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import urllib.request
from typing import Any, Callable, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKS = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(CHECKS))
sys.path[:0] = [ROOT, os.path.join(CHECKS, "attack"), os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import tensorflow.compat.v1 as tf
from exported import make_reader
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.saved_model import SavedModel
from target import FOLDER, Outcome, Server, end

MODELS = os.path.join(FOLDER, "reading")
KINDS = {"read": "spans", "choose": "choices"}         # by signature, which is the model's name here
CHARACTERS = list("北京你好吗手机没信号怎么办，？x ") + ["👨\u200d👩", "e\u0301", "\U00020000", "\0", "ab"]
ROUNDS = 20                                    # of all questions under load
TOLERANCE = 1e-3

Row = Dict[str, Any]


def main() -> int:
    outcome = Outcome()
    shutil.rmtree(MODELS, ignore_errors=True)
    for signature, kind in KINDS.items():
        make_reader(os.path.join(MODELS, "trained", signature), kind)
        subprocess.run([sys.executable, "-m", "serving.export", "--checkpoint_dir",
                        os.path.join(MODELS, "trained", signature), "--output_dir",
                        os.path.join(MODELS, signature), "--version", "1"], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)
    path = os.path.join(MODELS, "models.config")
    with open(path, "w") as stream:
        stream.write("model_config_list {%s}" % " ".join(
            'config { name: "%s" base_path: "%s" model_platform: "tensorflow" }'
            % (name, os.path.join(MODELS, name)) for name in KINDS))
    with Server("reading", "--model_config_file", path, "--access_log", "false") as server:
        with grpc.insecure_channel("127.0.0.1:%d" % server.grpc_port) as channel:
            for signature, rows in (("read", questions()), ("choose", choices())):
                model = SavedModel(os.path.join(MODELS, signature, "1"))
                wanted = [model.rows(signature, [row])[0] for row in rows]
                for name, ask in (("REST", by_rest(server.rest_port)), ("gRPC", by_grpc(channel))):
                    compare(outcome, "%s, %s" % (signature, name), ask, signature, rows, wanted)
            padded(outcome, by_grpc(channel))
        _, status = end(server.process, 60)
        outcome.tell("SIGTERM", status == 0)
        with open(server.log_path, "rb") as stream:
            outcome.tell("no traceback in the log", b"Traceback" not in stream.read(), server.log_path)
    shutil.rmtree(MODELS)
    return outcome.status()


def questions() -> List[Row]:
    """Passages of no, few and some thousand characters."""
    rng = random.Random(1)
    return [{"question": text(rng, 3 + length % 9), "passage": text(rng, length)}
            for length in (0, 1, 7, 30, 200, 31, 900, 3, 5000, 60, 0, 400)]


def choices() -> List[Row]:
    """From 2 to 7 candidates, one of them with a gap to fill."""
    rng = random.Random(2)
    return [{"question": text(rng, 4) + gap, "passage": text(rng, 40 * number),
             "candidates": ["%d%s" % (place, text(rng, 3)) for place in range(2 + number)]}
            for number, gap in enumerate(["", "_", "", "_？", "", ""])]


def text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(CHARACTERS) for _ in range(length))


def compare(outcome: Outcome, name: str, ask: Callable[[str, List[Row]], List[Row]], signature: str,
            rows: List[Row], wanted: List[Row]) -> None:
    """Asks each question alone, all at once, and many times from several threads."""
    alone = [ask(signature, [row])[0] for row in rows]
    outcome.tell("%s: each question alone" % name, same(alone, wanted))
    outcome.tell("%s: a batch of mixed length" % name, same(ask(signature, as_batch(rows)), wanted))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        numbers = list(itertools.chain(*[range(len(rows))] * ROUNDS))
        found = list(threads.map(lambda number: ask(signature, [rows[number]])[0], numbers))
    outcome.tell("%s: under load" % name, same(found, [wanted[number] for number in numbers]),
                 "%d requests" % len(numbers))


def padded(outcome: Outcome, ask: Callable[[str, List[Row]], List[Row]]) -> None:
    """TensorFlow Serving fills a request's rows up with its first value (pad_variable_length_inputs)."""
    rows = choices()
    most = max(len(row["candidates"]) for row in rows)
    filled = [dict(row, candidates=(row["candidates"] + row["candidates"][:1] * most)[:most])
              for row in rows]
    outcome.tell("choose: rows filled up with their first candidate",
                 same(ask("choose", filled), [ask("choose", [row])[0] for row in rows]))


def as_batch(rows: List[Row]) -> List[Row]:
    """Absent candidates are empty texts."""
    most = max(len(row.get("candidates", [])) for row in rows)
    return [dict(row, candidates=row["candidates"] + [""] * (most - len(row["candidates"])))
            if most else row for row in rows]


def same(found: List[Row], wanted: List[Row]) -> bool:
    return len(found) == len(wanted) and all(
        set(one) == set(other) and all(
            np.allclose(one[name], other[name], rtol=0, atol=TOLERANCE)
            if not isinstance(other[name], str) else one[name] == other[name] for name in other)
        for one, other in zip(found, wanted))


def by_rest(port: int) -> Callable[[str, List[Row]], List[Row]]:
    def ask(signature: str, rows: List[Row]) -> List[Row]:
        body = json.dumps({"signature_name": signature, "instances": rows}).encode()
        with urllib.request.urlopen("http://127.0.0.1:%d/v1/models/%s:predict" % (port, signature), body,
                                    timeout=60) as answer:
            return json.loads(answer.read().decode("utf-8"))["predictions"]
    return ask


def by_grpc(channel: Any) -> Callable[[str, List[Row]], List[Row]]:
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def ask(signature: str, rows: List[Row]) -> List[Row]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = request.model_spec.signature_name = signature
        for name in rows[0]:
            request.inputs[name].CopyFrom(tf.make_tensor_proto([row[name] for row in rows]))
        outputs = {name: tf.make_ndarray(value).tolist()
                   for name, value in service.Predict(request, 60).outputs.items()}
        return [{name: value.decode("utf-8") if isinstance(value, bytes) else value
                 for name, value in zip(outputs, values)} for values in zip(*outputs.values())]
    return ask


if __name__ == "__main__":
    raise SystemExit(main())
