"""A run that is killed (kill -9) after an update overflowed must end where it would have ended, bit for bit.

  python test/checks/npu_resume.py

On the stand-in for npu_bridge, in both its generations: one rank and two, with and without accumulation and
loops, with fixed and dynamic loss scales, our dropout (--npu_kernels false, a rate of 0.1) and without,
overflows before and after the checkpoint that the second run goes on from, right before the kill and as the
last update. Prints a row for each and ends with status 1 where a variable of the last checkpoint differs.
"""
import dataclasses
import os
import pathlib
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

import npu_runs
import tiny_training
from estimator.weights import checkpoint_files

STEPS, CHECKPOINT = 10, 4
# generation, ranks, accumulation, loop in batches, loss scale, overflows, call after which it is killed
CASES = (("H", 1, 1, 1, "fixed", "3,7", 8), ("M", 1, 1, 2, "dynamic", "3,7", 4),
         ("M", 1, 2, 2, "dynamic", "3,4", 7), ("H", 1, 2, 4, "dynamic", "3,10", 4),
         ("M", 2, 1, 1, "dynamic", "3,7", 8), ("H", 2, 2, 2, "dynamic", "3,7", 7),
         ("M", 2, 2, 4, "fixed", "5,10", 3))


def main() -> int:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="npu_resume"))
    tiny_training.write_build(folder / "data", num_train=200, num_eval=5)
    tiny_training.write_config(folder / "config.json", dataclasses.replace(
        tiny_training.CONFIG, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1))
    npu_runs.pretrain(folder, "H", "plain", backend="cpu", do_eval="false")    # initial values for all
    failures = [case for number, case in enumerate(CASES) if not is_the_same(folder, number, *case)]
    print("%d of %d cases differ" % (len(failures), len(CASES)))
    return 1 if failures else 0


def is_the_same(folder, number, generation, ranks, accumulation, loop, loss_scale, overflows, killed_at):
    """Trains a case through, and killed and resumed."""
    flags = dict(backend="npu", train_batch_size=4, num_train_steps=STEPS, save_checkpoints_steps=CHECKPOINT,
                 gradient_accumulation_steps=accumulation, iterations_per_loop=loop, loss_scale=loss_scale,
                 npu_kernels="false", do_eval="false")
    overflowing = {"NPU_STAND_IN_OVERFLOWS": overflows}

    def train(name, status=0, **environment):
        npu_runs.pretrain_ranks(folder, generation, name, ranks, status, dict(overflowing, **environment),
                                **flags)
    whole, killed = "whole_%d" % number, "killed_%d" % number
    train(whole)
    train(killed, -9, NPU_STAND_IN_KILLED_AT=str(killed_at))
    left = checkpoint_files.resolve(str(folder / killed))
    train(killed)
    steps = STEPS - len(overflows.split(","))
    wanted, found = (npu_runs.weights(folder / name, steps) for name in (whole, killed))
    different = sorted(name for name in set(wanted) | set(found)
                       if not np.array_equal(wanted.get(name), found.get(name)))
    print("%s, %d rank(s), accumulation %d, loops of %d, %s, overflows %s, killed after call %d, resumed "
          "from %s: %s" % (generation, ranks, accumulation, loop, loss_scale, overflows, killed_at,
                      os.path.basename(left), ", ".join(different) or "all %d variables equal" % len(found)),
          flush=True)
    return not different


if __name__ == "__main__":
    sys.exit(main())
