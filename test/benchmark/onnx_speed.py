"""An exported model against onnxruntime on the same weights and questions, in two processes that answer
in turn.

  python test/benchmark/onnx_speed.py --data dev.tsv --configs tiny base

onnxruntime runs in an environment of its own (`make bench-onnx` sets it up) and gets its best: all graph
optimizations, and two models, one of standard operators and one of its transformer optimizer's fused ones;
the quicker of the two counts. Both sides get the same token ids, padded to the longest of the batch; ours
answers from text, too. Weights are random. Each round gives every alternative several batches in a row; times
are medians in ms of the rounds' medians, of the call alone, without what passes between the processes. "of
its time" is ours divided by the quicker one's: below 1 ours is ahead. A difference of probabilities above
1e-4 ends with status 1.
"""
import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf

import results
from estimator.weights import checkpoint_files, model_folder
from export_apart import export_apart
from serving.saved_model import SavedModel
from serving_speed import Run, measure, next_batches, read_questions, run_round

TOLERANCE = 1e-4
THEIRS = {"onnxruntime": "plain", "onnxruntime, fused": "fused"}
FROM_TEXT = "ours from text"

Times = Dict[str, List[Tuple[float, float]]]   # (wall, CPU) of each round in ms, by alternative


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample", "dev.tsv"),
                        help="questions in pairs")
    parser.add_argument("--configs", nargs="+", default=["tiny", "base"], help="of the albert_zh family")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=3, help="of each batch size")
    parser.add_argument("--threads", type=int, default=1, help="within an operation, and operations at once")
    parser.add_argument("--python", default=os.path.join(ROOT, ".venv-onnx", "bin", "python"),
                        help="where onnxruntime is")
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    if not os.path.exists(arguments.python):
        raise SystemExit("%s is not there: make bench-onnx sets it up" % arguments.python)
    tf.logging.set_verbosity(tf.logging.ERROR)
    questions = read_questions(arguments.data)
    worst = 0.0
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            model = export_both(name, folder, arguments.threads)
            theirs = subprocess.Popen(
                [arguments.python, os.path.join(ROOT, "test", "benchmark", "onnx_model.py"), folder,
                 str(arguments.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                version = json.loads(theirs.stdout.readline())["version"]
                print("\n%s, %d thread(s), onnxruntime %s" % (name, arguments.threads, version))
                print("%6s %7s %14s %14s %14s %18s %12s %8s %12s" % (
                    "batch", "tokens", results.OURS, FROM_TEXT, *THEIRS, "of its time", "CPU", "difference"),
                      flush=True)
                for batch_size in arguments.batch_sizes:
                    worst = max(worst, compare(arguments, name, model, theirs, questions, batch_size))
            finally:
                theirs.stdin.close()
                theirs.wait()
    return int(not worst <= TOLERANCE)


def export_both(name: str, folder: str, threads: int) -> SavedModel:
    """A model of a shipped config as SavedModel, and its weights and config in `folder` for the
    other side."""
    finetuned, versions = export_apart(name, folder)
    reader = tf.train.load_checkpoint(checkpoint_files.resolve(finetuned))
    names = reader.get_variable_to_shape_map()
    np.savez(os.path.join(folder, "weights.npz"),
             **{variable: reader.get_tensor(variable) for variable in names})
    with open(os.path.join(folder, "config.json"), "w") as stream:
        json.dump(dataclasses.asdict(model_folder.read(finetuned).config), stream)
    return SavedModel(os.path.join(versions, "1"), tf.ConfigProto(intra_op_parallelism_threads=threads,
                                                                inter_op_parallelism_threads=threads))


def compare(arguments: argparse.Namespace, name: str, model: SavedModel, theirs: subprocess.Popen,
            questions: List[Tuple[str, str]], batch_size: int) -> float:
    """Prints a row; returns the largest difference of probabilities."""
    taken = itertools.cycle(questions)
    runs: Dict[str, Run] = {                   # a batch is (texts, ids)
        results.OURS: lambda batch: measure(lambda: model.run(batch[1], "predict_ids")["probabilities"]),
        FROM_TEXT: lambda batch: measure(lambda: model.run(batch[0])["probabilities"])}
    for key, kind in THEIRS.items():
        runs[key] = lambda batch, kind=kind: ask(theirs, kind, batch[1])
    times: Times = {key: [] for key in runs}
    difference, tokens = 0.0, []
    for number in range(arguments.rounds):
        batches = [(texts, model.run(texts, "encode")) for texts in next_batches(taken, batch_size)]
        found = {key: np.concatenate(values)
                 for key, values in run_round(runs, batches, times, number).items()}
        difference = max([difference] + [float(np.abs(values - found[results.OURS]).max())
                                         for values in found.values()])
        tokens += [count for _, ids in batches for count in ids["input_mask"].sum(axis=1).tolist()]
    medians = {key: np.median(spent, axis=0) for key, spent in times.items()}
    quicker = min(THEIRS, key=lambda key: medians[key][0])
    print("%6d %7.1f %14.2f %14.2f %14.2f %18.2f %12.2f %8.2f %12.1e" % (
        batch_size, np.mean(tokens), *(spent[0] for spent in medians.values()),
        *medians[results.OURS] / medians[quicker], difference), flush=True)
    for column, unit in enumerate(("ms", "CPU-ms")):
        rounds = {key: [spent[column] for spent in times[key]] for key in (*THEIRS, FROM_TEXT, results.OURS)}
        results.append(arguments.results, "onnx_speed", "%s, batch %d" % (name, batch_size), unit, rounds)
    return difference


def ask(theirs: subprocess.Popen, kind: str, ids: Dict[str, np.ndarray]) -> Tuple[Tuple[float, float], Any]:
    """((wall, CPU) in ms, probabilities) of the other process."""
    request = {"model": kind, **{key: value.tolist() for key, value in ids.items()}}
    theirs.stdin.write(json.dumps(request).encode() + b"\n")
    theirs.stdin.flush()
    answer = json.loads(theirs.stdout.readline())
    return (answer["wall"], answer["cpu"]), np.array(answer["probabilities"])


if __name__ == "__main__":
    sys.exit(main())
