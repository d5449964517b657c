"""How time and memory grow with sequence length, batch, layers and vocabulary: a training step, and a
classifier's answer.

  python test/benchmark/growth.py --config tiny --rounds 3

One of the four at a time, the others as they are. Training is a step of `training_step.py`, inference an
exported model's graph from ids. Each size has a process of its own; memory is the peak of its resident memory
in the steps less what it held before the graph was built, so the weights are in. The processes of a table run
one after the other, --rounds times over. Below each table stands the power law that fits it best, a · size^b
by least squares of logarithms, and where it breaks: between which two sizes the exponent is further than 0.25
from b.
"""
import argparse
import dataclasses
import multiprocessing
import os
import re
import statistics
import sys
import time
from concurrent import futures
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow.compat.v1 as tf

import albert_config
import results
import training_step
from albert_config import AlbertConfig
from estimator.weights.model_folder import ModelFolder
from etl.text.tokenization import TokenizerConfig
from serving.exporting import signatures

AXES = {"length": (32, 64, 128, 256, 512, 1024), "batch": (1, 2, 4, 8, 16, 32),
        "layers": (1, 2, 4, 8, 16, 32), "vocabulary": (1000, 4000, 16000, 64000, 256000)}
WORK = ("training", "inference")
BREAK = 0.25                                   # how far an exponent may be from the law's


class Cost(NamedTuple):
    """Of one size."""
    seconds: float                             # of a training step, or of an answer
    cpu_seconds: float
    megabytes: float                           # see above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="tiny", help="of the albert_zh family; the axes change it")
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--base_length", type=int, default=128)
    parser.add_argument("--base_batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each size")
    parser.add_argument("--steps", type=int, default=5, help="timed in a process; the median counts")
    parser.add_argument("--threads", type=int, default=2, help="of TensorFlow")
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.ERROR)
    for axis in arguments.axes:
        for work in WORK:
            grow(arguments, work, axis)
    return 0


def grow(arguments: argparse.Namespace, work: str, axis: str) -> None:
    """Prints a table and its laws."""
    found: Dict[int, List[Cost]] = {size: [] for size in AXES[axis]}
    for _ in range(arguments.rounds):
        for size, costs in found.items():
            costs.append(measure_apart(arguments, work, axis, size))
    print("\n%s of %s against %s; else length %d, batch %d, %d threads; medians of %d" % (
        work, arguments.config, axis, arguments.base_length, arguments.base_batch, arguments.threads,
        arguments.rounds))
    print("%10s %10s %10s %10s %12s" % (axis, "wall ms", "CPU-ms", "MB", "examples/s"))
    medians = {size: Cost(*np.median(costs, axis=0)) for size, costs in found.items()}
    for size, cost in medians.items():
        examples = size if axis == "batch" else arguments.base_batch
        print("%10d %10.1f %10.1f %10.1f %12.1f" % (
            size, 1000 * cost.seconds, 1000 * cost.cpu_seconds, cost.megabytes, examples / cost.seconds))
        for unit, column in (("s", 0), ("CPU-s", 1), ("MB", 2)):
            results.append(arguments.results, "growth, %s" % axis, "%s, %d" % (work, size), unit,
                           {results.OURS: [cost[column] for cost in found[size]]})
    for name, column in (("wall", 0), ("CPU", 1), ("memory", 2)):
        print("  %-6s %s" % (name, describe_law(list(medians), [cost[column] for cost in medians.values()])),
              flush=True)


def describe_law(sizes: Sequence[float], values: Sequence[float]) -> str:
    """The power law of positive values, each step's own exponent, and where these leave it."""
    xs, ys = np.log(sizes), np.log(np.maximum(values, 1e-9))
    exponent, _ = np.polyfit(xs, ys, 1)
    steps = np.diff(ys) / np.diff(xs)
    broken = [index for index, step in enumerate(steps) if abs(step - exponent) > BREAK]
    text = "size^%.2f; from size to size %s; " % (exponent, " ".join("%.2f" % step for step in steps))
    if not broken:
        return text + "holds throughout"
    return text + "breaks " + ", ".join("%d–%d" % (sizes[index], sizes[index + 1]) for index in broken)


def measure_apart(*what: Any) -> Cost:
    """In a process of its own, forked from this one, which has loaded TensorFlow but started nothing
    of it."""
    with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as process:
        return process.submit(measure, *what).result()


def measure(arguments: argparse.Namespace, work: str, axis: str, size: int) -> Cost:
    """Of one size, in this process."""
    flags = training_step.StepConfig(
        config=arguments.config, batch=size if axis == "batch" else arguments.base_batch,
        length=size if axis == "length" else arguments.base_length, threads=arguments.threads)
    model = albert_config.load(flags.config)
    model = dataclasses.replace(
        model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        max_position_embeddings=max(flags.length, model.max_position_embeddings),
        num_hidden_layers=size if axis == "layers" else model.num_hidden_layers,
        vocab_size=size if axis == "vocabulary" else model.vocab_size)
    batch = training_step.make_batch(flags, model.vocab_size)
    before = megabytes("VmRSS")
    build = training_step.ours if work == "training" else infer
    step = training_step.make_step(flags, batch, lambda features: build(model, features))
    with open("/proc/self/clear_refs", "w") as stream:  # forgets the peak of initialization; see proc(5)
        stream.write("5")
    step()                                     # prepares the session
    spent: List[Tuple[float, float]] = []
    for _ in range(arguments.steps):
        begin, begin_cpu = time.time(), training_step.cpu_seconds()
        step()
        spent.append((time.time() - begin, training_step.cpu_seconds() - begin_cpu))
    return Cost(*(statistics.median(times) for times in zip(*spent)), megabytes("VmHWM") - before)


def infer(model: AlbertConfig, features: Dict[str, tf.Tensor]) -> Any:
    """A classifier's answer, as a scalar and an operation."""
    folder = ModelFolder(model, TokenizerConfig(albert_config.vocab_path()), model.max_position_embeddings,
                         None, ("0", "1"))
    answered = signatures.answer(folder, **{name: features[name] for name in signatures.IDS})
    return tf.reduce_sum(answered.probabilities), tf.no_op()


def megabytes(name: str) -> float:
    """Resident memory of this process, as the kernel tells it: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as stream:
        return int(re.search(r"^%s:\s+(\d+) kB" % name, stream.read(), re.M).group(1)) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
