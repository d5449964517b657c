"""Training on several Ascend 910 on paper: memory of a device, time of communication, efficiency.
Nothing runs.

  python test/benchmark/ascend_on_paper.py --configs xlarge xxlarge --batch 4 --length 512

Every device holds all parameters, their gradients and LAMB's two moments in float32, and adds up the
gradients of all with the others once a step. Computing takes at least the matrix products' operations at the
published rate; --share says what part of that rate is reached, which only a device can tell. Two ways to add
up: one ring over all devices, each link of which carries 2 (n - 1) / n of the gradients; and in groups:
within a group each device is linked with each other one and adds up a part (a reduce-scatter, at the end an
all-gather), between the groups the parts are exchanged. Communication is counted as if nothing of it
overlapped with computing. Where the numbers come from: docs/growth.md.
"""
import argparse
import sys
from typing import Dict

import albert_config
from albert_config import AlbertConfig
from estimator.model.flops import training_flops
from estimator.npu_check import MEMORY_GB
from estimator.training.npu_report import GIGA, TERA, TFLOPS

MASKED_SHARE = 0.15
COPIES = 4                                     # parameters, gradients and two moments
BYTES = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=["base", "large", "xlarge", "xxlarge"])
    parser.add_argument("--batch", type=int, default=4, help="records of a device and batch")
    parser.add_argument("--length", type=int, default=512, help="tokens of a record")
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 8], help="batches of a step")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--group", type=int, default=4, help="devices that are all linked with each other")
    parser.add_argument("--link_gb", type=float, default=30,
                        help="10^9 bytes a second of a link within a group, one way")
    parser.add_argument("--between_gb", type=float, default=32, help="the same of a device to another group")
    parser.add_argument("--share", type=float, nargs="+", default=[1.0, 0.4],
                        help="of the published rate that is reached")
    arguments = parser.parse_args()
    print("%d devices, %d × %d on each; %g GB/s within a group of %d, %g between; %g TFLOP/s, %g GB" % (
        arguments.devices, arguments.batch, arguments.length, arguments.link_gb, arguments.group,
        arguments.between_gb, TFLOPS, MEMORY_GB))
    print("| config | million parameters | update, GB | of memory | gradients, MB | ring, ms | in groups, ms "
          "| share of rate | batches a step | computing, ms | efficiency, ring | in groups |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.configs:
        config = albert_config.load(name)
        parameters = count_parameters(config)
        times = sum_seconds(arguments, BYTES * parameters)
        update = COPIES * BYTES * parameters / GIGA
        flops = training_flops(config, arguments.batch, arguments.batch * arguments.length,
                               arguments.batch * round(MASKED_SHARE * arguments.length))
        for share in arguments.share:
            for batches in arguments.accumulation:
                computing = batches * flops / (share * TFLOPS * TERA)
                print("| %s | %.1f | %.2f | %.1f %% | %.0f | %.1f | %.1f | %g | %d | %.0f | %.0f "
                      "%% | %.0f %% |" % (
                          name, parameters / 1e6, update, 100 * update / MEMORY_GB, BYTES * parameters / 1e6,
                          1000 * times["ring"], 1000 * times["groups"], share, batches, 1000 * computing,
                          *(100 * computing / (computing + times[way]) for way in ("ring", "groups"))))
    return 0


def count_parameters(config: AlbertConfig) -> int:
    """Trainable values of a model with the heads of pretraining."""
    import tensorflow.compat.v1 as tf
    from estimator.model import heads
    tf.logging.set_verbosity(tf.logging.ERROR)
    with tf.Graph().as_default():
        heads.declare_variables(config)
        return sum(variable.shape.num_elements() for variable in tf.trainable_variables())


def sum_seconds(arguments: argparse.Namespace, size: int) -> Dict[str, float]:
    """Seconds to add up `size` bytes of every device, each way, by the links' rates alone."""
    devices, group = arguments.devices, arguments.group
    link, between = arguments.link_gb * GIGA, arguments.between_gb * GIGA
    part, groups = size / group, devices // group
    return {"ring": 2 * (devices - 1) / devices * size / min(link, between),
            "groups": 2 * part / link + 2 * (groups - 1) / groups * part / between}


if __name__ == "__main__":
    sys.exit(main())
