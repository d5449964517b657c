"""A running server under requests that are nearly right: JSON bodies, tf.Examples and gRPC messages, mutated.

  python test/checks/fuzz.py                              # 100,000 bodies, 80,000 tf.Examples, 30,000
                                                          gRPC messages
  python test/checks/fuzz.py --seed 7 --bodies 1000       # others, and fewer
  python test/checks/fuzz.py --only example-123           # some of them again

Each must get an answer that blames the caller, or a right one; the server must live, be ready afterwards,
give the same answer to a good request as before, and its log must hold no traceback. What falls is written to
output/check_fuzz/, to be sent again.

Memory may peak at MEMORY_MB more than before: IN_FLIGHT requests at once, of at most 512 KiB each
(`mutations.MAX_BYTES`), of which JSON's worst, empty lists, becomes 20 times as much when parsed.
"""
import argparse
import asyncio
import collections
import json
import os
import random
import sys
import time
import urllib.request
from typing import Any, Dict, List, Optional, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [ROOT, os.path.join(HERE, "attack")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import tensorflow.compat.v1 as tf
from google.protobuf import wrappers_pb2
from grpc_health.v1 import health_pb2
from tensorflow_serving.apis import (classification_pb2, get_model_metadata_pb2, get_model_status_pb2,
                                     inference_pb2, model_management_pb2, predict_pb2, regression_pb2)

import mutations
from target import Outcome, Server

FOLDER = os.path.join(ROOT, "output", "check_fuzz")
CONNECTIONS = 8                                # of REST; and as many calls at once of gRPC
IN_FLIGHT = 2 * CONNECTIONS
MEMORY_MB = 20 * IN_FLIGHT * mutations.MAX_BYTES / 2 ** 20 + 96        # and what a heap in pieces takes
SECONDS = 60                                # for an answer
MAX_FAILURES = 20                           # written; a server that falls so often need not be asked further
ALLOWED_HTTP = {200, 400, 403, 404, 405, 408, 411, 413, 414, 415, 421, 422, 429, 431, 501, 503}
ALLOWED_GRPC = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED",
                "FAILED_PRECONDITION", "OUT_OF_RANGE", "PERMISSION_DENIED"}
ANY_BYTES = "a whole request, whose head may be such that no answer is due"
PREDICT, CLASSIFY = "/v1/models/albert:predict", "/v1/models/albert:classify"
TEXTS = {"text_a": "手机没信号怎么办", "text_b": "北京"}
IDS = {"input_ids": [2, 5, 6, 3], "input_mask": [1, 1, 1, 1], "segment_ids": [0, 0, 0, 0]}
SERVICE, MODELS = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"

# Where a case goes: a path of REST or a method of gRPC, what is sent, and whether an answer is due.
Case = Tuple[str, bytes, bool]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=100000)
    parser.add_argument("--examples", type=int, default=80000)
    parser.add_argument("--messages", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="cases, as their files in output/check_fuzz/ are named")
    arguments = parser.parse_args()
    os.makedirs(FOLDER, exist_ok=True)
    cases = [("%s-%d" % (kind, number))
             for kind, count in (("body", arguments.bodies), ("example", arguments.examples),
                                 ("message", arguments.messages)) for number in range(count)]
    if arguments.only:
        cases = arguments.only
    random.Random(arguments.seed).shuffle(cases)   # so that what is in flight together is of all kinds
    outcome = Outcome()
    # else a mutated config of no models would leave nothing to ask
    with Server("fuzz", "--access_log", "false", "--allow_reload_config", "false") as server:
        asyncio.run(Fuzz(server, arguments.seed, cases).run(outcome))
    return outcome.status()


