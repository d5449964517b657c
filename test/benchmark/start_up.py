"""How long it takes until something happens: the server's first answer, the first training step of tiny.

  python test/benchmark/start_up.py --rounds 3

Each is a new process, timed from its start: the server with an exported model until it has answered a
question, the trainer on the shipped sample until its line of the first step. Beside them a process that
imports TensorFlow and does nothing else: no start can be shorter.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Callable, Dict, List

import results
from export_apart import export_apart

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WANTED = {"server, first answer": 5.0,
          "training of tiny, first step": 20.0}       # seconds, told beside what was measured
IMPORT = "import of TensorFlow alone"
QUESTION = {"instances": [{"text_a": "手机没信号怎么办", "text_b": "手机搜不到网络怎么处理"}]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        starts: Dict[str, Callable[[], float]] = {
            "server, first answer": lambda: server_seconds(folder),
            "training of tiny, first step": lambda: training_seconds(folder),
            IMPORT: import_seconds}
        rounds: Dict[str, List[float]] = {name: [] for name in starts}
        for _ in range(arguments.rounds):
            for name, start in starts.items():
                rounds[name].append(start())
    for name, seconds in rounds.items():
        wanted = WANTED.get(name)
        print("%-30s %5.1f s (%.1f to %.1f)%s" % (
            name, statistics.median(seconds), min(seconds), max(seconds), "" if wanted is None else
            "; wanted within %g s: %s" % (wanted, "yes" if statistics.median(seconds) <= wanted else "NO")),
              flush=True)
        results.append(arguments.results, "start_up", name, "s",
                       {"TensorFlow" if name == IMPORT else results.OURS: seconds})
    return 0


def prepare(folder: str) -> None:
    """An exported tiny model and records of the shipped sample."""
    export_apart("tiny", folder)
    run("-m", "etl.build_pretrain", "--max_seq_length", "128", "--output_dir", os.path.join(folder, "data"))


def server_seconds(folder: str) -> float:
    begin = time.perf_counter()
    process = start("-m", "serving.server", "--model_base_path", os.path.join(folder, "export"), "--port",
                    "0", "--rest_api_port", "0", "--access_log", "false")
    try:
        port = int(wait_for(process, r"http://127\.0\.0\.1:(\d+)").group(1))
        request = urllib.request.Request("http://127.0.0.1:%d/v1/models/albert:predict" % port,
                                         json.dumps(QUESTION).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            answer.read()
        return time.perf_counter() - begin
    finally:
        end(process)


def training_seconds(folder: str) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as output:
        begin = time.perf_counter()
        process = start("-m", "estimator.pretrain", "--input_file", os.path.join(folder, "data"),
                        "--albert_config_file", "tiny", "--train_batch_size", "8", "--num_train_steps",
                        "1000", "--num_warmup_steps", "10", "--output_dir", output)
        try:
            wait_for(process, r"^step 1/")
            return time.perf_counter() - begin
        finally:
            end(process)


def import_seconds() -> float:
    begin = time.perf_counter()
    run("-c", "import tensorflow")
    return time.perf_counter() - begin


def start(*arguments: str) -> subprocess.Popen:
    """A Python process that finds our code; its output can be read line by line."""
    paths = os.pathsep.join([ROOT, os.path.join(ROOT, "test", "helpers")])
    environment = dict(os.environ, PYTHONPATH=paths, PYTHONUNBUFFERED="1", TF_CPP_MIN_LOG_LEVEL="2")
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, universal_newlines=True,
                            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run(*arguments: str) -> None:
    process = start(*arguments)
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit("%s ended with %d:\n%s" % (" ".join(arguments), process.returncode, said[-2000:]))


def wait_for(process: subprocess.Popen, pattern: str):
    """Reads until a line matches; returns the match."""
    said = []
    for line in process.stdout:
        said.append(line)
        found = re.search(pattern, line)
        if found:
            return found
    raise SystemExit("ended without a line that matches %s:\n%s" % (pattern, "".join(said)[-2000:]))


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


if __name__ == "__main__":
    sys.exit(main())
