"""An exported model against the plain graph padded to 128, both from raw text to probabilities, in
one process.

  python test/benchmark/serving_speed.py --data dev.tsv --configs tiny base

Weights are random: they do not change the time. The questions are the first two columns of a tab-separated
file. Rounds alternate between both graphs over the same questions, several batches in a row, as a server
would get them; times are medians in ms, ratios those of the medians: of the wall clock's, and of the
process's CPU time, which other work on the machine disturbs less. Then: what share of our time the tokenizer
takes, the largest difference between probabilities, and the time of one million characters without a blank.
"""
import argparse
import itertools
import os
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf

import results
from estimator.model import heads, modeling
from estimator.weights import checkpoint_files, model_folder
from estimator.weights.model_folder import ModelFolder
from etl.text.tokenization import load_tokenizer
from export_apart import export_apart
from serving.exporting.graph_tokenization import GraphTokenizer
from serving.saved_model import SavedModel

PADDED = 128
TOLERANCE = 1e-5
BLOCK_QUESTIONS = 64                           # of a round, at least two batches

Run = Callable[[Any], Tuple[Tuple[float, float], Any]]         # batch → ((wall, CPU) in ms, result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "estimator", "sample", "dev.tsv"),
                        help="questions in pairs")
    parser.add_argument("--configs", nargs="+", default=["tiny", "base"], help="of the models")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rounds", type=int, default=3, help="of each batch size")
    parser.add_argument("--threads", type=int, default=1, help="within an operation, and operations at once")
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    questions = read_questions(arguments.data)
    threads = tf.ConfigProto(intra_op_parallelism_threads=arguments.threads,
                             inter_op_parallelism_threads=arguments.threads)
    failed = False
    for name in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            finetuned, versions = export_apart(name, folder)
            exported = SavedModel(os.path.join(versions, "1"), threads)
            plain = Plain(model_folder.read(finetuned), checkpoint_files.resolve(finetuned), threads)
        print("\n%s, %d thread(s)\n%10s %12s %12s %8s %10s %12s %14s" % (
            name, arguments.threads, "batch", "plain ms", "exported ms", "ratio", "CPU ratio", "tokenizer",
            "difference"))
        for batch_size in arguments.batch_sizes:
            times, difference = compare(exported, plain, questions, batch_size, arguments.rounds)
            failed |= difference > TOLERANCE
            for column, unit in enumerate(("ms", "CPU-ms")):
                results.append(arguments.results, "serving_speed", "%s, batch %d" % (name, batch_size), unit,
                               {
                                   "padded to %d" % PADDED: [spent[column] for spent in times["plain"]],
                                   results.OURS: [spent[column] for spent in times["exported"]]})
        for kind, text in (("Han and Latin in turn", "字x" * 500000), ("one word", "x" * 1000000)):
            (wall, _), _ = measure(lambda: exported.run({"text_a": [text], "text_b": [""]}))
            print("a million characters without a blank, %s: %.0f ms" % (kind, wall), flush=True)
    return int(failed)


def compare(exported: SavedModel, plain: "Plain", questions: List[Tuple[str, str]], batch_size: int,
            rounds: int) -> Tuple[Dict[str, List[Tuple[float, float]]], float]:
    """Prints a row; returns the medians of each round, (wall, CPU) in ms, and the largest difference of
    probabilities."""
    taken = itertools.cycle(questions)
    runs = {"plain": lambda inputs: measure(lambda: plain.run(inputs)),
            "exported": lambda inputs: measure(lambda: exported.run(inputs)["probabilities"]),
            "tokenizer": lambda inputs: measure(lambda: exported.run(inputs, "encode"))}
    times: Dict[str, List[Tuple[float, float]]] = {name: [] for name in runs}
    difference = 0.0
    for number in range(rounds):
        found = run_round(runs, next_batches(taken, batch_size), times, number)
        difference = max([difference] + [float(np.abs(one - other).max())
                                         for one, other in zip(found["plain"], found["exported"])])
    plain_ms, exported_ms, tokenizer_ms = (np.median(times[name], axis=0)
                                           for name in ("plain", "exported", "tokenizer"))
    wall_ratio, cpu_ratio = plain_ms / exported_ms
    print("%10d %12.1f %12.1f %8.2f %10.2f %11.0f%% %14.1e" % (
        batch_size, plain_ms[0], exported_ms[0], wall_ratio, cpu_ratio,
        100 * tokenizer_ms[1] / exported_ms[1], difference), flush=True)
    return times, difference


class Plain:
    """Raw text to probabilities with nothing left out: every row padded to 128, all layers for
    every position."""

    def __init__(self, model: ModelFolder, checkpoint: str, threads: tf.ConfigProto) -> None:
        self._session = tf.Session(graph=tf.Graph(), config=threads)
        with self._session.graph.as_default():
            self._texts = {name: tf.placeholder(tf.string, [None]) for name in ("text_a", "text_b")}
            packed = GraphTokenizer(load_tokenizer(model.tokenizer)).pack_pair(
                max_seq_length=PADDED, **self._texts)
            ids = [tf.pad(tensor, [[0, 0], [0, PADDED - tf.shape(tensor)[1]]]) for tensor in packed]
            encoded = modeling.build_encoder(model.config, *ids)
            self._probabilities = heads.classifier(model.config, encoded, len(model.labels)).probabilities
            checkpoint_files.restore(self._session, checkpoint, model.config)

    def run(self, inputs: Dict[str, Any]) -> np.ndarray:
        return self._session.run(self._probabilities,
                                 {self._texts[name]: value for name, value in inputs.items()})


def read_questions(path: str) -> List[Tuple[str, str]]:
    with open(path, encoding="utf-8") as stream:
        rows = [line.rstrip("\n").split("\t") for line in stream]
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[0] != "text_a"]


def next_batches(taken: Iterator[Tuple[str, str]], batch_size: int) -> List[Dict[str, Any]]:
    """Questions for a round: several batches in a row, as a server would get them."""
    return [dict(zip(("text_a", "text_b"), zip(*itertools.islice(taken, batch_size))))
            for _ in range(1 + max(2, BLOCK_QUESTIONS // batch_size))]


def run_round(runs: Mapping[str, Run], batches: Sequence[Any], times: Dict[str, List[Any]],
              number: int) -> Dict[str, List[Any]]:
    """Runs all batches by each alternative, in one order and then the other; adds the median (wall, CPU) of
    each to `times`.

    Returns what each alternative gave for each batch.
    """
    found = {}
    for name in list(runs)[::1 if number % 2 else -1]:
        measured = [runs[name](batch) for batch in batches]
        # The first batch finds the processor's caches full of another's.
        times[name].append(np.median([spent for spent, _ in measured[1:]], axis=0))
        found[name] = [result for _, result in measured]
    return found


def measure(run: Any) -> Tuple[Tuple[float, float], Any]:
    """((wall, CPU) in ms, result)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return (1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)), found


if __name__ == "__main__":
    sys.exit(main())
