"""Starts a training on several Ascend devices: one process for each, which end together.

  python -m estimator.launch --devices 0-7 -- estimator.pretrain --input_file data --output_dir model
  python -m estimator.launch --devices 0-7 --save_rank_table hccl_8p.json
  python -m estimator.launch --devices 0-7 --servers 10.0.0.1 10.0.0.2 --hccn_conf 1.conf 2.conf \\
      -- estimator.pretrain --input_file data --output_dir /shared/model

Makes the table by which the devices find each other from /etc/hccn.conf, or takes one; sets the variables of
each process, keeps it to the cores beside its device, and writes what it says to a log of its own. On several
servers the same command runs on each. What stands behind -- is a command of ours and its flags.

SIGTERM, SIGINT and SIGHUP are passed on: the training saves a checkpoint and ends; a second one kills it.
When a process fails, the others are ended, too, and the last lines of its log are shown. The exit status is
that of the first that failed. None outlives the launch, even when it is killed itself.
"""
import sys
from typing import List, Optional, Sequence

from estimator.launching import launcher
from estimator.launching.flags import LaunchConfig
from etl.common.command_line import run


def main(argv: Optional[Sequence[str]] = None) -> int:
    words: List[str] = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    return run("estimator.launch", __doc__, LaunchConfig,
               lambda config: launcher.launch(config, words[end + 1:]), words[:end])


if __name__ == "__main__":
    raise SystemExit(main())
