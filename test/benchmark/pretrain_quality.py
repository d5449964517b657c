"""Does pretraining learn? Trains the tiny config for a set time and prints what it can do on held-out text,
over time.

  python test/benchmark/pretrain_quality.py --data 'corpus/*.txt' --minutes 60

The config is tiny, but for initializer_range. Builds samples with a tenth of the documents held out, measures
the pace in a short run, then trains as many steps as fit into the time, evaluations included. A row for each
evaluation: accuracy of masked words beside that of always naming the most frequent word, and accuracy of
sentence order with its 95 % interval (Wilson 1927).
"""
import argparse
import math
import os
import re
import subprocess
import sys
import time

import albert_config
from etl.common import files

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EVALUATIONS = 6
PACE_STEPS = 40
SHARE_OF_TIME_FOR_STEPS = 0.85                 # the rest goes into evaluations and start-up

BUILD = "--max_seq_length 64 --masking token --dupe_factor 10 --eval_fraction 0.1"
TRAIN = "--optimizer adamw --learning_rate 0.0005 --train_batch_size 32 --eval_batch_size 64"
# The released configs start from weights of 0.02, as BERT-base does. At a width of 312 attention then starts
# out blind, and a small run spends its time on finding that out: 1 / sqrt(width) is what a layer needs to
# keep the scale of its input.
INITIALIZER_RANGE = 0.057


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "etl", "sample", "*.txt"), help="text")
    parser.add_argument("--minutes", type=float, default=60.0, help="time for training and evaluations")
    parser.add_argument("--output", default=os.path.join(ROOT, "output", "bench", "pretrain_quality"),
                        help="folder")
    parser.add_argument("--build_flags", default=BUILD, help="of etl.build_pretrain")
    parser.add_argument("--train_flags", default=TRAIN, help="of estimator.pretrain")
    arguments = parser.parse_args()
    arguments.output = os.path.abspath(arguments.output)
    data, pace, model = (os.path.join(arguments.output, name) for name in ("data", "pace", "model"))
    if os.path.exists(model):
        raise SystemExit("%s exists: remove it, or give another --output" % model)
    run("etl.build_pretrain",
        "--input_file %s --output_dir %s %s" % (arguments.data, data, arguments.build_flags))
    config = os.path.join(arguments.output, "config.json")
    files.write_json(config, dict(albert_config.load("tiny").to_dict(), initializer_range=INITIALIZER_RANGE))
    common = "--input_file %s --albert_config_file %s %s --log_steps %d" % (
        data, config, arguments.train_flags, PACE_STEPS // 2)
    seconds = seconds_per_step(run("estimator.pretrain",
                                   common + " --do_eval false --num_train_steps %d --output_dir %s"
                                   % (PACE_STEPS, pace)))
    steps = max(EVALUATIONS, int(60 * arguments.minutes * SHARE_OF_TIME_FOR_STEPS / seconds))
    print("%.3f s a step: %d steps in %.0f minutes" % (seconds, steps, arguments.minutes))
    print("%8s %8s %10s %12s %12s %10s %18s" % ("minutes", "step", "records", "masked LM", "unigram", "order",
                                                "95 % interval"))
    begin = time.time()
    run("estimator.pretrain", common.replace("--log_steps %d" % (PACE_STEPS // 2), "--log_steps 100") +
        " --num_train_steps %d --num_warmup_steps %d --eval_every %d --output_dir %s" % (
            steps, steps // 10, -(-steps // EVALUATIONS), model), Rows(begin))


def run(module: str, flags: str, tell=print) -> str:
    """Runs a command of ours, gives each line to `tell` and returns all of them."""
    command = [sys.executable, "-u", "-m", module] + flags.split()
    print("python -m %s %s" % (module, flags), flush=True)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        tell(line.rstrip("\n"))
    if process.wait():
        raise SystemExit("".join(lines[-5:]))
    return "".join(lines)


def seconds_per_step(log: str) -> float:
    batch = int(re.search(r"--train_batch_size (\d+)", log).group(1))
    return batch / float(re.findall(r"([\d.]+) examples/s", log)[-1])


class Rows:
    """Turns the trainer's evaluations into rows."""

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self._found = {}

    def __call__(self, line: str) -> None:
        for pattern in (r"Step (?P<step>\d+), (?P<records>\d+) records",
                        r"masked_lm_accuracy (?P<lm>[\d.]+) \(unigram (?P<uni>[\d.]+)",
                        r"sentence_order_accuracy (?P<order>[\d.]+)"):
            match = re.search(pattern, line)
            if match:
                self._found.update(match.groupdict())
        if "order" in self._found:
            low, high = wilson_interval(float(self._found["order"]), int(self._found["records"]))
            print("%8.1f %8s %10s %12s %12s %10s %9.4f–%.4f" % (
                (time.time() - self._begin) / 60, self._found["step"], self._found["records"],
                self._found["lm"], self._found["uni"], self._found["order"], low, high), flush=True)
            self._found = {}


def wilson_interval(share: float, count: int, z: float = 1.96):
    """95 % interval of a share that was seen in `count` trials."""
    middle, spread = share + z * z / (2 * count), z * math.sqrt(
        share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)


if __name__ == "__main__":
    main()
