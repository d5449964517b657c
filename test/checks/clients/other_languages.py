"""Clients that others wrote, each asking a server of two models with two versions each, by the official
interface alone: all must read the answers that the models give.

  python test/checks/clients/other_languages.py

The programs stand in the folder beside this file. What they need is installed below output/check_clients,
from PyPI, npm and Go's module proxy; the stubs of today are made in .venv-clients. A client whose tool is not
on this machine, npm or go, is left out, and said to be.
"""
import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
from typing import Any, Dict, List

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKS = os.path.dirname(HERE)
ROOT = os.path.dirname(os.path.dirname(CHECKS))
sys.path[:0] = [ROOT, os.path.join(CHECKS, "attack"), os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from google.protobuf import descriptor_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from exported import make_shipped_classifier
from serving import export
from serving.saved_model import SavedModel
from target import Outcome, Server, export_model

FOLDER = os.path.join(ROOT, "output", "check_clients")
PROGRAMS = os.path.join(HERE, "programs")
PYTHON_OF_TODAY = os.path.join(ROOT, ".venv-clients", "bin", "python")
OLD_GRPC = "grpcio==1.24.3"                    # of October 2019, as TensorFlow Serving 1.15
GRPCURL = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
TEXTS = {"text_a": ["手机没信号怎么办", "北京"], "text_b": ["手机搜不到网络怎么处理", ""]}
ASKS = [{"name": "first"}, {"name": "first", "version": 1}, {"name": "second", "label": "stable"},
        {"name": "second", "label": "canary"}]
VERSIONS = [2, 1, 1, 2]
TOLERANCE = 1e-5
CONFIG = """model_config_list {
  config { name: "first" base_path: "%s/first" model_platform: "tensorflow"
           model_version_policy { latest { num_versions: 2 } } }
  config { name: "second" base_path: "%s/second" model_platform: "tensorflow"
           model_version_policy { specific { versions: 1 versions: 2 } }
           version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 } }
}
"""


def main() -> int:
    os.makedirs(FOLDER, exist_ok=True)
    protoset = write_protoset()
    models = os.path.join(FOLDER, "models")
    make_models(models)
    wanted = {name: SavedModel(os.path.join(models, name, "1")).run(TEXTS) for name in ("first", "second")}
    config = os.path.join(FOLDER, "models.config")
    with open(config, "w") as stream:
        stream.write(CONFIG % (models, models))
    outcome = Outcome()
    clients = {
        "Python, grpcio of 2019": lambda port: ask_python([sys.executable, "-W", "ignore"], old_grpc(), port),
        "Python, grpcio and protobuf of today": lambda port: ask_python(
            [PYTHON_OF_TODAY], stubs_of_today(protoset), port),
        "Node, @grpc/grpc-js": lambda port: ask_node(protoset, port),
        "grpcurl": lambda port: ask_grpcurl(protoset, port)}
    with Server("clients", "--model_config_file", config) as server:
        for name, client in clients.items():
            tool = {"Node, @grpc/grpc-js": "npm", "grpcurl": "go"}.get(name)
            if tool and not shutil.which(tool):
                print("left out  %s: %s is not on PATH" % (name, tool), flush=True)
                continue
            compare(outcome, name, client(server.grpc_port), wanted)
        compare(outcome, "curl, gzip", ask_curl(server.rest_port), wanted)
    return outcome.status()


def make_models(folder: str) -> None:
    """Two versions of each of two models, unless they are there."""
    if os.path.isdir(folder):
        return
    finetuned = os.path.join(FOLDER, "finetune")
    make_shipped_classifier(finetuned, "mini")
    for version in (1, 2):
        export_model(os.path.join(folder, "first"), version)
        if export.main(["--checkpoint_dir", finetuned, "--output_dir", os.path.join(folder, "second"),
                        "--version", str(version)]):
            raise SystemExit(1)


def compare(outcome: Outcome, client: str, answers: List[Dict[str, Any]], wanted: Dict[str, Any]) -> None:
    for asked, version, answer in zip(ASKS, VERSIONS, answers):
        found = wanted[asked["name"]]
        labels = [label.decode() for label in found["label"]]
        probabilities = np.array(answer["probabilities"], np.float64).reshape(found["probabilities"].shape)
        difference = np.abs(probabilities - found["probabilities"]).max()
        is_right = (answer["labels"] == labels and difference < TOLERANCE
                    and answer.get("version", version) == version)
        outcome.tell("%s: %s" % (client, json.dumps(asked)), is_right,
                     "probabilities differ by at most %.0e, version %s" % (difference, answer.get("version")))
    if len(answers) != len(ASKS):
        outcome.tell(client, False, "%d answers of %d" % (len(answers), len(ASKS)))


def write_protoset() -> str:
    """A FileDescriptorSet of the services, and of all that they import, the imported first."""
    found: Dict[str, Any] = {}

    def add(file: Any) -> None:
        for imported in file.dependencies:
            add(imported)
        if file.name not in found:
            found[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(found[file.name])
    for module in (prediction_service_pb2, model_service_pb2):
        add(module.DESCRIPTOR)
    path = os.path.join(FOLDER, "services.protoset")
    with open(path, "wb") as stream:
        stream.write(descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString())
    return path


def old_grpc() -> str:
    """A folder for PYTHONPATH with gRPC as it was when TensorFlow Serving 1.15 came out; the stubs are those
    of this environment, of the same time."""
    folder = os.path.join(FOLDER, "grpcio_2019")
    if not os.path.isdir(folder):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--no-deps", "--only-binary", ":all:", "--target", folder, OLD_GRPC], check=True)
    return folder


def stubs_of_today(protoset: str) -> str:
    """A folder for PYTHONPATH with stubs that grpcio-tools makes of the services."""
    folder = os.path.join(FOLDER, "stubs_of_today")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(protoset, "rb") as stream:
        names = [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(stream.read()).file
                 if not file.name.startswith("google/")]
    subprocess.run([PYTHON_OF_TODAY, "-m", "grpc_tools.protoc", "--descriptor_set_in=" + protoset,
                    "--python_out=" + folder, "--grpc_python_out=" + folder, *names], check=True)
    return folder


def ask_python(python: List[str], path: str, port: int) -> List[Dict[str, Any]]:
    return answers_of([*python, os.path.join(PROGRAMS, "ask.py"), str(port)], PYTHONPATH=path)


def ask_node(protoset: str, port: int) -> List[Dict[str, Any]]:
    folder = os.path.join(FOLDER, "node")
    os.makedirs(folder, exist_ok=True)
    for name in ("ask.js", "package.json"):
        shutil.copy(os.path.join(PROGRAMS, name), folder)
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)
    return answers_of(["node", os.path.join(folder, "ask.js"), str(port), protoset])


def ask_grpcurl(protoset: str, port: int) -> List[Dict[str, Any]]:
    program = os.path.join(FOLDER, "bin", "grpcurl")
    if not os.path.exists(program):
        subprocess.run(["go", "install", GRPCURL], check=True,
                       env=dict(os.environ, GOBIN=os.path.dirname(program)))
    inputs = {name: {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": len(texts)}]},
                     "string_val": [base64.b64encode(text.encode()).decode() for text in texts]}
              for name, texts in TEXTS.items()}
    answers = []
    for asked in ASKS:
        spec = {"name": asked["name"], **({"version": asked["version"]} if "version" in asked else {}),
                **({"version_label": asked["label"]} if "label" in asked else {})}
        said = subprocess.run([program, "-plaintext", "-protoset", protoset, "-d",
                               json.dumps({"model_spec": spec, "inputs": inputs}), "127.0.0.1:%d" % port,
                               "tensorflow.serving.PredictionService/Predict"],
                              check=True, stdout=subprocess.PIPE)
        found = json.loads(said.stdout.decode())
        answers.append({"version": int(found["model_spec"]["version"]),
                        "labels": [base64.b64decode(label).decode()
                                   for label in found["outputs"]["label"]["string_val"]],
                        "probabilities": found["outputs"]["probabilities"]["float_val"]})
    return answers


def ask_curl(port: int) -> List[Dict[str, Any]]:
    body = os.path.join(FOLDER, "body.json.gz")
    with gzip.open(body, "wb") as stream:
        stream.write(json.dumps({"inputs": TEXTS}).encode())
    answers = []
    for asked in ASKS:
        part = "/versions/%d" % asked["version"] if "version" in asked else (
            "/labels/" + asked["label"] if "label" in asked else "")
        said = subprocess.run(["curl", "-sS", "--fail", "-H", "content-encoding: gzip",
                               "--data-binary", "@" + body,
                               "http://127.0.0.1:%d/v1/models/%s%s:predict" % (port, asked["name"], part)],
                              check=True, stdout=subprocess.PIPE)
        found = json.loads(said.stdout.decode())["outputs"]
        answers.append({"labels": found["label"], "probabilities": found["probabilities"]})
    return answers


def answers_of(command: List[str], **environment: str) -> List[Dict[str, Any]]:
    """What a program prints in JSON, given the questions in JSON."""
    said = subprocess.run(command, input=json.dumps({"asks": ASKS, "texts": TEXTS}).encode(),
                          stdout=subprocess.PIPE, env={**os.environ, **environment})
    return json.loads(said.stdout.decode()) if said.returncode == 0 else []


if __name__ == "__main__":
    raise SystemExit(main())