class Fuzz:
    """Sends all cases, each by its kind's road, and tells what became of the server."""

    def __init__(self, server: Server, seed: int, cases: List[str]) -> None:
        self._server, self._seed, self._cases = server, seed, cases
        self._next = 0
        self._answers: Dict[str, int] = collections.Counter()
        self._failures: List[str] = []
        self._in_flight: Dict[str, Case] = {}
        self._seeds = Seeds()

    async def run(self, outcome: Outcome) -> None:
        before, good = self._server.megabytes(peak=True), ask_good(self._server)
        self._start = time.monotonic()
        async with grpc.aio.insecure_channel("127.0.0.1:%d" % self._server.grpc_port) as channel:
            telling = asyncio.ensure_future(self._tell())
            await asyncio.gather(*[self._work(channel) for _ in range(IN_FLIGHT)])
            telling.cancel()
        spent = time.monotonic() - self._start
        print("%d requests in %.0f s, %.0f a second: %s" % (self._next, spent, self._next / spent, ", ".join(
            "%s %d" % item for item in sorted(self._answers.items()))))
        alive = self._server.is_alive()
        outcome.tell("the server lives", alive,
                     "" if alive else "ended with %s; one of %s did it: send each by --only" % (
                         self._server.process.poll(), ", ".join(sorted(self._in_flight) or self._failures)))
        outcome.tell("every answer is one for the caller", not self._failures,
                     "%d others%s" % (len(self._failures),
                                      "".join("\n      " + text for text in self._failures[:MAX_FAILURES])))
        if alive:
            outcome.tell("ready afterwards", self._server.is_ready())
            now = ask_good(self._server)
            outcome.tell("the same answer as before", same(good, now),
                         "" if same(good, now) else "%s, before %s" % (now, good))
            peak = self._server.megabytes(peak=True)
            outcome.tell("memory", peak <= before + MEMORY_MB,
                         "peak %.0f MB, before %.0f MB, at most %.0f MB more; now %.0f MB" % (
                             peak, before, MEMORY_MB, self._server.megabytes()))
        with open(self._server.log_path, "rb") as stream:
            log = stream.read()
        outcome.tell("no traceback in the log", b"Traceback" not in log, "%d, %d bytes, in %s" % (
            log.count(b"Traceback"), len(log), self._server.log_path))

    async def _work(self, channel: Any) -> None:
        rest = Rest(self._server.rest_port)
        while (self._next < len(self._cases) and self._server.is_alive()
               and len(self._failures) < MAX_FAILURES):
            name = self._cases[self._next]
            self._next += 1
            kind, number = name.split("-")
            where, data, is_due = make_case(kind, random.Random("%d/%s/%s" % (self._seed, kind, number)),
                                            self._seeds)
            self._in_flight[name] = where, data, is_due
            code = await (call(channel, where, data) if "tensorflow" in where or "grpc" in where
                          else rest.ask(where, data, is_due))
            if code in ("none", "UNAVAILABLE"):
                await asyncio.sleep(1)         # a process takes a while to end
            if not self._server.is_alive():    # whoever did it is among those in flight
                self._keep(name)
                return
            self._answers[code] += 1
            if code not in ALLOWED_GRPC and int(
                    code if code.isdigit() else 0) not in ALLOWED_HTTP and (is_due or code != "none"):
                self._failures.append("%s to %s: see %s" % (code, where[:80], self._keep(name)))
            del self._in_flight[name]
        rest.close()

    def _keep(self, name: str) -> str:
        path = os.path.join(FOLDER, "%s-seed%d.bin" % (name, self._seed))
        with open(path, "wb") as stream:
            stream.write(self._in_flight[name][1])
        return path

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(10)
            spent = time.monotonic() - self._start
            rate = self._next / spent
            print("%7d of %d, %.0f a second, %.0f s left, %.0f MB" % (
                self._next, len(self._cases), rate, (len(self._cases) - self._next) / rate,
                self._server.megabytes()), flush=True)


