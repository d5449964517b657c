"""Attacks what parses JSON and tf.Examples: a running server by both of its doors, and a trainer by
its records.

  python test/checks/attack/parsers.py
"""
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any, Iterator, Tuple

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]
from target import ROOT, Outcome, Server

sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]

PREDICT = "/v1/models/albert:predict"
EXAMPLE_MUTANTS = 2000
RECORDS, BAD_RECORD = 20480, 20300  # the trainer itself looks at the first 20,000 before it trains
# Fields nobody knows inside an entry of the map, and a name three times.
ODD_EXAMPLE = (
    "ClQKFAoGdGV4dF9hEgoKCAoG5omL5py6CiAKBnRleHRfYRIWChQKB4rQ5HnYAOcKAQAKBuaJi+acugoaCgZ0ZXh0X2EaEBIKCggE91pOf5XjQhIC"
    "CgA=")
DEEP = {"lists": b"[" * 150000, "objects": b'{"a":' * 150000, "both": b'[{"a":' * 75000,
        "behind a text": b'["\\"[",' + b"[" * 150000,
        "inside a request": b'{"instances":' + b"[" * 150000 + b"]" * 150000 + b"}"}


def main() -> int:
    outcome = Outcome()
    with Server("parsers", "--access_log", "false") as server:
        attack_json(server, outcome)
        attack_examples(server, outcome)
    attack_trainer(outcome)
    return outcome.status()


def post(server: Server, path: str, body: bytes) -> int:
    """The status of the answer; 0 when there is none."""
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (server.rest_port, path), body)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def attack_json(server: Server, outcome: Outcome) -> None:
    for name, body in DEEP.items():
        for path in (PREDICT, "/v1/models/none:predict", "/v1/models/albert:classify"):
            status = post(server, path, body)
            outcome.tell("REST: 150,000 %s at %s" % (name, path), status == 400 and server.is_alive(),
                         "HTTP %d" % status)
    status = post(server, PREDICT, b'{"inputs": {"text_a": ["\\ud800"], "text_b": [""]}}')
    outcome.tell("REST: half a character", status == 400, "HTTP %d" % status)


def mutants(count: int) -> Iterator[bytes]:
    """Serialized Examples, some bytes of which are changed, cut out or doubled."""
    rng = random.Random(1)
    for _ in range(count):
        made = bytearray(rng.choice([base64.b64decode(ODD_EXAMPLE),
                                     b"\n\x1a\n\x18\n\x06text_a\x12\x0e\n\x0c\n\n" + b"0123456789"]))
        for _ in range(rng.choice([1, 1, 2, 4])):
            place = rng.randrange(len(made))
            made[place:place + rng.randrange(3)] = rng.choice([bytes([rng.randrange(256)]), b"",
                                                               made[place:place + 9], b"\xff" * 5])
        yield bytes(made[:rng.choice([len(made), rng.randrange(len(made) + 1)])])


def attack_examples(server: Server, outcome: Outcome) -> None:
    import grpc
    import tensorflow.compat.v1 as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    status = post(server, PREDICT,
                  json.dumps({"signature_name": "examples", "inputs": [{"b64": ODD_EXAMPLE}]}).encode())
    outcome.tell("REST: an Example of 86 bytes", status in (200, 400) and server.is_alive(),
                 "HTTP %d" % status)
    statuses, codes = set(), set()
    with grpc.insecure_channel("127.0.0.1:%d" % server.grpc_port) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for number, serialized in enumerate([base64.b64decode(ODD_EXAMPLE), *mutants(EXAMPLE_MUTANTS)]):
            if number % 2:
                body = {"signature_name": "examples",
                        "inputs": [{"b64": base64.b64encode(serialized).decode()}]}
                statuses.add(post(server, PREDICT, json.dumps(body).encode()))
                continue
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "albert", "examples"
            request.inputs["examples"].CopyFrom(tf.make_tensor_proto([serialized]))
            try:
                stub.Predict(request, timeout=20)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    outcome.tell("REST and gRPC: %d mutants of it" % EXAMPLE_MUTANTS,
                 statuses <= {200, 400} and codes <= {"OK", "INVALID_ARGUMENT"} and server.is_alive(),
                 "HTTP %s, gRPC %s" % (sorted(statuses), sorted(codes)))


def malformed(record: bytes) -> Iterator[Tuple[str, bytes]]:
    yield "cut off", record[:-1]
    yield "bytes that are no UTF-8 behind it", record + b"\xff\xff"
    yield "a name that is no UTF-8", record.replace(b"input_ids", b"input_\xff\xff\xff")


def attack_trainer(outcome: Outcome) -> None:
    import tiny_training
    from etl.records.examples import frame, serialize_examples
    whole = [serialize_examples({name: array[None]
                                 for name, array in tiny_training.record_values(number).items()})[0]
             for number in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_training.write_build(os.path.join(folder, "data"), num_train=20, num_eval=5, num_shards=1)
        shard = os.path.join(data, "tf_examples-00000-of-00001.tfrecord")
        config = tiny_training.write_config(os.path.join(folder, "config.json"))
        for name, record in malformed(whole[13]):
            with open(shard, "wb") as stream:
                good = [frame(each) for each in whole]
                stream.writelines(frame(record) if number == BAD_RECORD else good[number % len(good)]
                                  for number in range(RECORDS))
            correct_manifest(data, os.path.getsize(shard))
            done = train(data, config, tempfile.mkdtemp(dir=folder))
            said = done.stderr.decode("utf-8", "replace")
            outcome.tell("trainer: a record with a right checksum, " + name,
                         done.returncode == 1 and "tfrecord: record %d: " % BAD_RECORD in said
                         and "Traceback" not in said,
                         "exit status %d: %s" % (done.returncode, said.strip().split("\n")[-1][:200]))


def correct_manifest(data: str, size: int) -> None:
    path = os.path.join(data, "manifest.json")
    with open(path, encoding="utf-8") as stream:
        manifest: Any = json.load(stream)
    manifest["train"][0].update(bytes=size, records=RECORDS)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream)


def train(data: str, config: str, output_dir: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "estimator.pretrain", "--input_file", data, "--output_dir",
         output_dir, "--albert_config_file", config, "--train_batch_size", "512", "--num_train_steps", "41",
         "--num_warmup_steps", "1"], cwd=ROOT, env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=300)


if __name__ == "__main__":
    raise SystemExit(main())