class Rest:
    """One connection, kept alive as long as the server likes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: Optional[Tuple[asyncio.StreamReader, asyncio.StreamWriter]] = None

    async def ask(self, where: str, data: bytes, is_due: bool) -> str:
        """The status; "none" when there was no answer."""
        request = data
        if where is not ANY_BYTES:
            method, path = where.split(" ", 1)
            request = (b"%s %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
                       b"content-length: %d\r\n\r\n%s" % (method.encode(), path.encode(), len(data), data))
        else:
            self.close()  # what comes after it on the same connection would be read as a part of it
        for _ in range(2):               # a connection that was idle may have been closed
            is_new = not self._streams
            try:
                return await asyncio.wait_for(self._exchange(request), SECONDS if is_due else 1)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError,
                    asyncio.LimitOverrunError) as error:
                self.close()
                if is_new or isinstance(error, asyncio.TimeoutError):
                    return "none"
            finally:
                if where is ANY_BYTES:
                    self.close()
        return "none"

    async def _exchange(self, request: bytes) -> str:
        if not self._streams:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if b"content-length" in fields:
            await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close" or b"content-length" not in fields:
            self.close()
        return head[9:12].decode()

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def call(channel: Any, method: str, data: bytes) -> str:
    """The name of the status code."""
    try:
        await channel.unary_unary(method, request_serializer=None,
                                  response_deserializer=None)(data, timeout=SECONDS)
        return "OK"
    except grpc.aio.AioRpcError as error:
        return error.code().name


def make_case(kind: str, rng: random.Random, seeds: "Seeds") -> Case:
    if kind == "body":
        return make_body(rng, seeds.bodies)
    if kind == "message":
        method, message = rng.choice(seeds.messages)
        return method, mutations.mutate_message(rng, message), True
    good = rng.choice(seeds.examples)
    example = mutations.mutate_message(rng, good)
    if rng.random() < 0.3:
        return SERVICE + "Predict", predict_message("examples", {"examples": [example]}), True
    return "POST " + PREDICT, mutations.example_body(rng, example, seeds.examples[0]), True


def make_body(rng: random.Random, bodies: Sequence[Tuple[str, Any]]) -> Case:
    path, value = rng.choice(bodies)
    body = json.dumps(value).encode()
    if rng.random() < 0.5:
        body = mutations.mutate_bytes(rng, body, json.dumps(rng.choice(bodies)[1]).encode())
    else:
        body = mutations.mutate_json(rng, value)
    odd = rng.random()
    method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS")) if odd < 0.01 else "POST"
    if 0.01 <= odd < 0.02:
        path = rng.choice(("/", "/v1", "/v1/models/%FF:predict", "/v1/models/albert/versions/%s:predict"
                           % rng.choice(("1", "0", "-1", "9" * 18, "9" * 30, "%D9%A1", "1%00")),
                           "/v1/models/" + "a" * 2000 + ":predict", "/../etc/passwd:predict",
            "//v1/models/albert:predict", "/v1/models/albert:predict?x=%F0", "/v1/models/albert:regress",
            "/healthz", "/openapi.json"))
    if odd > 0.9975:
        head = (b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nx-request-id: "
                b"a\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)))
        return ANY_BYTES, mutations.mutate_bytes(rng, head) + body, False
    return "%s %s" % (method, path), body, True


class Seeds:
    """Good requests of all roads."""

    def __init__(self) -> None:
        self.bodies = good_bodies()
        self.examples = [example.SerializeToString() for example in good_examples()]
        self.messages = good_messages(self.examples)


def good_bodies() -> List[Tuple[str, Any]]:
    columns = {name: [value] * 2 for name, value in TEXTS.items()}
    ids = {name: [value] * 2 for name, value in IDS.items()}
    example = {"b64": "Ch8KHQoGdGV4dF9hEhMKEQoP5omL5py65rKh5L+h5Y+3"}
    bodies: List[Tuple[str, Any]] = []
    for name in ("serving_default", "encode", "embed"):
        bodies += [(PREDICT, {"signature_name": name, "instances": [TEXTS, TEXTS]}),
                   (PREDICT, {"signature_name": name, "inputs": columns})]
    return bodies + [
        (PREDICT, {"instances": [{"text_a": {"b64": "5YyX5Lqs"}, "text_b": ""}]}),
        (PREDICT, {"signature_name": "predict_ids", "instances": [IDS]}),
        (PREDICT, {"signature_name": "predict_ids", "inputs": ids}),
        (PREDICT, {"signature_name": "examples", "inputs": [example]}),
        (PREDICT, {"signature_name": "examples", "instances": [{"examples": example}]}),
        (CLASSIFY, {"signature_name": "classify", "examples": [TEXTS]}),
        (CLASSIFY, {"signature_name": "classify", "context": {"text_b": "北京"},
                    "examples": [{"text_a": "你好"}, {"text_a": ["吗"]}]}),
        (CLASSIFY, {"signature_name": "classify",
                    "examples": [{"text_a": {"b64": "5YyX"}, "n": [1, 2], "f": [0.5], "e": []}]})]


def good_examples() -> List[tf.train.Example]:
    made = []
    for names in (("text_a",), ("text_a", "text_b"), ("text_a", "text_b", "n", "f")):
        example = tf.train.Example()
        for name in names:
            feature = example.features.feature[name]
            if name == "n":
                feature.int64_list.value.extend([1, -1, 2 ** 40])
            elif name == "f":
                feature.float_list.value.extend([0.5, 1e30])
            else:
                feature.bytes_list.value.append(TEXTS[name].encode())
        made.append(example)
    return made


def predict_message(signature: str, inputs: Dict[str, Any], output_filter: Sequence[str] = ()) -> bytes:
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name, request.model_spec.signature_name = "albert", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, tf.int32 if name in IDS else tf.string))
    return request.SerializeToString()


def good_messages(examples: Sequence[bytes]) -> List[Tuple[str, bytes]]:
    texts = {name: [value.encode()] for name, value in TEXTS.items()}
    made = [(SERVICE + "Predict", predict_message(name, texts)) for name in ("", "encode", "embed")]
    made += [(SERVICE + "Predict", predict_message("", texts, ["label", "logits"])),
             (SERVICE + "Predict",
              predict_message("predict_ids", {name: [value] for name, value in IDS.items()})),
             (SERVICE + "Predict", predict_message("examples", {"examples": list(examples)}))]
    for shape in ((1, 2 ** 20), (2 ** 20, 1), (0, 5), (2 ** 31, 2 ** 31), (2 ** 62, 4), (-1, 1), (1,) * 300,
                  ()):
        made.append((SERVICE + "Predict", of_shape(shape)))
    for fill in (lambda request: request.input.example_list.examples.extend(map(
        tf.train.Example.FromString, examples)), _with_context):
        for kind, method in ((classification_pb2.ClassificationRequest, "Classify"),
                             (regression_pb2.RegressionRequest, "Regress")):
            request = kind()
            request.model_spec.name, request.model_spec.signature_name = "albert", "classify"
            request.model_spec.version.CopyFrom(wrappers_pb2.Int64Value(value=1))
            fill(request)
            made.append((SERVICE + method, request.SerializeToString()))
    multiple = inference_pb2.MultiInferenceRequest()
    multiple.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "albert"
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    state = get_model_status_pb2.GetModelStatusRequest()
    metadata.model_spec.name = state.model_spec.name = "albert"
    reload = model_management_pb2.ReloadConfigRequest()
    reload.config.model_config_list.config.add(name="albert", base_path="/tmp")
    return made + [(SERVICE + "MultiInference", multiple.SerializeToString()),
                   (SERVICE + "GetModelMetadata", metadata.SerializeToString()),
                   (MODELS + "GetModelStatus", state.SerializeToString()),
                   (MODELS + "HandleReloadConfigRequest", reload.SerializeToString()),
                   ("/grpc.health.v1.Health/Check",
                    health_pb2.HealthCheckRequest(service="x").SerializeToString())]


def of_shape(shape: Sequence[int]) -> bytes:
    """A tensor of one value that says it has many."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "albert", "predict_ids"
    for name in IDS:
        tensor = request.inputs[name]
        tensor.dtype = tf.int32.as_datatype_enum
        tensor.int_val.append(1)
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
    return request.SerializeToString()


def _with_context(request: Any) -> None:
    both = request.input.example_list_with_context
    both.context.features.feature["text_b"].bytes_list.value.append("北京".encode())
    both.examples.add().features.feature["text_a"].bytes_list.value.append("你好".encode())


def ask_good(server: Server) -> Any:
    body = json.dumps({"inputs": {name: [value] for name, value in TEXTS.items()}}).encode()
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (server.rest_port, PREDICT), body,
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)["outputs"]


def same(before: Dict[str, Any], now: Dict[str, Any]) -> bool:
    """But for the last bits, which depend on what runs at the same time."""
    return before["label"] == now["label"] and all(
        abs(one - other) < 1e-5 for one, other in zip(before["probabilities"][0], now["probabilities"][0]))


if __name__ == "__main__":
    sys.exit(main())
